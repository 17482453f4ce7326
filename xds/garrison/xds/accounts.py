"""What each identity makes us hold: streams and bytes, over all of its streams together.

A limit for each stream says nothing while an identity may open thousands. Bytes are those that are
of a client's own making: names that its view does not have, versions that are not the view's, and
what its node says. The rest is the view's own and shared by all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from garrison.xds.client import StreamRefusedError
from garrison.xds.service import Limits

ENTRY_BYTES = 120  # of a set's or mapping's slot, at its emptiest


def bytes_of(texts: Iterable[str]) -> int:
    """Return about what these strings take, each with its slot in a set or mapping."""
    return sum(sys.getsizeof(text) + ENTRY_BYTES for text in texts)


@dataclass(slots=True)
class Account:
    """The streams of one identity, or of all."""

    streams: int = 0
    held_bytes: int = 0


class Place:
    """One stream's share of its identity's account."""

    def __init__(self, accounts: Accounts, spiffe_id: str) -> None:
        self._accounts = accounts
        self._spiffe_id = spiffe_id
        self._held_bytes = 0

    def hold(self, size: int) -> None:
        """Say how many bytes this stream holds now; raises `StreamRefusedError` if too many."""
        more, self._held_bytes = size - self._held_bytes, size
        self._accounts.charge(self._spiffe_id, more)


class Accounts:
    """All identities that have streams."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._all = Account()
        self._of_identity: dict[str, Account] = {}

    @contextmanager
    def place_for(self, spiffe_id: str) -> Iterator[Place]:
        """Give a stream its place for as long as the block runs.

        Raises `StreamRefusedError` if there is none.
        """
        own = self._of_identity.get(spiffe_id, Account())
        if self._all.streams >= self._limits.streams:
            raise _too_many("too many streams")
        if own.streams >= self._limits.streams_of_one_identity:
            raise _too_many(f"too many streams of {spiffe_id}")
        self._of_identity[spiffe_id] = own
        own.streams += 1
        self._all.streams += 1
        place = Place(self, spiffe_id)
        try:
            yield place
        finally:
            self._release(spiffe_id, own, place)

    def charge(self, spiffe_id: str, more: int) -> None:
        """Add to what an identity holds; raises `StreamRefusedError` beyond a limit."""
        own = self._of_identity[spiffe_id]
        own.held_bytes += more
        self._all.held_bytes += more
        if more <= 0:
            return
        if own.held_bytes > self._limits.held_bytes_of_one_identity:
            raise _too_many(f"the streams of {spiffe_id} ask for too many unknown names")
        if self._all.held_bytes > self._limits.held_bytes:
            raise _too_many("all streams together ask for too many unknown names")

    def _release(self, spiffe_id: str, own: Account, place: Place) -> None:
        place.hold(0)
        own.streams -= 1
        self._all.streams -= 1
        if not own.streams:
            del self._of_identity[spiffe_id]


def _too_many(text: str) -> StreamRefusedError:
    return StreamRefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
