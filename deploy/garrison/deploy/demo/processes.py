"""The processes of a stage: started on a leash, watched, and gone when the stage closes.

A process that ends before it was told to is a crash: it ends the stage, with the tail of its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from garrison.identity.errors import UnavailableError

LEASH = Path(__file__).with_name("leash.py")
TAIL_LINES = 15
STOP_SECONDS = 5.0
RUN_SECONDS = 60.0


class PartCrashedError(UnavailableError):
    """A process of the stage ended although nobody had asked it to."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: the name in messages and logs, the command, additions to the environment."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Process:
    """A running program. `output` holds what it wrote to stdout, `log` what to stderr."""

    program: Program
    output: Path
    log: Path
    _running: asyncio.subprocess.Process
    _told_to_end: bool = False

    @property
    def pid(self) -> int:
        """The process id; the leash keeps it when it becomes the program."""
        return self._running.pid

    async def watch(self) -> None:
        """Wait for the end of the process; raise `PartCrashedError` if nobody had asked for it."""
        status = await self._running.wait()
        if not self._told_to_end:
            told = f"{self.program.name} ended with status {status}; the end of its log:"
            raise PartCrashedError(f"{told}\n{self.tail()}")

    async def succeed(self, seconds: float) -> None:
        """Wait for the end of a process that does one thing; raise `PartCrashedError`."""
        try:
            async with asyncio.timeout(seconds):
                status = await self._running.wait()
        except TimeoutError:
            raise PartCrashedError(
                f"{self.program.name} has no end after {seconds:.0f} s"
            ) from None
        if status:
            raise PartCrashedError(f"{self.program.name} failed: {self.tail()}")

    async def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; SIGKILL after `STOP_SECONDS`. Idempotent."""
        self.tell_to_end(how)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._running.wait()
        except TimeoutError:
            self._send(signal.SIGKILL)
            await self._running.wait()

    def tell_to_end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal; the end that follows is no crash."""
        self._told_to_end = True
        self._send(how)

    async def ended(self) -> int:
        """Wait for the end, and return the exit status."""
        return await self._running.wait()

    def _send(self, how: signal.Signals) -> None:
        if self._running.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._running.send_signal(how)

    def tail(self) -> str:
        """Return the last lines of the log."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, TAIL_LINES)).rstrip() or "(its log is empty)"


async def launch(program: Program, logs: Path) -> Process:
    """Start a program on a leash, out of reach of the terminal's Ctrl-C."""
    output, log = logs / f"{program.name}.out", logs / f"{program.name}.log"
    leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()))
    with output.open("ab") as output_file, log.open("ab") as log_file:
        running = await asyncio.create_subprocess_exec(
            *leash,
            *program.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output_file,
            stderr=log_file,
            env={**os.environ, **program.environment},
            start_new_session=True,
        )
    return Process(program, output, log, running)


class Processes:
    """All processes of a stage."""

    def __init__(self, group: asyncio.TaskGroup, logs: Path) -> None:
        """Watch processes in `group`, and keep their logs in the directory `logs`."""
        self._group = group
        self._logs = logs
        self._started: dict[str, Process] = {}

    async def start(self, program: Program) -> Process:
        """Start a program, or start it again after `Process.end`."""
        process = await launch(program, self._logs)
        self._started[program.name] = process
        self._group.create_task(process.watch(), name=f"watch {program.name}")
        return process

    async def run(self, program: Program) -> None:
        """Run a program to its end; raise `PartCrashedError` unless it succeeds in time."""
        process = await launch(program, self._logs)
        self._started[program.name] = process
        await process.succeed(RUN_SECONDS)

    def __getitem__(self, name: str) -> Process:
        """Return the process of that name."""
        return self._started[name]

    async def end_all(self) -> None:
        """End every process, all at once."""
        async with asyncio.TaskGroup() as group:
            for process in self._started.values():
                group.create_task(process.end())


@contextlib.asynccontextmanager
async def supervised(logs: Path) -> AsyncIterator[Processes]:
    """Give a place to start processes in; on leaving it, by whichever way, they have ended."""
    async with asyncio.TaskGroup() as group:
        processes = Processes(group, logs)
        try:
            yield processes
        finally:
            await processes.end_all()
