"""The git repository that is the mesh: which commit a branch is at, and that commit's policy files.

A path (or `file://` URL) is read in place. Any other URL is fetched into a bare repository of the
cache; plain `http` and `git` are refused, since nobody vouches for what they carry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import urllib3
from dulwich.client import get_transport_and_path
from dulwich.errors import (
    ApplyDeltaError,
    ChecksumMismatch,
    FileFormatException,
    GitProtocolError,
    HangupException,
    NotGitRepository,
)
from dulwich.objects import Commit, ObjectID
from dulwich.objectspec import parse_commit
from dulwich.refs import Ref, check_ref_format
from dulwich.repo import Repo

from garrison.policies.commit_files import CommitFiles, read_files
from garrison.policies.errors import RepositoryError, RepositoryUnavailableError

FETCH_SECONDS = 30.0
_DAMAGE = (KeyError, IndexError, ApplyDeltaError, ChecksumMismatch, FileFormatException)
_SSH = "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=10 -oServerAliveCountMax=3"


def open_repository(location: str, branch: str = "main", cache: Path | None = None) -> Repository:
    """Open the repository at a path or URL.

    Raises `RepositoryError` if there is none; `RepositoryUnavailableError` if it is out of reach.
    """
    if not _is_ref(branch):
        raise RepositoryError(f"{branch!r} cannot be the name of a branch; `git branch` lists them")
    scheme = urlsplit(location).scheme if "://" in location else ""
    if scheme in {"", "file"}:
        path = Path(unquote(urlsplit(location).path)) if scheme else Path(location)
        repository = Repository(str(path), branch, path.expanduser(), None)
    elif scheme in {"https", "ssh"}:
        folder = hashlib.sha256(location.encode()).hexdigest()[:32]
        repository = Repository(
            _without_secret(location), branch, (cache or _default_cache()) / folder, location
        )
    else:
        raise RepositoryError(
            f"{_without_secret(location)}: {scheme}:// is refused; "
            "give a path, or a file://, https:// or ssh:// URL"
        )
    repository.refresh()
    return repository


@dataclass(frozen=True, slots=True)
class Repository:
    """One branch of one repository. `location` is how it is shown: without credentials."""

    location: str
    branch: str
    _path: Path
    _remote: str | None

    def refresh(self) -> None:
        """Fetch what is new, from a URL. Blocks; waits on the network are bounded.

        Raises as `open_repository` does.
        """
        if self._remote is None:
            with self._opened():
                return
        try:
            self._fetch(self._remote)
        except NotGitRepository as error:
            raise RepositoryError(f"{self.location}: not a git repository") from error
        except (OSError, GitProtocolError, HangupException) as error:
            raise RepositoryUnavailableError(
                f"{self.location}: cannot be fetched: {error}"
            ) from error

    def head(self) -> str:
        """Return the commit that the branch is at, as 40 hexadecimal digits.

        Raises `RepositoryError` if there is no such branch, or no commit at all.
        """
        with self._opened() as repo:
            try:
                return repo.refs[_ref(self.branch)].decode()
            except KeyError:
                pass
            branches = sorted(name.decode() for name in repo.refs.keys(base=Ref(b"refs/heads/")))
        if not branches:
            raise RepositoryError(f"{self.location}: the repository is empty; commit policy files")
        shown = ", ".join(branches[:10])
        raise RepositoryError(f"{self.location}: no branch {self.branch!r}; there are: {shown}")

    def find(self, revision: str) -> str:
        """Return the full name of a commit that is given abbreviated, or as branch or tag.

        Raises `RepositoryError`.
        """
        with self._opened() as repo:
            return _commit(repo, revision, self.location).id.decode()

    def read(self, commit: str) -> CommitFiles:
        """Read the policy files of a commit.

        Raises `RepositoryError` if there is no such commit, or the repository is damaged.
        """
        with self._opened() as repo:
            found = _commit(repo, commit, self.location)
            try:
                return read_files(repo.object_store, found.id.decode(), found.tree)
            except _DAMAGE as error:
                raise RepositoryError(
                    f"{self.location}: damaged: commit {commit[:12]} cannot be read whole"
                ) from error

    @contextmanager
    def _opened(self) -> Iterator[Repo]:
        """Open anew each time: what was pushed since is seen, and no file stays open."""
        try:
            repo = Repo(str(self._path))
        except NotGitRepository as error:
            what = "not a git repository" if self._path.exists() else "no such directory"
            text = f"{self.location}: {what}; give the path or URL of one"
            raise RepositoryError(text) from error
        except OSError as error:
            raise RepositoryError(f"{self.location}: cannot be read: {error.strerror}") from error
        with repo:
            yield repo

    def _fetch(self, remote: str) -> None:
        is_new = not (self._path / "HEAD").exists()
        if is_new:
            self._path.mkdir(parents=True, mode=0o700, exist_ok=True)
            Repo.init_bare(self._path).close()
        try:
            self._fetch_into_cache(remote)
        except BaseException:
            if is_new:
                shutil.rmtree(self._path, ignore_errors=True)
            raise

    def _fetch_into_cache(self, remote: str) -> None:
        client, path = get_transport_and_path(
            remote,
            operation="pull",
            quiet=True,
            ssh_command=_SSH,
            pool_manager=urllib3.PoolManager(timeout=FETCH_SECONDS, retries=2),
        )
        branch = _ref(self.branch)

        def wanted(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:  # noqa: ARG001 -- called by name
            return [refs[branch]] if branch in refs else []

        with Repo(str(self._path)) as repo:
            fetched = client.fetch(path, repo, determine_wants=wanted)
            tip = fetched.refs.get(branch)
            if tip is None:
                branches = sorted(ref.decode() for ref in fetched.refs)[:10]
                shown = ", ".join(branches) or "none: the repository is empty"
                raise RepositoryError(
                    f"{self.location}: no branch {self.branch!r}; there are: {shown}"
                )
            repo.refs[branch] = tip


def _ref(branch: str) -> Ref:
    return Ref(b"refs/heads/" + branch.encode())


def _is_ref(name: str) -> bool:
    return name.isascii() and check_ref_format(Ref(b"heads/" + name.encode()))


def _commit(repo: Repo, revision: str, location: str) -> Commit:
    try:
        if _is_ref(revision):
            return parse_commit(repo, revision)
    except (KeyError, ValueError) as error:
        raise _no_commit(location, revision) from error
    raise _no_commit(location, revision)


def _no_commit(location: str, revision: str) -> RepositoryError:
    text = f"{location}: no commit {revision!r}"
    return RepositoryError(f"{text}; `git log` there names them: 4 to 40 hexadecimal digits")


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "garrison" / "repositories"


def _without_secret(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
