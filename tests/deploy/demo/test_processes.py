"""Processes of a stage end with it, by whichever way it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from garrison.deploy.demo.processes import PartCrashedError, Program, supervised

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
)
OWNER = """
import asyncio, sys
from pathlib import Path
from garrison.deploy.demo.processes import Program, supervised

async def main():
    async with supervised(Path(sys.argv[1])) as processes:
        started = await processes.start(Program("sleeper", (sys.executable, "-c", sys.argv[2])))
        print(started.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def runs(pid: int) -> bool:
    """Claim that a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def assert_soon(claim: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "not within the time given"
        time.sleep(0.02)


def test_processes_end_with_the_block(tmp_path: Path) -> None:
    async def scene() -> int:
        async with supervised(tmp_path) as processes:
            started = await processes.start(Program("sleeper", SLEEPER))
            assert runs(started.pid)
            return started.pid

    assert not runs(asyncio.run(scene()))


def test_process_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.deploy.demo.processes.STOP_SECONDS", 0.2)

    async def scene() -> int:
        async with supervised(tmp_path) as processes:
            started = await processes.start(Program("stubborn", STUBBORN))
            await asyncio.sleep(0.2)
            return started.pid

    assert not runs(asyncio.run(scene()))


def test_crash_ends_the_block_with_the_tail_of_the_log(tmp_path: Path) -> None:
    pids = []

    async def scene() -> None:
        async with supervised(tmp_path) as processes:
            pids.append((await processes.start(Program("sleeper", SLEEPER))).pid)
            crash = (sys.executable, "-c", "raise SystemExit('no such file')")
            await processes.start(Program("crasher", crash))
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(scene())
    (crash,) = raised.value.exceptions
    assert isinstance(crash, PartCrashedError)
    assert "crasher ended with status 1" in str(crash)
    assert "no such file" in str(crash)
    assert not any(runs(pid) for pid in pids)


def test_process_that_was_told_to_end_is_no_crash_and_starts_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with supervised(tmp_path) as processes:
            first = await processes.start(Program("sleeper", SLEEPER))
            await first.end(signal.SIGKILL)
            second = await processes.start(first.program)
            assert runs(second.pid)
            assert not runs(first.pid)

    asyncio.run(scene())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_do_not_outlive_their_owner(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path), "import time; time.sleep(600)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert runs(pid)
        os.kill(owner.pid, how)
        owner.wait(10)
    assert_soon(lambda: not runs(pid))


def test_program_that_fails_is_told(tmp_path: Path) -> None:
    async def scene() -> None:
        async with supervised(tmp_path) as processes:
            await processes.run(Program("fine", (sys.executable, "-c", "")))
            await processes.run(Program("bad", (sys.executable, "-c", "raise SystemExit('why')")))

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(scene())
    assert str(raised.value.exceptions[0]) == "bad failed: why"
