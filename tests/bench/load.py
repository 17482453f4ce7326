"""Runs the load (proxy/examples/load) and reads what it found."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from garrison.identity.errors import GarrisonError
from tests.bench.programs import load_program

SLACK_SECONDS = 60.0
LINE_SECONDS = 300.0


class VoidRunError(GarrisonError):
    """An answer was wrong: what was measured means nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in which every answer was right."""

    answers: int
    seconds: float
    p50_us: float
    p99_us: float
    more: Any


def words(mode: str, options: Mapping[str, object]) -> list[str]:
    """Spell a command line of the load."""
    return [str(load_program()), mode, *(f"--{name}={value}" for name, value in options.items())]


async def run_load(mode: str, seconds: float, **options: object) -> Outcome:
    """Load for some seconds; raise `VoidRunError` unless all was answered, and rightly."""
    line = await _only_line(words(mode, options | {"seconds": seconds}), seconds + SLACK_SECONDS)
    if line["wrong"] or not line["right"]:
        told = f"{line['wrong']} wrong answers, the first: {line['first_wrong']}"
        raise VoidRunError(f"load {mode} {options}: {line['right']} right answers, {told}")
    return Outcome(line["right"], line["seconds"], line["p50_us"], line["p99_us"], line["more"])


async def decisions(**options: object) -> Any:  # noqa: ANN401 - JSON
    """Time decisions in the sidecar's code."""
    return await _only_line(words("decisions", options), LINE_SECONDS)


async def _only_line(command: list[str], seconds: float) -> Any:  # noqa: ANN401 - JSON
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await running.communicate()
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    if running.returncode:
        raise VoidRunError(f"{' '.join(command)}: {errors.decode(errors='replace').strip()}")
    return json.loads(output)


@dataclass(frozen=True, slots=True)
class Running:
    """A load that goes on until it is told to end, and prints a line now and then."""

    process: asyncio.subprocess.Process

    async def line(self, seconds: float = LINE_SECONDS) -> Any:  # noqa: ANN401 - JSON
        """Wait for the next line."""
        assert self.process.stdout
        assert self.process.stderr
        async with asyncio.timeout(seconds):
            line = await self.process.stdout.readline()
            if not line:
                errors = (await self.process.stderr.read()).decode(errors="replace")
                raise VoidRunError(f"the load ended: {errors.strip()}")
        return json.loads(line)

    def stop(self) -> None:
        """Tell it to end; what it has to say then can still be read."""
        assert self.process.stdin
        self.process.stdin.close()


@contextlib.asynccontextmanager
async def running_load(mode: str, **options: object) -> AsyncIterator[Running]:
    """Start a load that runs until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *words(mode, options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
