"""`garrison config check`: every setting, its value and who says so, as the process reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from garrison.deploy import cli
from garrison.deploy.config_check import TABLES

SEAMS = Path(__file__).parent.parent.parent / "docs" / "seams.md"
CA = """\
trust_domain = "bookstore.example"
state = "state"
passphrase_file = "passphrase"
repository = "https://me:hunter2@git.example/policy.git"
[svid]
default_seconds = 600
[[attestors]]
name = "local"
kind = "oidc"
issuer = "https://issuer.example"
audience = "garrison"
jwks_file = "jwks.json"
"""
POLICY = """\
listen = "127.0.0.1:1"
[ca]
roots = "roots.pem"
token = "/run/token"
"""


def sidecar() -> str:
    """Return the file that the contract between the parts shows."""
    shown = SEAMS.read_text().split("`garrison-proxy`:\n\n```toml\n")[1]
    return shown.split("```")[0]


@pytest.fixture
def write(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_text("never shown")
    for name, text in {"ca": CA, "policy": POLICY, "proxy": sidecar()}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def checked(
    file: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[str, dict[str, tuple[object, str]]]:
    """Return the kind, and value and source of each setting."""
    assert cli.run(["config", "check", str(file), "--json", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    found = {each["setting"]: (each["value"], each["source"]) for each in said["settings"]}
    assert len(found) == len(said["settings"])
    return said["kind"], found


def test_ca_file_is_told_with_defaults_and_environment(
    write: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARRISON_CA_SVID__MAX_SECONDS", "1200")
    kind, found = checked(write / "ca.toml", capsys)
    assert kind == "ca"
    assert found["state"] == (str(write / "state"), "file")
    assert found["svid.default_seconds"] == (600, "file")
    assert found["svid.max_seconds"] == (1200, "environment (GARRISON_CA_SVID__MAX_SECONDS)")
    assert found["listen"] == ("127.0.0.1:15012", "default")
    assert found["attestors.0.name"] == ("local", "file")
    assert found["attestors.0.algorithms"] == (["RS256", "ES256"], "default")


def test_policy_file_may_leave_the_repository_to_the_command_line(
    write: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, found = checked(write / "policy.toml", capsys)
    assert kind == "policy"
    assert found["repository (give it with --repo)"] == (None, "command line")
    assert found["listen"] == ("127.0.0.1:1", "file")
    assert found["ca.token"] == ("/run/token", "file")
    assert found["ca.svid_seconds"] == (21_600, "default")
    monkeypatch.setenv("GARRISON_POLICY_REPOSITORY", "/srv/policy.git")
    _, found = checked(write / "policy.toml", capsys)
    assert found["repository"] == (
        "/srv/policy.git",
        "environment (GARRISON_POLICY_REPOSITORY)",
    )


def test_sidecar_file_is_read_by_the_sidecar(
    write: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write / "proxy.toml"
    file.write_text(sidecar().replace("drain_seconds = 20\n", ""))
    kind, found = checked(file, capsys)
    assert kind == "proxy"
    assert found["workers"] == (1, "file")
    assert found["drain_seconds"] == (20, "default")
    assert found["ca.roots"] == (str(write / "roots.pem"), "file")
    assert {name.partition(".")[0] for name in found} == TABLES["proxy"]


def test_lines_for_a_person_are_the_settings_of_a_file(
    write: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["config", "check", str(write / "policy.toml")]) == 0
    said = capsys.readouterr().out
    assert "settings of the policy server" in said.splitlines()[0]
    assert re.search(r'^ca\.token = "/run/token" +# file$', said, re.MULTILINE)
    assert re.search(r"^poll_seconds = 2.0 +# default$", said, re.MULTILINE)


def test_secrets_are_not_shown(write: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "check", str(write / "ca.toml")]) == 0
    said = capsys.readouterr().out
    assert str(write / "passphrase") in said
    assert "never shown" not in said
    assert "hunter2" not in said
    assert "https://[redacted]@git.example/policy.git" in said


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("a = 1 = 2\n", (), ("not TOML", "line 1")),
        ('trust_domain = "a.example"\n', (), ("could be", "--kind")),
        (CA.replace("state =", "stat ="), (), (": state: ", ": stat: no such setting")),
        (CA.replace("600", '"long"'), (), ("svid.default_seconds",)),
        (POLICY + "wrong = 1\n", (), ("ca.wrong: no such setting",)),
        (sidecar().replace("workers", "wrokers"), (), (":2: ", "`wrokers`")),
        (sidecar(), ("--kind", "ca"), ("workers: no such setting",)),
        (sidecar(), ("--kind", "wrong"), ("--kind", "ca", "policy", "proxy")),
    ],
)
def test_file_that_cannot_be_used_is_refused(
    tmp_path: Path,
    text: str,
    options: tuple[str, ...],
    told: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "some.toml"
    file.write_text(text)
    assert cli.run(["config", "check", str(file), *options]) == cli.MISTAKE
    said = capsys.readouterr()
    assert not said.out
    assert all(word in said.err for word in told), said.err
