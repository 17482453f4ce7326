"""`garrison policy serve` as a process, and what it says of mistakes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dulwich.repo import Repo

from garrison.deploy.cli import run
from garrison.policies.sidecar import Sidecar
from tests.fakes.certificates import Root
from tests.policies.bookstore import example_texts
from tests.policies.policy_mesh import PolicyRepository, free_host

SECONDS = 60.0
Process = subprocess.Popen[str]
NO_CA = "127.0.0.1:1"


@dataclass(frozen=True)
class Files:
    """All that the command needs, fit to be spoilt."""

    directory: Path
    host: str

    @property
    def config(self) -> Path:
        return self.directory / "policy-server.toml"

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    def configure(self, **over: str) -> None:
        values = {
            "listen": f"{self.host}:15010",
            "admin_listen": f"{self.host}:15011",
            "repository": "repository",
        } | over
        access = {"address": NO_CA, "bundle_address": NO_CA, "roots": "roots.pem", "token": "token"}
        lines = [f'{name} = "{value}"' for name, value in values.items()]
        lines += ["[ca]", *(f'{name} = "{value}"' for name, value in access.items())]
        self.config.write_text("\n".join(lines))


@pytest.fixture
def files(tmp_path: Path, sidecar: Sidecar) -> Files:
    assert sidecar.executable.exists()
    made = Files(tmp_path, free_host())
    PolicyRepository.create(made.repository)
    (tmp_path / "roots.pem").write_bytes(Root("bookstore.example").pem)
    (tmp_path / "token").write_text("token")
    made.configure()
    return made


def command(*arguments: str | Path) -> list[str]:
    run = "import sys; from garrison.deploy.cli import main; main()"
    return [sys.executable, "-c", run, "policy", "serve", *map(str, arguments)]


@dataclass(frozen=True)
class Shell:
    """Runs the command in this process, which is quicker where it is to refuse."""

    files: Files
    captured: pytest.CaptureFixture[str]

    def refused(self, *arguments: str | Path) -> str:
        """Run the command, which is to refuse; return its one message."""
        words = ["policy", "serve", "--config", str(self.files.config), *map(str, arguments)]
        assert run(words) == 2
        told = self.captured.readouterr()
        assert told.out == ""
        assert "Traceback" not in told.err
        return told.err


@pytest.fixture
def shell(files: Files, capfd: pytest.CaptureFixture[str]) -> Shell:
    return Shell(files, capfd)


@contextlib.contextmanager
def serving(files: Files, *arguments: str | Path) -> Iterator[Process]:
    process = subprocess.Popen(
        command("--config", files.config, *arguments), stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def status(files: Files, process: Process, condition: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - JSON
    """Wait until the status is as wanted, and return it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError):
            url = f"http://{files.host}:15011/status"
            with urllib.request.urlopen(url, timeout=5) as response:
                told = json.load(response)
            if condition(told):
                return told
        time.sleep(0.05)
    raise AssertionError("the status never was as wanted")


def test_it_judges_the_repository_while_it_waits_for_the_ca_and_ends_on_sigterm(
    files: Files,
) -> None:
    with serving(files, "--branch", "main") as process:
        head = PolicyRepository(files.repository).head()
        told = status(files, process, lambda told: told["commit"] == head)
        assert (told["ready"], told["svid"]) == (False, None)
        assert told["checked"]["lines"] == told["checked"]["of"] > 0
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert "no svid was issued" in errors
        assert NO_CA in errors


def test_sighup_has_it_look_at_once(files: Files) -> None:
    files.config.write_text("poll_seconds = 3600\n" + files.config.read_text())
    with serving(files) as process:
        status(files, process, lambda told: told["commit"] is not None)
        commit = PolicyRepository(files.repository).commit({"README.md": "read me\n"})
        process.send_signal(signal.SIGHUP)
        status(files, process, lambda told: told["commit"] == commit)


def test_an_empty_repository_is_told(shell: Shell, tmp_path: Path) -> None:
    Repo.init(str(tmp_path / "empty"), mkdir=True).close()
    assert "empty" in shell.refused("--repo", tmp_path / "empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--repo", "nowhere"), ["nowhere", "no such directory"]),
        (("--repo", "tests"), ["tests", "not a git repository"]),
        (("--repo", "http://example.org/x"), ["http:// is refused"]),
        (("--branch", "nothere"), ["no branch 'nothere'", "main"]),
        (("--listen", "localhost:1"), ["listen", "IP:PORT"]),
        (("--admin-listen", "0.0.0.0:1"), ["admin_listen", "loopback"]),
        (("--config", "nothere.toml"), ["nothere.toml"]),
        (("--nonsense",), ["--nonsense"]),
    ],
)
def test_a_mistake_on_the_command_line_is_told(
    shell: Shell, arguments: tuple[str, ...], words: list[str]
) -> None:
    told = shell.refused(*arguments)
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: f.configure(nonsense="x"), ["nonsense", "no such setting"]),
        (lambda f: f.configure(poll_seconds="soon"), ["poll_seconds"]),
        (lambda f: f.config.write_text("listen ="), ["policy-server.toml", "not TOML"]),
        (lambda f: f.config.write_text(""), ["ca", "field required"]),
        (lambda f: (f.directory / "token").unlink(), ["token", "cannot be read"]),
        (lambda f: (f.directory / "token").write_text(""), ["token", "not a bearer token"]),
        (lambda f: (f.directory / "roots.pem").unlink(), ["roots.pem", "cannot be read"]),
        (lambda f: (f.directory / "roots.pem").write_text("x"), ["roots.pem", "not PEM"]),
    ],
)
def test_a_mistake_in_a_file_is_told(
    shell: Shell, spoil: Callable[[Files], object], words: list[str]
) -> None:
    spoil(shell.files)
    told = shell.refused()
    assert all(word in told for word in words), told


@pytest.mark.parametrize("port", [15010, 15011])
def test_a_port_in_use_is_told(shell: Shell, port: int) -> None:
    with socket.create_server((shell.files.host, port)):
        told = shell.refused()
    assert f"{shell.files.host}:{port}: cannot be listened on" in told


def test_the_environment_goes_over_the_file(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(os.environ, "GARRISON_POLICY_CA__TOKEN", str(tmp_path / "other"))
    assert "other" in shell.refused()


def test_a_bad_newest_commit_is_shown_and_nothing_is_served(files: Files) -> None:
    bad = example_texts()["services/web.yaml"].replace("port: 80", "port: x")
    commit = PolicyRepository(files.repository).commit({"services/web.yaml": bad})
    with serving(files) as process:
        told = status(files, process, lambda told: told["refused"] is not None)
        assert (told["commit"], told["refused"]["commit"]) == (None, commit)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
    lines = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    finding = next(line for line in lines if line["event"] == "finding")
    assert (finding["file"], finding["field"], finding["commit"]) == (
        "services/web.yaml",
        "spec.port",
        commit,
    )
    assert finding["remedy"]
