"""The git repository that is the mesh: which commit a branch is at, and that commit's policy files.

A path (or `file://` URL) is read in place. Any other URL is fetched into a bare repository of the
cache; plain `http` and `git` are refused, since nobody vouches for what they carry.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dulwich.errors import (
    ApplyDeltaError,
    ChecksumMismatch,
    FileFormatException,
    GitProtocolError,
    HangupException,
    NotGitRepository,
)
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.refs import Ref, check_ref_format
from dulwich.repo import Repo

from garrison.policies.commit_files import CommitFiles, read_files
from garrison.policies.diagnostics import Diagnostic, Place
from garrison.policies.errors import (
    CommitRefusedError,
    RepositoryError,
    RepositoryUnavailableError,
)
from garrison.policies.fetching import TooLargeError, fetch, tip_of
from garrison.policies.object_sizes import load_within

MAX_COMMIT_BYTES = 1024 * 1024
MAX_TAGS = 10  # from a tag to what it names
_WHOLE_NAME = re.compile("[0-9a-f]{40}")
_ABBREVIATED = re.compile("[0-9a-f]{4,39}")
_DAMAGE = (KeyError, IndexError, ApplyDeltaError, ChecksumMismatch, FileFormatException)


def open_repository(location: str, branch: str = "main", cache: Path | None = None) -> Repository:
    """Open the repository at a path or URL, with what is new of it.

    Raises `RepositoryError` if there is none; `RepositoryUnavailableError` if it is out of reach.
    """
    repository = name_repository(location, branch, cache)
    repository.refresh()
    return repository


def name_repository(location: str, branch: str = "main", cache: Path | None = None) -> Repository:
    """Say which repository is meant, without a look at it. Raises `RepositoryError`."""
    if not _is_ref(branch):
        raise RepositoryError(f"{branch!r} cannot be the name of a branch; `git branch` lists them")
    scheme = urlsplit(location).scheme if "://" in location else ""
    if scheme in {"", "file"}:
        path = Path(unquote(urlsplit(location).path)) if scheme else Path(location)
        return Repository(str(path), branch, path.expanduser(), None)
    if scheme in {"https", "ssh"}:
        folder = hashlib.sha256(location.encode()).hexdigest()[:32]
        path = (cache or _default_cache()) / folder
        return Repository(_without_secret(location), branch, path, location)
    raise RepositoryError(
        f"{_without_secret(location)}: {scheme}:// is refused; "
        "give a path, or a file://, https:// or ssh:// URL"
    )


@dataclass(frozen=True, slots=True)
class Repository:
    """One branch of one repository. `location` is how it is shown: without credentials."""

    location: str
    branch: str
    _path: Path
    _remote: str | None
    _too_large: dict[ObjectID, str] = field(default_factory=dict)

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
        except RepositoryError as error:
            raise RepositoryError(f"{self.location}: {error}") from error
        except RepositoryUnavailableError as error:
            raise RepositoryUnavailableError(f"{self.location}: {error}") from error
        except (OSError, GitProtocolError, HangupException) as error:
            raise RepositoryUnavailableError(
                f"{self.location}: cannot be fetched: {_root_cause(error)}: is the URL right, and "
                "its server up?"
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

        Raises `RepositoryError` if there is no such commit, or the repository is damaged;
        `CommitRefusedError` if there is too much of it to be looked at.
        """
        with self._opened() as repo:
            try:
                found = _commit(repo, commit, self.location)
            except _CommitTooLargeError as error:
                raise _refused(commit) from error
            try:
                return read_files(repo.object_store, found.id.decode(), found.tree)
            except _DAMAGE as error:
                raise RepositoryError(
                    f"{self.location}: damaged: commit {commit[:12]} cannot be read whole"
                ) from error

    @contextlib.contextmanager
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
        """Fetch if the branch has moved, unless to where it was found to be too large."""
        tip = tip_of(remote, self.branch)
        with Repo(str(self._path)) as repo:
            if tip is not None and repo.refs.read_ref(_ref(self.branch)) == tip:
                return
        if tip is not None and tip in self._too_large:
            raise TooLargeError(self._too_large[tip])
        try:
            fetch(remote, self.branch, self._path)
        except TooLargeError as error:
            if tip is not None:
                self._too_large.clear()
                self._too_large[tip] = str(error)
            raise


class _CommitTooLargeError(RepositoryError):
    """A commit that nobody wrote by hand."""


def _refused(commit: str) -> CommitRefusedError:
    finding = Diagnostic(
        Place("(commit)"),
        "repository/too-large",
        f"is larger than {MAX_COMMIT_BYTES} bytes, its files aside",
        "say less in its message",
    )
    return CommitRefusedError(commit, (finding,), 1)


def _ref(branch: str) -> Ref:
    return Ref(b"refs/heads/" + branch.encode())


def _is_ref(name: str) -> bool:
    return name.isascii() and check_ref_format(Ref(b"heads/" + name.encode()))


def _commit(repo: Repo, revision: str, location: str) -> Commit:
    """Find a commit by its name, which may be abbreviated, or by a branch or tag."""
    name = _named(repo, revision) if _is_ref(revision) else None
    for _ in range(MAX_TAGS):
        if name is None:
            break
        try:
            found = load_within(repo.object_store, name, MAX_COMMIT_BYTES)
        except KeyError:
            break
        if found is None:
            raise _CommitTooLargeError(
                f"{location}: commit {revision[:40]} is larger than {MAX_COMMIT_BYTES} bytes, "
                "its files aside; say less in its message"
            )
        if isinstance(found, Commit):
            return found
        name = found.object[1] if isinstance(found, Tag) else None
    raise _no_commit(location, revision)


def _named(repo: Repo, revision: str) -> ObjectID | None:
    text = revision.encode()
    if _WHOLE_NAME.fullmatch(revision):
        return ObjectID(text)
    for place in (b"refs/heads/", b"refs/tags/", b""):
        with contextlib.suppress(KeyError):
            return repo.refs[Ref(place + text)]
    if not _ABBREVIATED.fullmatch(revision):
        return None
    found = list(itertools.islice(repo.object_store.iter_prefix(text), 2))
    return found[0] if len(found) == 1 else None


def _no_commit(location: str, revision: str) -> RepositoryError:
    text = f"{location}: no commit {revision!r}"
    return RepositoryError(f"{text}; `git log` there names them: 4 to 40 hexadecimal digits")


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "garrison" / "repositories"


def _without_secret(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _root_cause(error: BaseException) -> str:
    """Say what the system said at the bottom; libraries wrap that in their own names."""
    bottom: BaseException | None = error
    while bottom:
        if isinstance(bottom, OSError) and bottom.strerror:
            at = f"{bottom.filename}: " if bottom.filename else ""
            return f"{at}{bottom.strerror.lower()}"
        bottom = bottom.__cause__ or bottom.__context__
    return str(error)
