"""Whatever a user gets wrong: one message that says what, where and what to do, and exit 2."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from garrison.deploy import cli
from garrison.deploy.demo.network import random_block
from garrison.deploy.demo.stage import EXAMPLE
from tests.identity.tokens import TokenIssuer

CA = """\
trust_domain = "bookstore.example"
state = "state"
passphrase_file = "passphrase"
repository = "book"
listen = "{host}:15012"
bundle_listen = "{host}:15013"
admin_listen = "{host}:15014"
[[attestors]]
name = "local"
kind = "oidc"
issuer = "https://issuer.example"
audience = "garrison"
jwks_file = "jwks.json"
"""
POLICY = """\
listen = "{host}:15010"
admin_listen = "{host}:15011"
[ca]
address = "{host}:15012"
bundle_address = "{host}:15013"
roots = "state/roots.pem"
token = "token"
"""
REQUEST = " --method GET --path /books/7"


def bookstore(repository: Path, file: str = "mesh.yaml", text: str = "") -> None:
    """Make a repository of the example, with a text at the end of one file."""
    shutil.copytree(EXAMPLE, repository)
    with (repository / file).open("a") as changed:
        changed.write(text)
    author = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for words in (("init", "-qb", "main"), ("add", "-A"), (*author, "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=repository, check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory of things right and wrong, and an address of which all ports are taken."""
    place = tmp_path_factory.mktemp("mistakes")
    host = str(random_block()[7])
    texts = {
        "ca.toml": CA.format(host=host),
        "wrong.toml": CA.format(host=host).replace('"passphrase"', '"wrong"'),
        "broken.toml": "a = [\n",
        "unknown.toml": "nosuch = 1\n",
        "policy.toml": POLICY.format(host=host),
        "no-token.toml": POLICY.format(host=host).replace('"token"', '"absent"'),
        "passphrase": "the passphrase of this test\n",
        "wrong": "another passphrase\n",
        "token": "no.real.token\n",
    }
    for name, text in texts.items():
        (place / name).touch(mode=0o600)
        (place / name).write_text(text)
    (place / "jwks.json").write_bytes(TokenIssuer().jwks())
    (place / "nothing").mkdir()
    subprocess.run(["git", "init", "-qb", "main", place / "empty"], check=True)
    bookstore(place / "book")
    bookstore(place / "yaml", "services/web.yaml", "kind: [\n")
    bookstore(place / "csv", "authz/catalog.csv", "p, allow\n")
    bookstore(place / "model", "authz/model.conf", "m = (\n")
    assert cli.run(["ca", "init", "--config", str(place / "ca.toml")]) == 0
    with contextlib.ExitStack() as taken:
        for port in range(15010, 15015):
            taken.enter_context(socket.create_server((host, port)))
        yield place


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ca serve", "--config"),
        ("ca serve --config absent.toml", "absent.toml"),
        ("ca serve --config broken.toml", "broken.toml: not TOML"),
        ("ca serve --config unknown.toml", "nosuch: no such setting"),
        ("ca serve --config wrong.toml", "wrong passphrase"),
        ("ca serve --config ca.toml", "cannot be listened on"),
        ("ca init --config ca.toml", "never overwritten"),
        ("ca status --url http://127.0.0.1:1", "no CA answers"),
        ("policy serve --repo book --config unknown.toml", "nosuch: no such setting"),
        ("policy serve --repo absent --config policy.toml", "no such directory"),
        ("policy serve --repo nothing --config policy.toml", "not a git repository"),
        ("policy serve --repo empty --config policy.toml", "the repository is empty"),
        ("policy serve --repo book --branch x --config policy.toml", "no branch 'x'"),
        ("policy serve --repo book --config no-token.toml", "token cannot be read"),
        ("policy serve --repo book --config policy.toml", "cannot be listened on"),
        ("check absent", "no such directory"),
        ("check nothing", "not a git repository"),
        ("check empty", "the repository is empty"),
        ("check --no-such-option", "--no-such-option"),
        ("explain book --from a/b --to bookstore/nothing" + REQUEST, "bookstore/catalog"),
        ("explain book --from spiffe://B --to bookstore/catalog" + REQUEST, "spiffe://B"),
        ("explain yaml --from a/b --to bookstore/catalog" + REQUEST, "services/web.yaml:"),
        ("explain no/code", "no code of the mesh"),
        ("status --policy http://127.0.0.1:1", "127.0.0.1:1"),
        ("proxy --config absent.toml", "absent.toml"),
        ("demo --network 10.0.0.0/24", "wanted is 127.X.Y.0/24"),
        ("nonsense", "nonsense"),
    ],
)
def test_mistake_is_told_once_and_exits_with_2(
    place: Path,
    arguments: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*.pem"))
    assert cli.run(arguments.split()) == cli.MISTAKE
    said = capfd.readouterr()
    assert told in said.err
    assert "Traceback" not in said.err + said.out
    assert "an error of its own" not in said.err
    assert sorted(place.rglob("*.pem")) == before


@pytest.mark.parametrize(
    ("repository", "told"),
    [
        ("yaml", "services/web.yaml:"),
        ("csv", "authz/catalog.csv:"),
        ("model", "authz/model.conf:"),
    ],
)
def test_check_tells_file_and_line(
    place: Path, repository: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["check", str(place / repository)]) == cli.MISTAKE
    assert told in capsys.readouterr().out


def test_check_finds_nothing_wrong_with_the_example(place: Path) -> None:
    assert cli.run(["check", str(place / "book")]) == 0
