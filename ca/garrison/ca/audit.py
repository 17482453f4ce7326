"""The audit log: an append-only chain of what the CA was about to sign, and what became of it.

Each row's hash covers the row before it, so a change or a gap anywhere shows. That nothing was cut
off at the end shows by the head, which `ca status` and each issuance's log line tell: keep those
elsewhere. Before the issuing key is used, a row with the digest of the very bytes to be signed is
on the disk; a `Receipt` is the proof, and signing needs it.
"""

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from garrison.ca.errors import StateRejectedError

GENESIS = "0" * 64  # what the first row follows


class Kind(enum.Enum):
    """What a row tells of; its details have the fields named beside it."""

    PREPARED = "issuance prepared"  # see `describe_issuance`
    SIGNED = "issuance signed"  # serial, certificate (SHA-256)
    FAILED = "issuance failed"  # serial, reason
    ENTRIES = "entries loaded"  # commit, count, digest
    BUNDLE = "bundle changed"  # sequence, digest


Details = Mapping[str, str | int | list[str]]


@dataclass(frozen=True, slots=True)
class Event:
    """What is to be recorded."""

    kind: Kind
    details: Details


@dataclass(frozen=True, slots=True)
class Row:
    """What was recorded."""

    sequence: int
    time: str
    kind: str
    details: str
    previous: str
    hash: str

    @property
    def columns(self) -> dict[str, str | int]:
        """The row as a table takes it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain."""

    sequence: int
    time: str | None
    hash: str


EMPTY = Head(0, None, GENESIS)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that the row `sequence`, about the bytes of this digest, is on the disk.

    Made by a store when its transaction has committed, and by nobody else.
    """

    sequence: int
    hash: str
    tbs_digest: str


def follow(head: Head, event: Event, time: datetime) -> Row:
    """Make the row that comes after `head`."""
    details = json.dumps(event.details, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _row(head, format_time(time), event.kind.value, details)


def head_of(row: Row) -> Head:
    """Tell the end of a chain that ends in `row`."""
    return Head(row.sequence, row.time, row.hash)


def verify(rows: Iterable[Row], start: Head = EMPTY) -> Head:
    """Follow the chain from `start` to its end. Raises `StateRejectedError` where it breaks."""
    head = start
    for row in rows:
        if row != _row(head, row.time, row.kind, row.details):
            raise StateRejectedError(
                f"the audit log is broken after row {head.sequence}: "
                "restore it, or find out who changed it"
            )
        head = head_of(row)
    return head


def details_of(rows: Iterable[Row], kind: Kind) -> Iterator[Details]:
    """Read what the rows of one kind tell."""
    return (json.loads(row.details) for row in rows if row.kind == kind.value)


def format_time(time: datetime) -> str:
    """Write a time so that its text sorts as the times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _row(head: Head, time: str, kind: str, details: str) -> Row:
    sequence = head.sequence + 1
    covered = json.dumps([sequence, time, kind, details, head.hash], separators=(",", ":"))
    digest = hashlib.sha256(covered.encode()).hexdigest()
    return Row(sequence, time, kind, details, head.hash, digest)
