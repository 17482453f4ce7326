"""Calls at a steady rate, and what became of each."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.observer import Answer, Observer

AT_ONCE = 16


@dataclass(slots=True)
class Tally:
    """What became of calls."""

    instances: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """How many calls were answered or failed."""
        return self.instances.total() + self.failures.total()

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if answer.status == HTTPStatus.OK:
            told = answer.json()
            self.instances[told["instance"]] += 1
            self.versions[told["version"]] += 1
        else:
            self.failures[f"{answer.status} {answer.code}".strip()] += 1


async def call_many(
    observer: Observer, caller: Instance, url: str, count: int, at_once: int = AT_ONCE
) -> Tally:
    """Make that many calls, some at once."""
    tally = Tally()
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await _call(observer, caller, url, tally)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return tally


@contextlib.asynccontextmanager
async def steady_load(
    observer: Observer, caller: Instance, url: str, per_second: float
) -> AsyncIterator[Tally]:
    """Call at that rate while the block runs; all calls are answered when it ends."""
    tally = Tally()
    done = asyncio.Event()

    async def work(delay: float) -> None:
        await asyncio.sleep(delay)
        while not done.is_set():
            await _call(observer, caller, url, tally)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), AT_ONCE / per_second)

    async with asyncio.TaskGroup() as group:
        for number in range(AT_ONCE):
            group.create_task(work(number / per_second))
        try:
            yield tally
        finally:
            done.set()


async def _call(observer: Observer, caller: Instance, url: str, tally: Tally) -> None:
    try:
        tally.add(await observer.call(caller, url))
    except (aiohttp.ClientError, TimeoutError) as error:
        tally.failures[type(error).__name__] += 1
