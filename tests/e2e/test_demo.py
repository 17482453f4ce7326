"""The demo shows everything that it promises, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from garrison.deploy.demo.network import random_block
from garrison.deploy.demo.scenes import SCENES

DEMO = (sys.executable, "-m", "garrison.deploy", "demo")
SECONDS = 240
STAYING = "running until Ctrl-C"


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


def assert_gone(directory: Path) -> None:
    """Hold that a demo's processes have ended and its files are removed, or are being so now."""
    deadline = time.monotonic() + 30
    while left := [*processes_with(str(directory)).values(), *directory.iterdir()]:
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
    assert_gone(tmp_path)


def test_demo_stays_with_commands_that_work_until_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path, "--only", "allowed-call", "--only", "proxies-converged") as demo:
        places, *others = suggested(wait_for(demo, STAYING))
        for command in others:
            assert_works(f"{places}\n{command}", *sign_of(command))
        demo.send_signal(signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert_gone(tmp_path)


# What each suggested command has in it: with which status it ends, and what it shows.
SIGNS = {
    "-X DELETE": (0, "inbound/denied"),
    "$GARRISON explain": (1, "DELETE"),
    "$GARRISON status": (0, "all in sync"),
    "/metrics": (0, "garrison_requests_total"),
    "/config": (0, "bookstore/catalog"),
    "tail": (0, '"request_id"'),
    "catalog.bookstore": (0, '"instance": "catalog-'),
    "git push": (0, ""),
    "touch": (0, ""),
    "rm ": (0, ""),
    "curl http://": (0, '"http://orders.bookstore/orders/7": {"status": 200'),
}


def sign_of(command: str) -> tuple[int, str]:
    return next(sign for part, sign in SIGNS.items() if part in command)


def assert_works(script: str, expected: int, sign: str) -> None:
    """Hold that a command does what it is for, now or soon: the demo's SVIDs live for seconds."""
    deadline = time.monotonic() + 60
    while True:
        status, told = shell(script)
        if status == expected and sign in told:
            return
        assert time.monotonic() < deadline, (script, status, told)
        time.sleep(0.5)


def suggested(told: str) -> list[str]:
    """Return the commands that a demo suggests; each stands below a word on what it is for."""
    pairs = itertools.pairwise(told.splitlines())
    return [command.strip() for purpose, command in pairs if purpose.startswith("  # ")]


def shell(script: str) -> tuple[int, str]:
    """Run what a person would paste."""
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "COLUMNS": "200"},
    )
    return done.returncode, done.stdout


def test_check_that_fails_is_told_and_ends_in_1(tmp_path: Path) -> None:
    """The policy allows what the scene is to see denied: it is changed before anybody reads it."""
    with started(tmp_path, "--only", "denied-call") as demo:
        wait_for(demo, "making the CA's keys")
        demo.send_signal(signal.SIGSTOP)
        (clone,) = tmp_path.glob("garrison-demo-*/policies")
        allowing = "p, allow, ops/admin, bookstore/payments, GET, /health\n"
        (clone / "authz" / "operators.csv").write_text(allowing)
        status, said = shell(f"cd {clone} && git commit -qam allow && git push -q")
        assert status == 0, said
        demo.send_signal(signal.SIGCONT)
        told = wait_for(demo, STAYING)
        assert "\nFAILED  denied-call: an operator reached payments: 200" in told
        assert "0 of 1 checks passed" in told
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert_gone(tmp_path)


def test_nothing_outlives_a_killed_demo(tmp_path: Path) -> None:
    with started(tmp_path, "--only", "allowed-call") as demo:
        wait_for(demo, STAYING)
        assert len(processes_with(str(tmp_path))) > 10
        demo.send_signal(signal.SIGKILL)
    assert_gone(tmp_path)


def test_nothing_outlives_an_interrupted_demo(tmp_path: Path) -> None:
    for how, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with started(tmp_path) as demo:
            wait_for(demo, "waiting for identities")
            demo.send_signal(how)
            demo.communicate(timeout=30)
        assert demo.returncode == status
        assert_gone(tmp_path)


def test_crash_of_a_part_is_told_with_its_log_and_ends_the_demo(tmp_path: Path) -> None:
    with started(tmp_path, "--only", "allowed-call") as demo:
        wait_for(demo, STAYING)
        (policy_server,) = processes_with(str(tmp_path), "policy serve")
        os.kill(policy_server, signal.SIGKILL)
        _, told = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert "garrison: policy-server ended with status -9; the end of its log:" in told
    assert "Traceback" not in told
    assert_gone(tmp_path)


@contextlib.contextmanager
def started(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a demo that keeps its files in a directory; it ends with the block at the latest."""
    with subprocess.Popen(
        [*DEMO, "--network", str(random_block()), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def wait_for(demo: subprocess.Popen[str], text: str) -> str:
    """Read what a demo tells until it tells this; return all of it."""
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if text in line:
            return told
    raise AssertionError(demo.communicate(timeout=10)[1])
