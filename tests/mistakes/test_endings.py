"""Ctrl-C, and a reader that goes away: no traceback, and the status that the documents say."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from tests.mistakes.place import BLUNDERS, NOBODY, SECONDS, Place, ended, ran_here

INTERRUPTED = 130


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (("ca", "serve", "--config", "ca.toml"), "ca ready"),
        (("policy", "serve", "--config", "policy.toml"), "svid"),
        (("proxy", "--config", "sidecar.toml"), "proxy started"),
    ],
)
def test_interrupt_ends_a_server_quietly(place: Place, words: tuple[str, ...], sign: str) -> None:
    process = place.start(*words)
    limit = threading.Timer(SECONDS, process.kill)
    limit.start()
    try:
        said = _until(process, lambda line: sign in line)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=SECONDS)
    finally:
        limit.cancel()
        process.kill()
        process.communicate()
    assert process.returncode == 0, said + rest
    assert "Traceback" not in said + rest


def _until(process: subprocess.Popen[str], is_it: Callable[[str], bool]) -> str:
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if is_it(line):
            return said
    raise AssertionError(said)


@pytest.mark.parametrize(
    "command",
    ["--bogus", "ca serve --config folder", "check empty.git", f"status --policy http://{NOBODY}"],
)
def test_process_refuses_as_the_command_does(place: Place, command: str) -> None:
    words = command.split()
    assert ended(place.start(*words)) == ran_here(place, *words)


@pytest.mark.parametrize("more", [(), ("--wait", "deadbeef", "--timeout", "600")])
def test_interrupt_ends_a_question_quietly(place: Place, more: tuple[str, ...]) -> None:
    """The server that is asked takes the connection, and says nothing."""
    with socket.create_server((place.host, 0)) as silent:
        silent.settimeout(SECONDS)
        url = f"http://{place.host}:{silent.getsockname()[1]}"
        process = place.start("status", "--policy", url, *more)
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out, said.strip()) == (INTERRUPTED, "", "")


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("check", "policy.git"),
        ("explain", "inbound/denied"),
        ("config", "check", "ca.toml"),
        ("ca", "status", "--state", "state"),
        ("garrison-proxy", "--help"),
        ("garrison-proxy", "settings", "--config", "sidecar.toml"),
        ("garrison-proxy", "canonicalize"),
    ],
)
def test_reader_that_has_gone_away_is_no_traceback(place: Place, words: tuple[str, ...]) -> None:
    process = place.start(*words)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    request = '{"method": "GET", "target": "http://a.b/", "headers": []}\n'
    _, said = process.communicate(request, timeout=SECONDS)
    assert not any(blunder in said for blunder in BLUNDERS), said
    assert len(said.splitlines()) <= 1, said
