"""A folder in which everything is right, commands run in it, and what a refusal has to be like.

What is Python and needs no process of its own runs in ours: to import it takes longer than all of
a refusal. `test_endings` holds that a process says the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from dulwich.repo import Repo

from garrison.deploy import cli
from garrison.proxy.executable import find_executable
from tests.policies import git_trees
from tests.policies.bookstore import example_texts

SECONDS = 120.0  # the machine may be busy; what hangs is found anyway
GARRISON = Path(sys.executable).with_name("garrison")
GARRISON_PROXY = "garrison-proxy"
NOBODY = "127.0.0.1:9"
MISTAKE = 2
BLUNDERS = ("Traceback", "error of its own", "panicked", "Exception", "object at 0x")
BEGINNINGS = ("garrison: ", "garrison-proxy: ", "Error: ", "error: ")
CLAUSE = 12  # letters: what is as long as that and said twice is the same trouble
# PR_CAPBSET_DROP (linux/prctl.h) of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (linux/capability.h).
WITHOUT_PRIVILEGE = """
import ctypes, os, sys
for capability in (1, 2):
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) != 0:
        sys.exit("the capability to read everything cannot be dropped")
os.execv(sys.argv[1], sys.argv[1:])
"""

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
SETTINGS = {"ca.toml": CA, "policy.toml": POLICY, "sidecar.toml": SIDECAR}


@dataclass(frozen=True)
class Place:
    """A folder with all that the commands need, and an address of its own."""

    folder: Path
    host: str
    through: tuple[str, ...] = ()
    """What runs the commands, if not the system itself."""

    def heeding_modes(self) -> Place:
        """The same, where root too meets the modes of files as everybody does."""
        if os.geteuid() != 0:
            return self
        return replace(self, through=(sys.executable, "-I", "-S", "-c", WITHOUT_PRIVILEGE))

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

    def contents(self) -> dict[str, tuple[int, bytes]]:
        """Return mode and content of all that is there.

        Of the CA's store only that it is: to start is audited in it, also where that fails later.
        """
        return {
            str(file.relative_to(self.folder)): (
                file.stat().st_mode,
                file.read_bytes() if _is_compared(file) else b"",
            )
            for file in self.folder.rglob("*")
        }

    def start(self, *words: str, **settings: str | None) -> subprocess.Popen[str]:
        """Start a command in the folder; a setting of None is taken out of the environment."""
        program, *rest = words
        path = find_executable() if program == GARRISON_PROXY else GARRISON
        arguments = rest if program == GARRISON_PROXY else words
        environment = {**os.environ, **settings}
        return subprocess.Popen(
            [*self.through, path, *(word.replace("HOST", self.host) for word in arguments)],
            cwd=self.folder,
            env={name: text for name, text in environment.items() if text is not None},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _is_compared(file: Path) -> bool:
    return file.is_file() and file.suffix != ".db" and os.access(file, os.R_OK)


def refusal(place: Place, *words: str, given: str = "", **settings: str | None) -> str:
    """Run a command, which is to refuse in one message; return all that it said."""
    before = place.contents()
    needs_process = place.through or settings or words[:1] in {("proxy",), (GARRISON_PROXY,)}
    if needs_process:
        status, out, said = ended(place.start(*words, **settings), given)
    else:
        status, out, said = ran_here(place, *words)
    assert status == MISTAKE, (status, said)
    assert_one_message(said)
    after = place.contents()
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    assert not changed, f"left behind: {changed}"
    return out + said


def ended(process: subprocess.Popen[str], given: str = "") -> tuple[int, str, str]:
    """Wait for a process; return its exit status, stdout and stderr."""
    try:
        out, said = process.communicate(given, timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, out, said


def ran_here(place: Place, *words: str) -> tuple[int, str, str]:
    """Likewise of a command that runs in our own process."""
    out, said = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(place.folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(said),
    ):
        status = cli.run([word.replace("HOST", place.host) for word in words])
    return status, out.getvalue(), said.getvalue()


def assert_one_message(said: str) -> None:
    """Hold that stderr is one message, which says nothing twice."""
    for blunder in BLUNDERS:
        assert blunder not in said, said
    messages = [line for line in said.splitlines() if line.startswith(BEGINNINGS)]
    assert len(messages) <= 1, said
    assert said.strip(), "it says nothing"
    assert len(re.findall(r"\berror\b", said, re.IGNORECASE)) <= 1, said
    lines = [line for line in said.splitlines() if line]
    assert len(set(lines)) == len(lines), said
    for line in lines:
        clauses = Counter(each for each in re.split(r"[:;,()] ?", line) if len(each) >= CLAUSE)
        assert [each for each, count in clauses.items() if count > 1] == [], said


def assert_told(said: str, place: Place, *words: str) -> None:
    for word in words:
        assert word.replace("HOST", place.host) in said, said
