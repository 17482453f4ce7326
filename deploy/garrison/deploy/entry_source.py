"""The repository as the CA sees it: its registration entries, commit by commit.

Neither `ca` nor `policies` knows the other, so this stands between. A commit's entries count only
if all of the commit is right: what the policy server would refuse registers nobody either.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from garrison.ca.entries import EntriesAtCommit
from garrison.identity.errors import RejectedError
from garrison.policies.compilation import compile_commit
from garrison.policies.repository import Repository, open_repository

POLL = timedelta(seconds=1)


@dataclass(slots=True)
class RepositoryEntries:
    """Follows one branch of a repository, which is a path or URL."""

    location: str
    branch: str
    poll: timedelta = POLL
    _opened: Repository | None = None
    _refused: set[str] = field(default_factory=set)

    async def next_entries(self, known_commit: str | None) -> EntriesAtCommit:
        """Wait until the branch is at another commit than `known_commit`, and read its entries.

        Raises `RejectedError` for a commit that is refused, once; `UnavailableError` while the
        repository is out of reach. Cancelling is safe.
        """
        while True:
            repository = await asyncio.to_thread(self._repository)
            head = await asyncio.to_thread(repository.head)
            if head != known_commit and head not in self._refused:
                return await self._read(repository, head)
            await asyncio.sleep(self.poll.total_seconds())

    async def _read(self, repository: Repository, commit: str) -> EntriesAtCommit:
        try:
            snapshot = await asyncio.to_thread(lambda: compile_commit(repository.read(commit)))
        except RejectedError:
            self._refused = {commit}
            raise
        self._refused = set()
        return EntriesAtCommit(commit, snapshot.mesh.entries)

    def _repository(self) -> Repository:
        """Return the repository, with what is new fetched."""
        if self._opened is None:
            self._opened = open_repository(self.location, self.branch)
        else:
            self._opened.refresh()
        return self._opened
