"""The entries in force: those of the newest good commit, also when the repository is away.

They are kept in the store, so that the CA can issue from its start; a commit that is bad, or of
another trust domain, changes nothing.
"""

import asyncio
from datetime import timedelta
from typing import NoReturn

import structlog
from spiffe import TrustDomain

from garrison.ca.entries import Entitlement, EntriesAtCommit, EntrySet, EntrySource
from garrison.ca.store import Store
from garrison.identity.errors import GarrisonError, UnavailableError
from garrison.identity.registration import Selector

log = structlog.get_logger()


class NoEntriesError(UnavailableError):
    """No commit has been read yet, so nobody is known."""


class EntriesFollower:
    """Holds one `EntrySet`, swapped whole."""

    def __init__(self, trust_domain: TrustDomain, store: Store, look_again: timedelta) -> None:
        """Begin with what the store remembers; after a failure, look again so much later."""
        self._trust_domain = trust_domain
        self._store = store
        self._look_again = look_again
        remembered = store.load_entries()
        self.current = EntrySet(trust_domain, remembered) if remembered else None
        self.problem: str | None = None  # of the newest look at the repository

    def entitle(self, attested: frozenset[Selector]) -> Entitlement:
        """Find what facts entitle to now. Raises `NotEntitledError`, `NoEntriesError`."""
        if self.current is None:
            raise NoEntriesError("no registration entries have been read yet")
        return self.current.entitle(attested)

    @property
    def commit(self) -> str | None:
        """Where the entries in force are from."""
        return self.current.commit if self.current else None

    async def follow(self, source: EntrySource) -> NoReturn:
        """Take over each good commit, until cancelled."""
        while True:
            try:
                await self._take(await source.next_entries(self.commit))
                self.problem = None
            except Exception as error:  # noqa: BLE001, a task's top: issuance outlives its source
                self._tell(str(error) if isinstance(error, GarrisonError) else repr(error))
                await asyncio.sleep(self._look_again.total_seconds())

    async def _take(self, found: EntriesAtCommit) -> None:
        entries = EntrySet(self._trust_domain, found)
        await asyncio.to_thread(self._store.record_entries, found, entries.digest)
        self.current = entries
        log.info("entries loaded", commit=found.commit, count=len(found.entries))

    def _tell(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("entries kept as they were", kept=self.commit, reason=problem)
        self.problem = problem
