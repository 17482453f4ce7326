"""Which connected clients enforce which commit: evidence only, and the answer is a list of names.

garrison-proxy swaps a commit in when it takes the commit's marker, so its ACK of the marker says
that the commit is enforced. Envoy takes resources as they come: it enforces a commit when it has
acknowledged all that it subscribes to of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from garrison.policies.departures import Departure, Departures
from garrison.policies.encoded import MARKER
from garrison.policies.snapshot import EXTENSION, ClientKind
from garrison.xds.client import Acknowledged, Client, Refused

PROXY: ClientKind = "garrison-proxy"
ENVOY: ClientKind = "envoy"
MAX_NAMES = 20  # of a refused response that are kept


def kind_of(client: Client) -> ClientKind:
    """Tell which dialect a client speaks: ours if it says so, else that of Envoy."""
    return PROXY if client.user_agent == PROXY else ENVOY


@dataclass(frozen=True, slots=True)
class Nack:
    """The newest refusal of a client."""

    commit: str
    type_url: str
    names: tuple[str, ...]
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one connected client stands."""

    client: Client
    commit: str | None = None  # what it enforces
    last_nack: Nack | None = None

    def enforces(self, commit: str | None) -> bool:
        """Tell whether it is known to enforce this commit."""
        return commit is not None and self.commit == commit


class Census:
    """The standing of all connected clients; it is told by the streams."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._standings: dict[int, Standing] = {}
        self._departures = Departures(clock)
        self._streams: Counter[tuple[str, str]] = Counter()  # of a client by identity and node
        self.nacks = 0

    @property
    def standings(self) -> Iterable[Standing]:
        """All of them, in the order in which they connected."""
        return tuple(self._standings.values())

    @property
    def gone(self) -> tuple[Departure, ...]:
        """Who went away lately and has not come back."""
        return self._departures.all

    def laggards(self, commit: str | None) -> list[Standing]:
        """Return the clients that are not known to enforce a commit."""
        return [each for each in self._standings.values() if not each.enforces(commit)]

    def connected(self, client: Client) -> None:
        """Take note of a stream that has named its node and was accepted."""
        self._standings[client.stream] = Standing(client)
        self._streams[client.spiffe_id, client.node_id] += 1
        self._departures.came(client)

    def acknowledged(self, client: Client, event: Acknowledged) -> None:
        """Take note of an ACK."""
        if event.type_url == EXTENSION and MARKER in event.versions and kind_of(client) == PROXY:
            self._enforced(client, event.label)

    def refused(self, client: Client, event: Refused) -> None:
        """Take note of a NACK."""
        self.nacks += 1
        names = tuple(event.versions)[:MAX_NAMES]
        nack = Nack(event.label, event.type_url, names, event.reason, self._clock())
        standing = self._standings[client.stream]
        self._standings[client.stream] = replace(standing, last_nack=nack)

    def settled(self, client: Client, label: str) -> None:
        """Take note that the client has all that it subscribed to of a commit."""
        if kind_of(client) == ENVOY:
            self._enforced(client, label)

    def disconnected(self, client: Client) -> None:
        """Forget a stream; of a client that has no other, keep for a while that it was here."""
        standing = self._standings.pop(client.stream)
        name = (client.spiffe_id, client.node_id)
        self._streams[name] -= 1
        if not self._streams[name]:
            del self._streams[name]
            self._departures.went(client, kind_of(client), standing.commit)

    def _enforced(self, client: Client, commit: str) -> None:
        standing = self._standings[client.stream]
        self._standings[client.stream] = replace(standing, commit=commit)


def as_json(standing: Standing, commit: str | None) -> Mapping[str, object]:
    """Return the form of `/status` (docs/seams.md, "Status")."""
    client, nack = standing.client, standing.last_nack
    return {
        "spiffe_id": client.spiffe_id,
        "node": client.node_id,
        "kind": kind_of(client),
        "commit": standing.commit,
        "in_sync": standing.enforces(commit),
        "svid_expires_at": client.certificate_expires_at.isoformat(),
        "connected_since": client.connected_at.isoformat(),
        "last_nack": nack
        and {
            "commit": nack.commit,
            "type": nack.type_url.rpartition(".")[2],
            "names": list(nack.names),
            "reason": nack.reason,
            "at": nack.at.isoformat(),
        },
    }
