"""The demo shows everything that it promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from garrison.deploy.demo.network import random_block
from garrison.deploy.demo.scenes import SCENES

DEMO = (sys.executable, "-m", "garrison.deploy", "demo")
SECONDS = 240


def processes_with(*texts: str) -> dict[int, str]:
    """Return the command lines of running processes that hold all the texts."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        line = command.replace("\0", " ")
        if all(text in line for text in texts) and int(process.name) != os.getpid():
            found[int(process.name)] = line
    return found


def assert_nothing_left(text: str) -> None:
    deadline = time.monotonic() + 15
    while left := processes_with(text):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_demo_shows_everything_and_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--once", "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert report["ok"] is True
    assert [check["name"] for check in report["checks"]] == [scene.name for scene in SCENES]
    assert all(check["ok"] and check["detail"] for check in report["checks"])
    assert_nothing_left(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_nothing_outlives_a_killed_demo(tmp_path: Path) -> None:
    with started(tmp_path) as demo:
        wait_for(demo, "waiting for identities")
        assert len(processes_with(str(tmp_path))) > 10
        demo.send_signal(signal.SIGKILL)
    assert_nothing_left(str(tmp_path))


def test_nothing_outlives_an_interrupted_demo(tmp_path: Path) -> None:
    for how, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with started(tmp_path) as demo:
            wait_for(demo, "waiting for identities")
            demo.send_signal(how)
            demo.communicate(timeout=30)
        assert demo.returncode == status
        assert_nothing_left(str(tmp_path))
        assert list(tmp_path.iterdir()) == []


def test_crash_of_a_part_is_told_with_its_log_and_ends_the_demo(tmp_path: Path) -> None:
    with started(tmp_path) as demo:
        wait_for(demo, "waiting for identities")
        (policy_server,) = processes_with(str(tmp_path), "policy serve")
        os.kill(policy_server, signal.SIGKILL)
        _, told = demo.communicate(timeout=30)
    assert demo.returncode == 2
    assert "garrison: policy-server ended with status -9; the end of its log:" in told
    assert "Traceback" not in told
    assert_nothing_left(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def started(directory: Path) -> subprocess.Popen[str]:
    """Start a demo that keeps its files in a directory."""
    return subprocess.Popen(
        [*DEMO, "--network", str(random_block())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )


def wait_for(demo: subprocess.Popen[str], text: str) -> None:
    """Read what a demo tells until it tells this."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if text in line:
            return
    raise AssertionError(demo.communicate(timeout=10)[1])
