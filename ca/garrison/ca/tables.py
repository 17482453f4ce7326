"""The tables of the store, in types that SQLite and PostgreSQL share.

Serials are hexadecimal text (a 136-bit number fits no integer column), times are seconds since 1970
where they are compared and ISO 8601 text in the audit log, where they are hashed.
"""

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
)

FORMAT = 1  # of all tables; another one is refused

metadata = MetaData()

store_format = Table("store_format", metadata, Column("format", Integer, primary_key=True))

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("details", Text, nullable=False),
    Column("previous", String(64), nullable=False, unique=True),  # the chain has no branches
    Column("hash", String(64), nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # never the same twice
    Column("spiffe_id", String(2048), nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("audit_sequence", BigInteger, ForeignKey("audit.sequence"), nullable=False),
    Column("is_signed", Integer, nullable=False),
)
Index("certificates_in_use", certificates.c.not_after, certificates.c.spiffe_id)

entries = Table(
    "entries",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("commit", String(64), nullable=False),
    Column("content", Text, nullable=False),  # a JSON list
)

bundles = Table(
    "bundles",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", String(64), nullable=False),
)

for _verb in ("UPDATE", "DELETE"):
    event.listen(
        audit,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy's own
            f"CREATE TRIGGER audit_no_{_verb.lower()} BEFORE {_verb} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
