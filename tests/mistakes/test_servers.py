"""Mistakes that keep the CA, the policy server or a sidecar from starting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from garrison.deploy.demo.network import RESERVATION_PORT, random_block
from tests.mistakes.place import GARRISON_PROXY, NOBODY, Place, assert_told, refusal

INIT = ("ca", "init", "--config", "ca.toml", "--state", "new/state")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ca", "init"), ("trust_domain", "--trust-domain")),
        ((*INIT, "--passphrase-file", "absent"), ("absent", "cannot be read", "wanted")),
        ((*INIT, "--passphrase-file", "folder"), ("folder", "not a regular file")),
        ((*INIT, "--passphrase-file", "ca.toml"), ("ca.toml", "chmod 600")),
        ((*INIT, "--trust-domain", "Book Store"), ("'Book Store'", "wanted")),
        ((*INIT, "--key-type", "rsa"), ("--key-type", "p256")),
        ((*INIT[:4], "--state", "state"), ("state", "not empty", "another")),
        ((*INIT[:4], "--state", "token/state"), ("token/state", "Not a directory")),
        (INIT[:4], ("state", "never overwritten")),
    ],
)
def test_ca_init(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert_told(refusal(place, *words), place, *told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('state = "state"', 'state = "absent"', ("absent", "`garrison ca init`")),
        ('state = "state"', 'stat = "state"', ("ca.toml: state", "ca.toml: stat: no such")),
        ('"passphrase"', '"absent"', ("absent", "cannot be read", "wanted")),
        ('"passphrase"', '"folder"', ("folder", "not a regular file")),
        ('"passphrase"', '"other-passphrase"', ("wrong passphrase", "`ca init`")),
        ('"bookstore.example"', '"other.example"', ("other.example", "bookstore.example")),
        ('"policy.git"', '"absent.git"', ("absent.git", "no such directory", "give")),
        ('"policy.git"', '"state"', ("state", "not a git repository", "give")),
        ('"policy.git"', '"empty.git"', ("empty.git", "empty", "commit policy files")),
        ('"jwks.json"', '"absent.json"', ("jwks_file", "absent.json", "name a file")),
        ('"jwks.json"', '"folder"', ("jwks_file", "folder", "name a file")),
        ('"jwks.json"', '"ca.toml"', ("jwks_file", "ca.toml", "JWK Set")),
        ('\nlisten = "HOST:0"', '\nlisten = "HOST"', ("ca.toml: listen", "IP:PORT")),
    ],
)
def test_ca_serve(place: Place, old: str, new: str, told: tuple[str, ...]) -> None:
    place.edit("ca.toml", *(text.replace("HOST", place.host) for text in (old, new)))
    assert_told(refusal(place, "ca", "serve", "--config", "ca.toml"), place, *told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--url", f"http://{NOBODY}"), (NOBODY, "no CA answers", "start it", "--url")),
        (("--url", "nonsense"), ("nonsense", "http://IP:PORT")),
        (("--state", "absent"), ("--state", "absent", "does not exist")),
        (("--state", "policy.git"), ("issuing.pem", "`garrison ca init`")),
    ],
)
def test_ca_status(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert_told(refusal(place, "ca", "status", *words), place, *told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"policy.git"', '"absent"', ("absent", "no such directory", "give")),
        ('"policy.git"', '"state"', ("state", "not a git repository", "give")),
        ('"policy.git"', '"empty.git"', ("empty.git", "empty", "commit policy files")),
        ('"policy.git"', '"policy.git"\nbranch = "x"', ("no branch 'x'", "there are: main")),
        ('"token"', '"absent"', ("absent", "the token cannot be read")),
        ('"token"', '"folder"', ("folder", "the token cannot be read")),
        ('"state/roots.pem"', '"token"', ("token", "PEM certificates")),
        ('"state/roots.pem"', '"folder"', ("folder", "cannot be read")),
    ],
)
def test_policy_serve(place: Place, old: str, new: str, told: tuple[str, ...]) -> None:
    place.edit("policy.toml", old, new)
    assert_told(refusal(place, "policy", "serve", "--config", "policy.toml"), place, *told)


@pytest.mark.parametrize("command", ["proxy", "garrison-proxy run"])
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("workers", "wrokers", ("sidecar.toml:2", "`wrokers`", "`workers`")),
        ('"token"', '"absent"', ("absent", "cannot read", "No such file")),
        ('"token"', '"folder"', ("folder", "cannot read", "directory")),
        ('"state/roots.pem"', '"token"', ("token", "must have the CA's root certificates")),
        ('"state/roots.pem"', '"absent"', ("absent", "cannot read", "No such file")),
        ("[node]", "[nod]", ("sidecar.toml:4", "`nod`", "`node`")),
    ],
)
def test_proxy(place: Place, command: str, old: str, new: str, told: tuple[str, ...]) -> None:
    place.edit("sidecar.toml", old, new)
    assert_told(refusal(place, *command.split(), "--config", "sidecar.toml"), place, *told)


@pytest.mark.parametrize("content", ["#!/absent\n", "no program"])
def test_executable_that_cannot_be_run_is_named(place: Place, content: str) -> None:
    program = place.folder / "sidecar"
    program.write_text(content)
    program.chmod(0o755)
    words = ("proxy", "--config", "sidecar.toml")
    said = refusal(place, *words, GARRISON_PROXY=str(program))
    assert_told(said, place, str(program), "cannot be run", "make build")


@pytest.mark.parametrize(
    "command",
    ["proxy --config sidecar.toml", "config check sidecar.toml", "check policy.git", "demo --once"],
)
def test_executable_that_is_not_there_is_named(place: Place, command: str) -> None:
    absent = str(place.folder / "absent")
    said = refusal(place, *command.split(), GARRISON_PROXY=absent)
    assert_told(said, place, absent, "cannot be run", "build it")


@pytest.mark.parametrize(
    ("check", "given", "told"),
    [
        ("validate", "nonsense", ("DiscoveryResponse",)),
        ("decide", "nonsense\n", ("line 1", "expected rules or a request")),
        ("canonicalize", "{}\n", ("line 1", "expected", "`method`")),
    ],
)
def test_offline_checks(place: Place, check: str, given: str, told: tuple[str, ...]) -> None:
    assert_told(refusal(place, GARRISON_PROXY, check, given=given), place, *told)


@contextlib.contextmanager
def taken(host: str, port: int = 0) -> Iterator[str]:
    """Hold a port while the block runs."""
    with socket.create_server((host, port)) as server:
        yield f"{host}:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("command", "config", "line"),
    [
        ("ca serve", "ca.toml", '\nlisten = "HOST:0"'),
        ("ca serve", "ca.toml", '\nbundle_listen = "HOST:0"'),
        ("ca serve", "ca.toml", '\nadmin_listen = "HOST:0"'),
        ("policy serve", "policy.toml", '\nlisten = "HOST:0"'),
        ("policy serve", "policy.toml", '\nadmin_listen = "HOST:0"'),
        ("proxy", "sidecar.toml", '\nlisten = "HOST:15006"'),
        ("proxy", "sidecar.toml", '\nlisten = "HOST:15001"'),
        ("proxy", "sidecar.toml", '\nlisten = "HOST:15000"'),
    ],
)
def test_port_in_use_is_named(place: Place, command: str, config: str, line: str) -> None:
    with taken(place.host) as address:
        name = line.split('"', maxsplit=1)[0]
        place.edit(config, line.replace("HOST", place.host), f'{name}"{address}"')
        said = refusal(place, *command.split(), "--config", config)
    assert_told(said, place, address, "choose a")


@pytest.mark.parametrize(
    ("network", "told"),
    [("bogus", "127.X.Y.0/24"), ("10.0.0.0/24", "not loopback"), ("127.1.0.0/16", "/24")],
)
def test_demo_on_a_wrong_network(place: Place, network: str, told: str) -> None:
    said = refusal(place, "demo", "--once", "--network", network)
    assert_told(said, place, network, told, "--network")


def test_demo_on_a_network_in_use(place: Place) -> None:
    block = random_block()
    with taken(str(block[1]), RESERVATION_PORT):
        said = refusal(place, "demo", "--once", "--network", str(block))
    assert_told(said, place, str(block), "in use", "choose another")
