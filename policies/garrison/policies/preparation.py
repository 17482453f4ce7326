"""All that stands between a commit and its publication, in order: read, compile, be accepted."""

from __future__ import annotations

from dataclasses import replace

from garrison.policies.acceptance import Acceptance
from garrison.policies.compilation import compile_commit
from garrison.policies.repository import Repository
from garrison.policies.snapshot import Snapshot


def prepare(repository: Repository, commit: str, acceptance: Acceptance) -> Snapshot:
    """Make the snapshot of a commit that is fit to be served. Blocks; call it in a thread.

    Raises `CommitRefusedError` if the commit is wrong, `RepositoryError` if it cannot be read, and
    `SidecarFailedError` if the executable cannot be asked.
    """
    snapshot = compile_commit(repository.read(commit))
    return replace(snapshot, checked=acceptance.check(snapshot))
