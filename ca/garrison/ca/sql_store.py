"""The store in an SQL database: SQLite with a write-ahead log, and each commit on the disk.

One connection writes, and knows the end of the audit chain; that no two rows follow the same one is
the table's own rule, so two processes on one database cannot fork the chain.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.dml import UpdateBase

from garrison.ca import tables
from garrison.ca.audit import EMPTY, Details, Event, Head, Kind, Receipt, Row, follow, head_of
from garrison.ca.entries import EntriesAtCommit, describe_entry, read_entry
from garrison.ca.errors import IssuerUnavailableError, StoreUnavailableError
from garrison.ca.group_commit import GroupCommit
from garrison.ca.store import BundleVersion, LiveIdentity, Preparation

LARGEST_BATCH = 256
ROWS_AT_ONCE = 1000
LONGEST_STEP_BACK = timedelta(minutes=5)  # of the clock, before nothing is recorded any more

_INSERT_AUDIT = insert(tables.audit)
_INSERT_CERTIFICATE = insert(tables.certificates)
_MARK_SIGNED = (
    update(tables.certificates)
    .where(tables.certificates.c.serial == bindparam("which"))
    .values(is_signed=1)
)
_REMOVE_ENTRIES = delete(tables.entries)
_INSERT_ENTRIES = insert(tables.entries)
_INSERT_BUNDLE = insert(tables.bundles)
_HEAD = select(tables.audit).order_by(tables.audit.c.sequence.desc()).limit(1)


_Statement = tuple[UpdateBase, Callable[[Row], dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Write:
    """An audit row, and the statements that share its transaction; each may use the row."""

    event: Event
    statements: tuple[_Statement, ...] = ()


class SqlStore:
    """A `Store` on an engine whose tables exist."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        """Use `engine`, whose connections begin a write when `writes` is among their options."""
        self._engine = engine
        self._clock = clock
        self._latest = clock()
        self._writer: Connection | None = None  # and below: of the leader of a group commit only
        self._head: Head | None = None
        self._is_closed = False
        self._group = GroupCommit(self._commit, LARGEST_BATCH)

    def record_prepared(self, preparation: Preparation) -> Receipt:
        """Record what is about to be signed."""
        leaf = preparation.leaf

        def certificate(row: Row) -> dict[str, Any]:
            return {
                "serial": _hexadecimal(leaf.serial),
                "spiffe_id": str(leaf.spiffe_id),
                "not_after": int(leaf.validity.not_after.timestamp()),
                "audit_sequence": row.sequence,
                "is_signed": 0,
            }

        write = _Write(_describe(preparation), ((_INSERT_CERTIFICATE, certificate),))
        row = self._group.submit(write)
        return Receipt(row.sequence, row.hash, preparation.tbs_digest)

    def record_signed(self, serial: int, certificate_digest: str) -> None:
        """Record that it was signed."""
        number = _hexadecimal(serial)
        details = {"serial": number, "certificate": certificate_digest}
        mark = (_MARK_SIGNED, lambda _: {"which": number})
        self._group.submit(_Write(Event(Kind.SIGNED, details), (mark,)))

    def record_failed(self, serial: int, reason: str) -> None:
        """Record that it was not signed."""
        details = {"serial": _hexadecimal(serial), "reason": reason}
        self._group.submit(_Write(Event(Kind.FAILED, details)))

    def record_entries(self, entries: EntriesAtCommit, digest: str) -> None:
        """Replace the registration entries."""
        content = "\n".join(map(describe_entry, entries.entries))
        new = {"id": 1, "commit": entries.commit, "content": content}
        count = len(entries.entries)
        details: Details = {"commit": entries.commit, "count": count, "digest": digest}
        removal: _Statement = (_REMOVE_ENTRIES, lambda _: {})
        insertion: _Statement = (_INSERT_ENTRIES, lambda _: new)
        self._group.submit(_Write(Event(Kind.ENTRIES, details), (removal, insertion)))

    def record_bundle(self, digest: str) -> BundleVersion:
        """Tell the version of the bundle of this digest, which is new unless it is the newest."""
        newest = self._newest_bundle()
        if newest is not None and newest.digest == digest:
            return newest
        version = BundleVersion(newest.sequence + 1 if newest else 1, digest)
        details: Details = {"sequence": version.sequence, "digest": digest}
        insertion = (_INSERT_BUNDLE, lambda _: dict(details))
        self._group.submit(_Write(Event(Kind.BUNDLE, details), (insertion,)))
        return version

    def load_entries(self) -> EntriesAtCommit | None:
        """Tell the entries that were recorded last."""
        with self._reading() as connection:
            found = connection.execute(select(tables.entries)).one_or_none()
        if found is None:
            return None
        entries = tuple(map(read_entry, found.content.splitlines()))
        return EntriesAtCommit(found.commit, entries)

    def live_identities(self, now: datetime) -> list[LiveIdentity]:
        """Tell who has a certificate that was signed and has not expired."""
        column = tables.certificates.c
        query = (
            select(column.spiffe_id, func.count(), func.max(column.not_after))
            .where(column.not_after > int(now.timestamp()), column.is_signed == 1)
            .group_by(column.spiffe_id)
            .order_by(column.spiffe_id)
        )
        with self._reading() as connection:
            return [
                LiveIdentity(spiffe_id, count, datetime.fromtimestamp(latest, UTC))
                for spiffe_id, count, latest in connection.execute(query)
            ]

    def audit_head(self) -> Head:
        """Tell the end of the audit log."""
        with self._reading() as connection:
            return _read_head(connection)

    def audit_rows(self, after: int = 0) -> Iterator[Row]:
        """Read the audit log in order, from the row after `after`."""
        while rows := self._some_audit_rows(after):
            yield from rows
            after = rows[-1].sequence

    def close(self) -> None:
        """Let go of files and connections, after the write under way; later ones are refused.

        A thread may still be at work for a caller that was cancelled, and closing its connection
        under it is a crash in SQLite.
        """
        with self._group.at_rest():
            self._is_closed = True
            self._forget_writer()
        self._engine.dispose()

    def _some_audit_rows(self, after: int) -> list[Row]:
        sequence = tables.audit.c.sequence
        query = select(tables.audit).where(sequence > after).order_by(sequence).limit(ROWS_AT_ONCE)
        with self._reading() as connection:
            return [Row(*found) for found in connection.execute(query)]

    def _newest_bundle(self) -> BundleVersion | None:
        query = select(tables.bundles).order_by(tables.bundles.c.sequence.desc()).limit(1)
        with self._reading() as connection:
            found = connection.execute(query).one_or_none()
        return BundleVersion(*found) if found else None

    def _commit(self, writes: Sequence[_Write]) -> Sequence[Row]:
        if self._is_closed:
            raise IssuerUnavailableError("the store is closed")
        now = self._clock()
        if now < self._latest - LONGEST_STEP_BACK:
            raise IssuerUnavailableError(
                f"the clock went back from {self._latest.isoformat()} to {now.isoformat()}: "
                "nothing is issued until it is right, or the CA was started again"
            )
        try:
            rows = self._write(writes, now)
        except SQLAlchemyError as error:
            self._forget_writer()
            raise _unavailable(error) from error
        self._head = head_of(rows[-1])
        self._latest = max(self._latest, now)
        return rows

    def _write(self, writes: Sequence[_Write], now: datetime) -> list[Row]:
        if self._writer is None:
            self._writer = self._engine.connect().execution_options(writes=True)
        with self._writer.begin():
            head = self._head or _read_head(self._writer)
            return _append(self._writer, head, writes, now)

    def _forget_writer(self) -> None:
        """Begin anew: what this connection knows may be wrong, or the database another one."""
        if self._writer is not None:
            self._writer.invalidate()
            self._writer.close()
        self._writer, self._head = None, None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise _unavailable(error) from error


def _append(
    connection: Connection, head: Head, writes: Sequence[_Write], now: datetime
) -> list[Row]:
    """Extend the chain by a row for each write, then do their statements, like ones together."""
    rows = []
    parameters: defaultdict[UpdateBase, list[dict[str, Any]]] = defaultdict(list)
    for write in writes:
        row = follow(head, write.event, now)
        rows.append(row)
        head = head_of(row)
        for statement, fill in write.statements:
            parameters[statement].append(fill(row))
    connection.execute(_INSERT_AUDIT, [row.columns for row in rows])
    for statement, filled in parameters.items():
        connection.execute(statement, filled)
    return rows


def _read_head(connection: Connection) -> Head:
    found = connection.execute(_HEAD).one_or_none()
    return head_of(Row(*found)) if found else EMPTY


def _describe(preparation: Preparation) -> Event:
    leaf, origin = preparation.leaf, preparation.origin
    return Event(
        Kind.PREPARED,
        {
            "serial": _hexadecimal(leaf.serial),
            "spiffe_id": str(leaf.spiffe_id),
            "dns_names": list(leaf.dns_names),
            "not_before": leaf.validity.not_before.isoformat(),
            "not_after": leaf.validity.not_after.isoformat(),
            "key": leaf.key.digest,
            "tbs": preparation.tbs_digest,
            "issuer": preparation.issuer_key_id,
            "token": origin.token_id,
            "commit": origin.commit,
        },
    )


def _hexadecimal(serial: int) -> str:
    return f"{serial:x}"


def _unavailable(error: SQLAlchemyError) -> StoreUnavailableError:
    cause = getattr(error, "orig", None) or error
    return StoreUnavailableError(f"the store failed: {cause}")
