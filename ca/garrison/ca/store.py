"""What the CA needs remembered, whatever remembers it: SQLite here, PostgreSQL for replicas later.

Each `record_` is one transaction of an audit row and what it is about: when it returns, both are on
the disk; when it raises, neither is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from garrison.ca.audit import Head, Receipt, Row
from garrison.ca.entries import EntriesAtCommit
from garrison.ca.profile import Leaf


@dataclass(frozen=True, slots=True)
class Origin:
    """By what a certificate came to be: a token and the entries of a commit, or the CA itself."""

    token_id: str
    commit: str


@dataclass(frozen=True, slots=True)
class Preparation:
    """A certificate that is about to be signed, and the digest of the bytes to be signed."""

    leaf: Leaf
    tbs_digest: str
    issuer_key_id: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class BundleVersion:
    """A trust bundle's place in the order of all that this trust domain had."""

    sequence: int
    digest: str


@dataclass(frozen=True, slots=True)
class LiveIdentity:
    """An identity that has certificates in use."""

    spiffe_id: str
    certificates: int
    latest_not_after: datetime


class Store(Protocol):
    """All methods may block, and raise `StoreUnavailableError`; any thread may call them."""

    def record_prepared(self, preparation: Preparation) -> Receipt:
        """Record what is about to be signed; its serial is taken for ever."""

    def record_signed(self, serial: int, certificate_digest: str) -> None:
        """Record that it was signed."""

    def record_failed(self, serial: int, reason: str) -> None:
        """Record that it was not signed."""

    def record_entries(self, entries: EntriesAtCommit, digest: str) -> None:
        """Replace the registration entries."""

    def record_bundle(self, digest: str) -> BundleVersion:
        """Tell the version of the bundle of this digest: a new one unless it is the newest."""

    def load_entries(self) -> EntriesAtCommit | None:
        """Tell the entries that were recorded last."""

    def live_identities(self, now: datetime) -> list[LiveIdentity]:
        """Tell who has a certificate that was signed and has not expired."""

    def audit_head(self) -> Head:
        """Tell the end of the audit log."""

    def audit_rows(self, after: int = 0) -> Iterator[Row]:
        """Read the audit log in order, from the row after `after`."""

    def close(self) -> None:
        """Let go of files and connections."""
