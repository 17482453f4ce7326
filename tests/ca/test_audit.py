"""The audit log's chain: whatever is changed, left out or added shows."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.ca.audit import EMPTY, Event, Kind, Row, follow, format_time, head_of, verify
from garrison.ca.errors import StateRejectedError
from tests.ca.authorities import CaInDirectory

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def chain(length: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(length):
        head = head_of(rows[-1]) if rows else EMPTY
        rows.append(follow(head, Event(Kind.SIGNED, {"serial": str(number)}), NOW))
    return rows


def test_a_whole_chain_verifies_to_its_head() -> None:
    rows = chain(5)
    assert verify(rows) == head_of(rows[-1])
    assert verify([]) == EMPTY
    assert verify(rows[2:], head_of(rows[1])) == head_of(rows[-1])


CHANGES: dict[str, Callable[[list[Row]], list[Row]]] = {
    "a row left out": lambda rows: rows[:1] + rows[2:],
    "the first left out": lambda rows: rows[1:],
    "rows swapped": lambda rows: [rows[0], rows[2], rows[1], *rows[3:]],
    "a row twice": lambda rows: [*rows[:2], rows[1], *rows[2:]],
    "a row changed": lambda rows: [rows[0], replace(rows[1], details="{}"), *rows[2:]],
    "a time changed": lambda rows: [rows[0], replace(rows[1], time=rows[1].time + "0"), *rows[2:]],
    "a row forged at the end": lambda rows: [
        *rows,
        follow(head_of(rows[1]), Event(Kind.SIGNED, {}), NOW),
    ],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_chain_does_not_verify(change: Callable[[list[Row]], list[Row]]) -> None:
    with pytest.raises(StateRejectedError, match="broken after row"):
        verify(change(chain(5)))


def test_what_was_cut_off_shows_by_the_head() -> None:
    rows = chain(5)
    assert verify(rows[:4]) != head_of(rows[-1])


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers(), max_size=3))
def test_details_are_written_in_one_way(details: dict[str, str | int]) -> None:
    backwards = dict(reversed(details.items()))
    first = follow(EMPTY, Event(Kind.FAILED, details), NOW)
    assert follow(EMPTY, Event(Kind.FAILED, backwards), NOW) == first
    assert verify([first]).sequence == 1


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_times_sort_as_text(one: datetime, other: datetime) -> None:
    assert (one < other) == (format_time(one) < format_time(other))
    elsewhere = timezone(timedelta(hours=1))
    if one.year < 9999:
        assert format_time(one.astimezone(elsewhere)) == format_time(one)


@pytest.mark.parametrize("statement", ["UPDATE audit SET kind = 'x'", "DELETE FROM audit"])
def test_the_database_itself_refuses_to_change_it(fresh_ca: CaInDirectory, statement: str) -> None:
    fresh_ca.issue()
    database = sqlite3.connect(fresh_ca.state.path / "ca.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)
    database.close()


def test_a_row_changed_in_the_file_shows(fresh_ca: CaInDirectory) -> None:
    fresh_ca.issue()
    tamper(fresh_ca.state.path / "ca.db", "UPDATE audit SET details = replace(details, 'web', 'x')")
    with pytest.raises(StateRejectedError, match="after row 0"):
        verify(fresh_ca.store.audit_rows())


def tamper(file: Path, statement: str) -> None:
    database = sqlite3.connect(file)
    database.execute("DROP TRIGGER audit_no_update")
    database.execute("DROP TRIGGER audit_no_delete")
    database.execute(statement)
    database.commit()
    database.close()
