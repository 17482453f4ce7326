"""Opening the store's SQLite file so that what was committed is there after a power cut."""

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import SQLAlchemyError

from garrison.ca import tables
from garrison.ca.errors import StateRejectedError
from garrison.ca.sql_store import SqlStore

BUSY_TIMEOUT = timedelta(seconds=5)  # for another process, as `ca status`, to let go

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit is on the disk when it returns
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
)


def create_store(file: Path) -> None:
    """Make an empty store."""
    file.touch(mode=0o600, exist_ok=False)
    engine = _engine(file)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        tables.metadata.create_all(connection)
        connection.execute(insert(tables.store_format), {"format": tables.FORMAT})
    engine.dispose()


def open_store(file: Path, clock: Callable[[], datetime]) -> SqlStore:
    """Open a store that `create_store` made. Raises `StateRejectedError`."""
    if not file.is_file():
        raise StateRejectedError(f"{file}: there is no store: `garrison ca init` makes one")
    engine = _engine(file)
    try:
        with engine.connect() as connection:
            found = connection.execute(select(tables.store_format.c.format)).scalars().all()
    except SQLAlchemyError as error:
        engine.dispose()
        raise StateRejectedError(f"{file}: not a store of this CA: {error.args[0]}") from error
    if found != [tables.FORMAT]:
        engine.dispose()
        raise StateRejectedError(f"{file}: a store of format {found}, not {tables.FORMAT}")
    return SqlStore(engine, clock)


def _engine(file: Path) -> Engine:
    timeout = BUSY_TIMEOUT.total_seconds()
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": timeout})
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare_connection(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401, SQLAlchemy's own
    connection.isolation_level = None  # transactions are begun by `_begin`, not by the driver
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
