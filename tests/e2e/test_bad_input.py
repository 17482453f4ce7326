"""Mistakes at the command line: each meets one message, exit status 2, and nothing half-done.

The commands are run as people run them, one process for each mistake, in a folder where all else is
right.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from dulwich.repo import Repo
from spiffe import TrustDomain

from garrison.ca.keys import KeyType, read_passphrase, write_file
from garrison.ca.state import StateDirectory
from garrison.deploy.demo.network import RESERVATION_PORT, random_block
from garrison.proxy.executable import find_executable
from tests.identity.tokens import TokenIssuer
from tests.policies import git_trees
from tests.policies.bookstore import example_texts

SECONDS = 120.0  # the machine may be busy; what hangs is found anyway
GARRISON = Path(sys.executable).with_name("garrison")
GARRISON_PROXY = "garrison-proxy"
NOBODY = "127.0.0.1:9"

CA = """\
trust_domain = "bookstore.example"
state = "state"
passphrase_file = "passphrase"
listen = "HOST:0"
bundle_listen = "HOST:0"
admin_listen = "HOST:0"
repository = "policy.git"

[[attestors]]
name = "local"
kind = "oidc"
issuer = "https://issuer.example"
audience = "garrison-ca"
jwks_file = "jwks.json"
"""
POLICY = f"""\
repository = "policy.git"
listen = "HOST:0"
admin_listen = "HOST:0"

[ca]
address = "{NOBODY}"
bundle_address = "{NOBODY}"
roots = "state/roots.pem"
token = "token"
"""
SIDECAR = f"""\
trust_domain = "bookstore.example"
workers = 1

[node]
id = "reviews-1"

[ca]
address = "{NOBODY}"
bundle_address = "{NOBODY}"
roots = "state/roots.pem"
token = "token"

[policy]
address = "{NOBODY}"

[inbound]
listen = "HOST:15006"
application = "HOST:8080"

[outbound]
listen = "HOST:15001"

[admin]
listen = "HOST:15000"
"""
REQUEST = {
    "--from": "bookstore/web",
    "--to": "bookstore/catalog",
    "--method": "GET",
    "--path": "/",
}


@dataclass(frozen=True)
class Place:
    """A folder with all that the commands need, and an address of its own."""

    folder: Path
    host: str

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def commit(self, path: str, more: str) -> None:
        """Add text to the end of a policy file, in a commit."""
        texts = example_texts()
        texts[path] += more
        with Repo(str(self.folder / "policy.git")) as repo:
            git_trees.commit(repo, git_trees.nested(texts))

    def names(self) -> set[str]:
        return {str(file.relative_to(self.folder)) for file in self.folder.rglob("*")}

    def start(self, *words: str, **settings: str | None) -> subprocess.Popen[str]:
        """Start a command in the folder; a setting of None is taken out of the environment."""
        program, *rest = words
        path = find_executable() if program == GARRISON_PROXY else GARRISON
        arguments = rest if program == GARRISON_PROXY else words
        environment = {**os.environ, **settings}
        return subprocess.Popen(
            [path, *(word.replace("HOST", self.host) for word in arguments)],
            cwd=self.folder,
            env={name: text for name, text in environment.items() if text is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="session")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it should be."""
    folder = tmp_path_factory.mktemp("well")
    for name, text in {"ca.toml": CA, "policy.toml": POLICY, "sidecar.toml": SIDECAR}.items():
        (folder / name).write_text(text)
    for name in ("passphrase", "other-passphrase"):
        write_file(folder / name, f"{name} that is long enough\n".encode())
    write_file(folder / "token", b"token")
    (folder / "jwks.json").write_bytes(TokenIssuer().jwks())
    secret = read_passphrase(folder / "passphrase")
    StateDirectory(folder / "state").create(TrustDomain("bookstore.example"), KeyType.P256, secret)
    with git_trees.bare(folder / "policy.git") as repo:
        git_trees.commit(repo, git_trees.nested(example_texts()))
    git_trees.bare(folder / "empty.git").close()
    return folder


@pytest.fixture
def place(well: Path, tmp_path: Path) -> Place:
    made = Place(tmp_path / "place", str(random_block()[7]))
    shutil.copytree(well, made.folder)
    for name in ("ca.toml", "policy.toml", "sidecar.toml"):
        file = made.folder / name
        file.write_text(file.read_text().replace("HOST", made.host))
    return made


def refusal(place: Place, *words: str, given: str = "", **settings: str | None) -> str:
    """Run a command, which is to refuse; return all that it said."""
    before = place.names()
    process = place.start(*words, **settings)
    try:
        out, said = process.communicate(given, timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 2, (process.returncode, said)
    for blunder in ("Traceback", "error of its own", "panicked"):
        assert blunder not in said
    messages = [line for line in said.splitlines() if line.startswith(("garrison: ", "Error: "))]
    assert len(messages) <= 1, said
    assert place.names() == before, "something was left behind"
    return out + said


def assert_told(said: str, place: Place, *words: str) -> None:
    for word in words:
        assert word.replace("HOST", place.host) in said, said


@pytest.mark.parametrize(
    "command",
    [
        "",
        "ca",
        "ca init",
        "ca serve",
        "ca status",
        "policy serve",
        "check",
        "explain",
        "status",
        "proxy",
        "demo",
        "garrison-proxy",
        "garrison-proxy run",
        "garrison-proxy validate",
        "garrison-proxy decide",
        "garrison-proxy canonicalize",
    ],
)
def test_unknown_option_is_named(place: Place, command: str) -> None:
    said = refusal(place, *command.split(), "--bogus")
    assert_told(said, place, "--bogus", "--help")


@pytest.mark.parametrize("command", ["", "ca", "policy", "garrison-proxy"])
def test_unknown_command_is_named(place: Place, command: str) -> None:
    assert_told(refusal(place, *command.split(), "bogus"), place, "bogus", "--help")


@pytest.mark.parametrize("command", ["ca init", "ca serve", "policy serve", "proxy"])
def test_settings_file_that_is_not_there_is_named(place: Place, command: str) -> None:
    said = refusal(place, *command.split(), "--config", "absent.toml")
    assert_told(said, place, "--config", "absent.toml", "does not exist")


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("ca init", "ca.toml"),
        ("ca serve", "ca.toml"),
        ("ca status", "ca.toml"),
        ("policy serve", "policy.toml"),
        ("proxy", "sidecar.toml"),
        ("garrison-proxy run", "sidecar.toml"),
    ],
)
def test_broken_toml_is_named_with_its_line(place: Place, command: str, config: str) -> None:
    text = (place.folder / config).read_text()
    (place.folder / config).write_text("# a comment\nbroken = [ =\n" + text)
    said = refusal(place, *command.split(), "--config", config)
    assert_told(said, place, config)
    assert "line 2" in said or f"{config}:2" in said


INIT = ("ca", "init", "--config", "ca.toml", "--state", "new/state")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("ca", "init"), ("trust_domain", "--trust-domain")),
        ((*INIT, "--passphrase-file", "absent"), ("absent", "cannot be read", "wanted")),
        ((*INIT, "--passphrase-file", "ca.toml"), ("ca.toml", "chmod 600")),
        ((*INIT, "--trust-domain", "Book Store"), ("'Book Store'", "wanted")),
        ((*INIT, "--key-type", "rsa"), ("--key-type", "p256")),
        ((*INIT[:4], "--state", "state"), ("state", "not empty", "another")),
        ((*INIT[:4], "--state", "token/state"), ("token/state", "Not a directory")),
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
        ('"passphrase"', '"other-passphrase"', ("wrong passphrase", "`ca init`")),
        ('"bookstore.example"', '"other.example"', ("other.example", "bookstore.example")),
        ('"policy.git"', '"absent.git"', ("absent.git", "no such directory", "give")),
        ('"policy.git"', '"state"', ("state", "not a git repository", "give")),
        ('"policy.git"', '"empty.git"', ("empty.git", "empty", "commit policy files")),
        ('"jwks.json"', '"absent.json"', ("jwks_file", "absent.json", "name a file")),
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
        ('"policy.git"', '"state"', ("state", "not a git repository", "give")),
        ('"policy.git"', '"empty.git"', ("empty.git", "empty", "commit policy files")),
        ('"token"', '"absent"', ("absent", "the token cannot be read")),
        ('"state/roots.pem"', '"token"', ("token", "PEM certificates")),
    ],
)
def test_policy_serve(place: Place, old: str, new: str, told: tuple[str, ...]) -> None:
    place.edit("policy.toml", old, new)
    assert_told(refusal(place, "policy", "serve", "--config", "policy.toml"), place, *told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), ("REPO", "--help")),
        (("absent",), ("absent", "no such directory", "give")),
        (("token",), ("token", "not a git repository", "give")),
        (("empty.git",), ("empty.git", "empty", "commit policy files")),
        (("policy.git", "--branch", "absent"), ("absent", "there are: main")),
        (("policy.git", "--commit", "deadbeef"), ("deadbeef", "git log")),
        (("git://127.0.0.1/x",), ("git://", "refused", "give a path")),
        ((f"https://{NOBODY}/x.git",), (NOBODY, "cannot be fetched")),
    ],
)
def test_check(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    (place.folder / "garrison" / "repositories").mkdir(parents=True)  # what is left there is seen
    said = refusal(place, "check", *words, XDG_CACHE_HOME=str(place.folder))
    assert_told(said, place, *told)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("registration/bookstore.yaml", "a: [\n"),
        ("authz/model.conf", "nonsense\n"),
        ("authz/catalog.csv", 'p, "unclosed\n'),
    ],
)
def test_broken_policy_is_told_with_its_line(place: Place, path: str, more: str) -> None:
    place.commit(path, more)
    told = refusal(place, "check", "policy.git")
    assert f"{path}:" in told
    assert "(fix: " in told
    asked = [word for option in REQUEST.items() for word in option]
    assert f"{path}:" in refusal(place, "explain", "policy.git", *asked)


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"--from": "Nonsense"}, ("Nonsense",)),
        ({"--to": "bookstore/absent"}, ("bookstore/absent",)),
        ({"--header": "foo"}, ("--header", "foo", "NAME=VALUE is wanted")),
    ],
)
def test_explain(place: Place, over: Mapping[str, str], told: tuple[str, ...]) -> None:
    words = [word for option in {**REQUEST, **over}.items() for word in option]
    assert_told(refusal(place, "explain", "policy.git", *words), place, *told)


def test_explain_without_a_whole_question(place: Place) -> None:
    assert_told(refusal(place, "explain", "inbound/bogus"), place, "inbound/bogus", "such as")
    for words in (("policy.git",), ("policy.git", "--from", "bookstore/web")):
        assert_told(refusal(place, "explain", *words), place, "--to, --method, --path")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", f"http://{NOBODY}"), (NOBODY, "no status", "admin URL")),
        (("--policy", "nonsense"), ("nonsense", "no status", "admin URL")),
        (("--wait", "newest"), ("newest", "hexadecimal digits are wanted")),
        (("--wait", "deadbeef", "--timeout", "long"), ("--timeout", "long")),
    ],
)
def test_status(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert_told(refusal(place, "status", *words), place, *told)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("workers", "wrokers", ("sidecar.toml:2", "`wrokers`", "`workers`")),
        ('"token"', '"absent"', ("absent", "cannot read", "No such file")),
        ('"state/roots.pem"', '"token"', ("token", "must have the CA's root certificates")),
        ('"state/roots.pem"', '"absent"', ("absent", "cannot read", "No such file")),
        ("[node]", "[nod]", ("sidecar.toml:4", "`nod`", "`node`")),
    ],
)
def test_proxy(place: Place, old: str, new: str, told: tuple[str, ...]) -> None:
    place.edit("sidecar.toml", old, new)
    assert_told(refusal(place, "proxy", "--config", "sidecar.toml"), place, *told)


@pytest.mark.parametrize("content", ["#!/absent\n", "no program"])
def test_executable_that_cannot_be_run_is_named(place: Place, content: str) -> None:
    program = place.folder / "sidecar"
    program.write_text(content)
    program.chmod(0o755)
    words = ("proxy", "--config", "sidecar.toml")
    said = refusal(place, *words, GARRISON_PROXY=str(program))
    assert_told(said, place, str(program), "cannot be run", "make build")


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
        _, rest = process.communicate(timeout=15)
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


def test_neither_home_nor_terminal_is_needed(place: Place) -> None:
    process = place.start("check", "policy.git", HOME=None, TERM=None, XDG_CACHE_HOME=None)
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert "fit to be served" in out
