"""Clients that went away and have not come back: a short memory, for whoever asks where one is.

Who is gone counts neither as in sync nor as behind: an instance that was scaled down never returns,
and one that lost us serves what it has until its SVID expires, when it leaves this list, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from garrison.xds.client import Client

MAX_GONE = 1_000
MAX_GONE_OF_ONE_IDENTITY = 100  # names of nodes are claims: nobody may crowd the others out
FORGOTTEN_AFTER = timedelta(hours=1)

_Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Departure:
    """A client's last stream, which ended, and what it enforced then."""

    client: Client
    kind: str
    commit: str | None
    at: datetime

    def as_json(self) -> Mapping[str, object]:
        """Return the form of `/status` (docs/seams.md, "Status")."""
        return {
            "spiffe_id": self.client.spiffe_id,
            "node": self.client.node_id,
            "kind": self.kind,
            "commit": self.commit,
            "svid_expires_at": self.client.certificate_expires_at.isoformat(),
            "gone_since": self.at.isoformat(),
        }


class Departures:
    """The newest of them, in the order in which they went."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._by_name: dict[_Name, Departure] = {}
        self._of_identity: Counter[str] = Counter()

    @property
    def all(self) -> tuple[Departure, ...]:
        """Who is gone now."""
        now = self._clock()
        over = [
            name
            for name, each in self._by_name.items()
            if now >= min(each.at + FORGOTTEN_AFTER, each.client.certificate_expires_at)
        ]
        for name in over:
            self._forget(name)
        return tuple(self._by_name.values())

    def went(self, client: Client, kind: str, commit: str | None) -> None:
        """Take note of the end of a client's last stream."""
        name = _name(client)
        self._forget(name)
        if self._of_identity[client.spiffe_id] >= MAX_GONE_OF_ONE_IDENTITY:
            self._forget(next(each for each in self._by_name if each[0] == client.spiffe_id))
        elif len(self._by_name) >= MAX_GONE:
            self._forget(next(iter(self._by_name)))
        self._by_name[name] = Departure(client, kind, commit, self._clock())
        self._of_identity[client.spiffe_id] += 1

    def came(self, client: Client) -> None:
        """Take note that a client is back, or new."""
        self._forget(_name(client))

    def _forget(self, name: _Name) -> None:
        if self._by_name.pop(name, None) is None:
            return
        self._of_identity[name[0]] -= 1
        if not self._of_identity[name[0]]:
            del self._of_identity[name[0]]


def _name(client: Client) -> _Name:
    return client.spiffe_id, client.node_id
