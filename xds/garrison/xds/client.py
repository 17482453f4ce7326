"""Who is at the other end of a stream, and what the users of this component are told of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import grpc


class StreamRefusedError(Exception):
    """A stream is ended with this status and text; the text goes to the client."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Peer(Protocol):
    """What the TLS handshake proved."""

    @property
    def spiffe_id(self) -> str:
        """The one identity in the peer's certificate."""

    @property
    def expires_at(self) -> datetime:
        """The moment from which the certificate is no evidence any more."""


@dataclass(frozen=True, slots=True)
class Client:
    """One stream: the identity is proved, everything of the node is a claim."""

    stream: int  # unique in this process
    spiffe_id: str
    certificate_expires_at: datetime
    node_id: str
    user_agent: str
    metadata: Mapping[str, str]  # the node's metadata, as far as its values are text
    connected_at: datetime

    @property
    def own_bytes(self) -> int:
        """About how many bytes of this are claims."""
        texts = (self.node_id, self.user_agent, *self.metadata, *self.metadata.values())
        return sum(map(sys.getsizeof, texts))


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A client has taken a response: versions by name (None: removed), and its view's label."""

    type_url: str
    label: str
    versions: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Refused:
    """A client has refused a response, and why (its words, bounded)."""

    type_url: str
    label: str
    versions: Mapping[str, str | None]
    reason: str


class Observer(Protocol):
    """Is told what becomes of each stream; called on the event loop, so it must not block."""

    def connected(self, client: Client) -> None:
        """Take note of a stream that has named its node and was accepted."""

    def acknowledged(self, client: Client, event: Acknowledged) -> None:
        """Take note of an ACK."""

    def refused(self, client: Client, event: Refused) -> None:
        """Take note of a NACK."""

    def settled(self, client: Client, label: str) -> None:
        """Take note that the client has all that it subscribed to of the view of this label."""

    def disconnected(self, client: Client) -> None:
        """Take note of a stream's end."""
