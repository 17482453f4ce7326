"""Fetching a branch in a process of its own, which may take so much and no more.

A pack of a megabyte can hold an object of gigabytes, and it is inflated to be indexed. So whoever
indexes has limits of the kernel's (setrlimit(2)), and the server that serves a mesh is another
process. Question and answer are JSON on stdin and stdout: a URL may hold a password, which has no
place among arguments that everybody may list.

Where a branch is, is asked by the server itself, every few seconds. It takes so much of the answer
and no more, and whatever comes instead of one, such as a page that asks for a password, is an
outage.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import urllib3
from dulwich.client import (
    GitClient,
    HttpGitClient,
    SSHGitClient,
    SubprocessSSHVendor,
    SubprocessWrapper,
    get_transport_and_path,
)
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from garrison.policies.errors import RepositoryError, RepositoryUnavailableError

IDLE_SECONDS = 30.0  # for a server to say something
TIP_BYTES = 16 * 1024 * 1024  # of all branches and tags, some 200,000, by servers that list them
TIP_SECONDS = 60.0
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=10 -oServerAliveCountMax=3"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one fetch may take."""

    pack_bytes: int = 256 * 1024 * 1024
    memory_bytes: int = 1024 * 1024 * 1024
    seconds: int = 300

    def __str__(self) -> str:
        """Say what to do about them."""
        return (
            f"fetching it takes more than {self.pack_bytes >> 20} MiB of disk, "
            f"{self.memory_bytes >> 20} MiB of memory or {self.seconds} s: "
            "remove what is large from it"
        )


class TooLargeError(RepositoryError):
    """What would be fetched is beyond all limits; it will be the next time, too."""


def open_remote(remote: str) -> tuple[GitClient, str]:
    """Return a client of a URL, and the path to ask it for. Its waits are bounded."""
    client, path = get_transport_and_path(
        remote,
        operation="pull",
        quiet=True,
        ssh_command=_SSH,
        pool_manager=urllib3.PoolManager(timeout=IDLE_SECONDS, retries=2),
    )
    return client, path


def tip_of(remote: str, branch: str) -> ObjectID | None:
    """Ask where a branch of a URL is; None if it is not said. Blocks.

    Raises `NotGitRepository`, `OSError`, or `GitProtocolError` for whatever is no answer.
    """
    client, path = open_remote(remote)
    allowance = _Allowance(TIP_BYTES, time.monotonic() + TIP_SECONDS)
    ssh = _Ssh(allowance)
    if isinstance(client, HttpGitClient):
        client.pool_manager = _Pool(allowance)
    elif isinstance(client, SSHGitClient):
        client.ssh_vendor = ssh
    ref = Ref(b"refs/heads/" + branch.encode())
    try:
        return client.get_refs(path.encode(), ref_prefix=[ref]).refs.get(ref)
    except (OSError, GitProtocolError, HangupException, NotGitRepository):
        raise
    except Exception as error:  # of a parser, which may raise anything at all
        text = f"the answer is not git's ({type(error).__name__})"
        raise GitProtocolError(text) from error
    finally:
        ssh.end()


@dataclass(slots=True)
class _Allowance:
    """What is still taken of an answer."""

    left: int
    until: float  # on the monotonic clock

    def bound(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        def bounded(size: int | None = None, **options: Any) -> bytes:  # noqa: ANN401 -- urllib3's
            most = self.left + 1
            data = read(most if size is None or size < 0 else min(size, most), **options)
            self.left -= len(data)
            if self.left < 0 or time.monotonic() > self.until:
                text = f"naming its branches takes over {TIP_BYTES >> 20} MiB or {TIP_SECONDS} s"
                raise GitProtocolError(text)
            return data

        return bounded


class _Pool(urllib3.PoolManager):
    def __init__(self, allowance: _Allowance) -> None:
        super().__init__(timeout=IDLE_SECONDS, retries=2)
        self._allowance = allowance

    def request(self, *arguments: Any, **options: Any) -> urllib3.BaseHTTPResponse:  # noqa: ANN401
        response = super().request(*arguments, **options)
        response.read = self._allowance.bound(response.read)  # type: ignore[method-assign] # bounded
        return response


class _Ssh(SubprocessSSHVendor):
    def __init__(self, allowance: _Allowance) -> None:
        self._allowance = allowance
        self._started: list[SubprocessWrapper] = []

    def run_command(self, *arguments: Any, **options: Any) -> SubprocessWrapper:  # noqa: ANN401
        wrapper = super().run_command(*arguments, **options)
        self._started.append(wrapper)
        wrapper.read = self._allowance.bound(wrapper.read)
        return wrapper

    def end(self) -> None:
        """End what was started; an answer that is none leaves it running."""
        for wrapper in self._started:
            wrapper.proc.kill()
            wrapper.close()


def fetch(remote: str, branch: str, into: Path, limits: Limits = Limits()) -> None:
    """Bring a branch of a URL into a bare repository, all of it or nothing. Blocks.

    Raises `RepositoryError`, `RepositoryUnavailableError`, or `TooLargeError`.
    """
    asked = {"remote": remote, "branch": branch, "into": str(into), "limits": asdict(limits)}
    command = (sys.executable, "-m", __name__)
    try:
        with subprocess.Popen(  # noqa: S603 -- our own module, and no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that what it starts ends with it
        ) as process:
            try:
                told, _ = process.communicate(json.dumps(asked).encode(), limits.seconds)
            finally:
                _end(process)
    except subprocess.TimeoutExpired:
        raise TooLargeError(str(limits)) from None
    finally:
        _sweep(into)
    _understand(told, process.returncode, limits)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of its session."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _sweep(into: Path) -> None:
    """Remove packs that were never finished; nobody else fetches into this directory."""
    for pattern in ("objects/tmp_pack_*", "objects/pack/tmp*", "objects/incoming-*"):
        for file in into.glob(pattern):
            file.unlink(missing_ok=True)


def _understand(told: bytes, status: int, limits: Limits) -> None:
    try:
        answer = json.loads(told)
        kind, text = answer["kind"], answer["text"]
    except (ValueError, KeyError, TypeError):
        # It was killed, or had not even the memory to say that there is none.
        raise TooLargeError(f"{limits} (exit status {status})") from None
    if kind == "too large":
        raise TooLargeError(str(limits))
    if kind == "rejected":
        raise RepositoryError(text)
    if kind != "fetched":
        raise RepositoryUnavailableError(text)


# -- The child ------------------------------------------------------------------------------------


def main() -> None:
    """Answer the question on stdin."""
    question = json.load(sys.stdin)
    _limit(Limits(**question["limits"]))
    kind, text = _answer(question["remote"], question["branch"], Path(question["into"]))
    json.dump({"kind": kind, "text": text}, sys.stdout)


def _limit(limits: Limits) -> None:
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.pack_bytes),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _answer(remote: str, branch: str, into: Path) -> tuple[str, str]:
    try:
        return _fetch(remote, Ref(b"refs/heads/" + branch.encode()), into)
    except MemoryError:
        return "too large", ""
    except NotGitRepository:
        return "rejected", "not a git repository"
    except (OSError, GitProtocolError, HangupException) as error:
        if isinstance(error, OSError) and error.errno in {errno.EFBIG, errno.ENOMEM}:
            return "too large", ""
        return "unavailable", f"cannot be fetched: {error}"


def _fetch(remote: str, branch: Ref, into: Path) -> tuple[str, str]:
    client, path = open_remote(remote)

    def wanted(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:  # noqa: ARG001 -- called by name
        return [refs[branch]] if branch in refs else []

    with Repo(str(into)) as repo:
        fetched = client.fetch(path, repo, determine_wants=wanted)
        tip = fetched.refs.get(branch)
        if tip is None:
            heads = sorted(ref.decode("utf-8", "replace") for ref in fetched.refs)[:10]
            shown = ", ".join(heads) or "none: the repository is empty"
            name = branch.decode().removeprefix("refs/heads/")
            return "rejected", f"no branch {name!r}; there are: {shown}"
        repo.refs[branch] = tip
    return "fetched", tip.decode()


if __name__ == "__main__":
    main()
