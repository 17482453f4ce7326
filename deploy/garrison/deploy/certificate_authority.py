"""`garrison ca`: the CA, given a reader of the repository that is the mesh.

Neither component knows of the other: the CA asks an `EntrySource`, the policies read commits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from garrison.ca.cli import command

if TYPE_CHECKING:  # not for --help
    from garrison.ca.entries import EntriesAtCommit, EntrySource
    from garrison.ca.settings import CaSettings
    from garrison.policies.repository import Repository


class RepositoryEntries:
    """The registration entries of a branch, polled. A commit is taken whole or not at all."""

    def __init__(self, location: str, branch: str, poll_seconds: float) -> None:
        """Take the address; it need not be there yet."""
        self._location = location
        self._branch = branch
        self._poll_seconds = poll_seconds
        self._repository: Repository | None = None

    async def next_entries(self, known_commit: str | None) -> EntriesAtCommit:
        """Wait until the branch is at another commit, and read that.

        Raises `RepositoryError` or `CommitRefusedError`; `RepositoryUnavailableError`.
        """
        while True:
            found = await asyncio.to_thread(self._look, known_commit)
            if found is not None:
                return found
            await asyncio.sleep(self._poll_seconds)

    def _look(self, known_commit: str | None) -> EntriesAtCommit | None:
        from garrison.ca.entries import EntriesAtCommit  # noqa: PLC0415, not for --help
        from garrison.policies.compilation import compile_commit  # noqa: PLC0415
        from garrison.policies.repository import open_repository  # noqa: PLC0415

        if self._repository is None:
            self._repository = open_repository(self._location, self._branch)
        else:
            self._repository.refresh()
        head = self._repository.head()
        if head == known_commit:
            return None
        snapshot = compile_commit(self._repository.read(head))
        return EntriesAtCommit(head, snapshot.mesh.entries)


def source_of(settings: CaSettings) -> EntrySource:
    """Follow the repository that the settings name."""
    return RepositoryEntries(settings.repository, settings.branch, settings.poll_seconds)


ca = command(source_of)
