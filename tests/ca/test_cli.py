"""`garrison ca`, as people run it: each mistake is one message and exit status 2."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from garrison.ca.keys import write_file
from garrison.deploy.cli import run
from tests.ca.test_audit import tamper
from tests.identity.tokens import TokenIssuer
from tests.policies import git_trees

SETTINGS = """\
trust_domain = "example.org"
state = "state"
passphrase_file = "passphrase"
listen = "127.0.0.1:0"
bundle_listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:{admin}"
repository = "repository"

[[attestors]]
name = "local"
kind = "oidc"
issuer = "https://issuer.example"
audience = "garrison-ca"
jwks_file = "jwks.json"
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    def is_one_message(self, *words: str) -> bool:
        return (
            self.status == 2
            and self.stderr.count("garrison: ") + self.stderr.count("Error: ") == 1
            and "Traceback" not in self.stderr
            and "error of its own" not in self.stderr
            and all(word in self.stderr for word in words)
        )


Garrison = Callable[..., Done]


@pytest.fixture
def garrison(capsys: pytest.CaptureFixture[str]) -> Iterator[Garrison]:
    """Run `garrison ca ARGUMENTS` in this process."""

    def call(*arguments: str) -> Done:
        status = run(["ca", *arguments])
        return Done(status, *capsys.readouterr())

    yield call
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        admin = probe.getsockname()[1]
    write_file(tmp_path / "passphrase", b"correct horse battery staple\n")
    (tmp_path / "jwks.json").write_bytes(TokenIssuer().jwks())
    with git_trees.bare(tmp_path / "repository") as repo:
        git_trees.commit(repo, {"mesh.yaml": "no mesh"})
    (tmp_path / "ca.toml").write_text(SETTINGS.format(admin=admin))
    return tmp_path / "ca.toml"


def test_init_then_status_of_the_directory(garrison: Garrison, config: Path) -> None:
    made = garrison("init", "--config", str(config))
    assert (made.status, made.stderr) == (0, "")
    assert "roots.pem" in made.stdout
    for options in (["--config", str(config)], ["--state", str(config.parent / "state")]):
        told = garrison("status", "--json", *options)
        status = json.loads(told.stdout)
        assert (told.status, status["ready"], status["offline"]) == (0, True, True)
        assert status["audit"]["verified"] is True
    assert "root expires" in garrison("status", "--config", str(config)).stdout


def test_init_by_options(garrison: Garrison, tmp_path: Path) -> None:
    write_file(tmp_path / "passphrase", b"x" * 20)
    options = ["--state", str(tmp_path / "s"), "--passphrase-file", str(tmp_path / "passphrase")]
    made = garrison("init", "--trust-domain", "example.org", "--key-type", "p384", *options)
    assert made.status == 0, made.stderr
    text = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "s" / "issuing.pem", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    assert "P-384" in text
    assert "ecdsa-with-SHA384" in text
    assert "pathlen:0" in text
    assert "URI:spiffe://example.org" in text


def test_mistakes_at_init(garrison: Garrison, config: Path, tmp_path: Path) -> None:
    assert garrison("init").is_one_message("--trust-domain", "--config")
    upper = garrison("init", "--config", str(config), "--trust-domain", "Example.org")
    assert upper.is_one_message("trust_domain", "Example.org")
    (tmp_path / "passphrase").chmod(0o644)
    assert garrison("init", "--config", str(config)).is_one_message("chmod 600")
    assert not (tmp_path / "state").exists()
    (tmp_path / "passphrase").chmod(0o600)
    assert garrison("init", "--config", str(config)).status == 0
    assert garrison("init", "--config", str(config)).is_one_message("never overwritten")


def test_mistakes_at_serve(garrison: Garrison, config: Path, tmp_path: Path) -> None:
    assert garrison("serve").is_one_message("--config")
    assert garrison("serve", "--config", str(config)).is_one_message("garrison ca init")
    garrison("init", "--config", str(config))
    write_file(tmp_path / "passphrase", b"another passphrase!")
    assert garrison("serve", "--config", str(config)).is_one_message("wrong passphrase")
    config.write_text(config.read_text() + 'algorithms = ["none"]')
    assert garrison("serve", "--config", str(config)).is_one_message("ca.toml", "none")


def test_serve_until_sigterm_and_status_of_it(garrison: Garrison, config: Path) -> None:
    garrison("init", "--config", str(config))
    command = [sys.executable, "-m", "garrison.deploy", "ca", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for_problem(config)
            told = garrison("status", "--json", "--config", str(config))
            status = json.loads(told.stdout)
            assert status["trust_domain"] == "example.org"
            assert told.status == 1
            assert status["lacking"] == ["no registration entries have been read yet"]
            text = garrison("status", "--config", str(config)).stdout
            assert "cannot issue" in text
            assert "was not taken" in text
            limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
            core = next(line for line in limits if line.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"]  # it would hold the issuing key
        finally:
            process.send_signal(signal.SIGTERM)
            _, logged = process.communicate(timeout=20)
        assert process.returncode == 0
    events = [json.loads(line)["event"] for line in logged.splitlines()]
    assert "ca ready" in events
    assert "entries kept as they were" in events  # the commit is bad


def wait_for_problem(config: Path) -> None:
    line = next(line for line in config.read_text().splitlines() if "admin_listen" in line)
    address = line.split('"')[1]
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://{address}/status", timeout=5) as response:
                if json.load(response)["entries"]["problem"]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the CA did not come up")


def test_mistakes_at_status(garrison: Garrison, config: Path, tmp_path: Path) -> None:
    assert garrison("status", "--url", "http://127.0.0.1:9").is_one_message("no CA answers")
    both = garrison("status", "--url", "http://127.0.0.1:9", "--config", str(config))
    assert both.is_one_message("only one of")
    assert garrison("status", "--state", str(tmp_path)).is_one_message("issuing.pem")
    garrison("init", "--config", str(config))
    os.truncate(tmp_path / "state" / "ca.db", 0)
    assert garrison("status", "--config", str(config)).is_one_message("store")


def test_a_tampered_audit_log_is_told(garrison: Garrison, config: Path, tmp_path: Path) -> None:
    garrison("init", "--config", str(config))
    tamper(
        tmp_path / "state" / "ca.db",
        "INSERT INTO audit VALUES (1, 't', 'issuance signed', '{}', 'x', 'y')",
    )
    done = garrison("status", "--config", str(config))
    assert done.is_one_message("audit log is broken after row 0")
