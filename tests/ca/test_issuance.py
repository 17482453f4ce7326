"""A certificate is released only after what it says was linted and recorded."""

import ast
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

import garrison.ca
from garrison.ca.audit import Kind, Receipt, details_of, verify
from garrison.ca.authority import Prepared, new_serial
from garrison.ca.entries import Entitlement
from garrison.ca.errors import CsrRejectedError, IssuerUnavailableError, StoreUnavailableError
from garrison.ca.issuance import Issuance
from garrison.ca.profile import Leaf
from garrison.ca.store import Preparation
from garrison.identity.errors import RejectedError
from garrison.identity.spiffe_id import parse_spiffe_id
from tests.ca.authorities import LIFETIMES, WEB, CaInDirectory, leaf_of, open_ca, web_order

HOUR = timedelta(hours=1)
AGES = datetime(2200, 1, 1, tzinfo=UTC)


def life_of(ca: CaInDirectory, ttl: timedelta, entitled: timedelta | None = None) -> timedelta:
    order = web_order(ttl=ttl, entitlement=Entitlement(WEB, (), entitled))
    return leaf_of(ca.issue(order)).not_valid_after_utc - ca.clock()


@pytest.mark.parametrize(
    ("requested", "entitled", "given_life"),
    [
        (timedelta(0), None, 6 * HOUR),
        (HOUR, None, HOUR),
        (24 * HOUR, None, 24 * HOUR),
        (25 * HOUR, None, 24 * HOUR),
        (timedelta(days=36500), None, 24 * HOUR),
        (timedelta(0), HOUR, HOUR),
        (6 * HOUR, HOUR, HOUR),
        (timedelta(0), 100 * HOUR, 24 * HOUR),
        (timedelta(seconds=20), HOUR, timedelta(seconds=20)),
    ],
)
def test_a_lifetime_is_clamped(
    shared_ca: CaInDirectory,
    requested: timedelta,
    entitled: timedelta | None,
    given_life: timedelta,
) -> None:
    assert given_life - timedelta(seconds=3) < life_of(shared_ca, requested, entitled) <= given_life


@pytest.mark.parametrize("seconds", [-1, -(2**40), 0.4])
def test_a_lifetime_that_is_none_is_refused(shared_ca: CaInDirectory, seconds: float) -> None:
    with pytest.raises(CsrRejectedError):
        shared_ca.issue(web_order(ttl=timedelta(seconds=seconds)))


def test_a_leaf_never_outlives_its_issuer(fresh_ca: CaInDirectory) -> None:
    ends = fresh_ca.authority.issuing.not_valid_after_utc
    fresh_ca.clock.offset = ends - fresh_ca.clock() - HOUR
    assert leaf_of(fresh_ca.issue()).not_valid_after_utc == ends


@pytest.mark.parametrize("side", ["after", "before"])
def test_nothing_is_signed_under_an_issuer_out_of_its_time(
    fresh_ca: CaInDirectory, side: str
) -> None:
    issuing = fresh_ca.authority.issuing
    fresh_ca.clock.offset = (
        issuing.not_valid_after_utc - fresh_ca.clock()
        if side == "after"
        else issuing.not_valid_before_utc - fresh_ca.clock() - timedelta(seconds=1)
    )
    with pytest.raises(IssuerUnavailableError, match="nothing is signed"):
        fresh_ca.issue()
    assert fresh_ca.store.audit_head().sequence == 0


def test_the_row_is_there_before_the_signature(fresh_ca: CaInDirectory) -> None:
    """A crash in the signing step leaves the preparation recorded, and no certificate."""

    class Killed(BaseException):
        pass

    def die(prepared: Prepared, _: datetime) -> x509.Certificate:
        (row,) = fresh_ca.store.audit_rows()
        assert row.sequence == prepared.receipt.sequence
        raise Killed

    fresh_ca.authority.sign = die  # type: ignore[assignment, method-assign]  # stands in for a kill -9 there
    issuance = Issuance(fresh_ca.authority, fresh_ca.store, LIFETIMES, fresh_ca.clock)
    with pytest.raises(Killed):
        issuance.issue(web_order())
    fresh_ca.store.close()
    again = open_ca(fresh_ca.state)
    assert [row.kind for row in again.store.audit_rows()] == [Kind.PREPARED.value]
    assert again.store.live_identities(again.clock()) == []
    assert again.issue().audit_sequence == 2


def test_a_failed_signature_is_recorded_as_such(fresh_ca: CaInDirectory) -> None:
    times = iter([fresh_ca.clock(), fresh_ca.clock() + timedelta(days=400)])
    issuance = Issuance(fresh_ca.authority, fresh_ca.store, LIFETIMES, lambda: next(times))
    with pytest.raises(IssuerUnavailableError):
        issuance.issue(web_order())
    assert [row.kind for row in fresh_ca.store.audit_rows()] == [
        Kind.PREPARED.value,
        Kind.FAILED.value,
    ]


def test_what_is_signed_is_what_was_recorded(shared_ca: CaInDirectory) -> None:
    """With a receipt for one certificate no other can be had."""
    authority, now = shared_ca.authority, shared_ca.clock()
    order = web_order()
    leaf = Leaf(WEB, (), order.key, new_serial(), authority.validity(now, HOUR))
    draft = authority.draft(leaf, LIFETIMES.maximum)
    preparation = Preparation(leaf, draft.tbs_digest, authority.key_id, order.origin)
    receipt = shared_ca.store.record_prepared(preparation)
    assert authority.sign(Prepared(draft, receipt), now)
    admin = replace(leaf, spiffe_id=parse_spiffe_id("spiffe://example.org/ns/shop/sa/admin"))
    other = authority.draft(admin, LIFETIMES.maximum)
    for wrong in (Prepared(other, receipt), Prepared(draft, Receipt(1, "", "0" * 64))):
        with pytest.raises(IssuerUnavailableError, match="recorded"):
            authority.sign(wrong, now)


def test_the_audit_log_tells_what_was_signed(fresh_ca: CaInDirectory) -> None:
    issued = fresh_ca.issue(web_order(entitlement=Entitlement(WEB, ("web.shop",))))
    leaf = leaf_of(issued)
    prepared, signed = fresh_ca.store.audit_rows()
    (details,) = details_of([prepared], Kind.PREPARED)
    assert (prepared.sequence, prepared.hash) == (issued.audit_sequence, issued.audit_hash)
    assert details["serial"] == f"{leaf.serial_number:x}"
    assert details["spiffe_id"] == str(WEB)
    assert details["dns_names"] == ["web.shop"]
    assert details["not_after"] == leaf.not_valid_after_utc.isoformat()
    assert details["token"] == "token-1"
    assert details["commit"] == "c0ffee"
    assert details["tbs"] == hashlib.sha256(leaf.tbs_certificate_bytes).hexdigest()
    (outcome,) = details_of([signed], Kind.SIGNED)
    assert outcome["serial"] == details["serial"]
    assert verify(fresh_ca.store.audit_rows()) == fresh_ca.store.audit_head()


def test_without_the_store_nothing_is_issued(fresh_ca: CaInDirectory) -> None:
    database = fresh_ca.state.path / "ca.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER audit_no_update")
        connection.exec_driver_sql("DROP TABLE certificates")
    engine.dispose()
    with pytest.raises(StoreUnavailableError):
        fresh_ca.issue()
    assert fresh_ca.store.audit_head().sequence == 0


def test_a_serial_is_never_taken_twice(fresh_ca: CaInDirectory) -> None:
    order = web_order()
    leaf = Leaf(
        WEB, (), order.key, new_serial(), fresh_ca.authority.validity(fresh_ca.clock(), HOUR)
    )
    preparation = Preparation(leaf, "0" * 64, "", order.origin)
    fresh_ca.store.record_prepared(preparation)
    with pytest.raises(StoreUnavailableError, match="UNIQUE"):
        fresh_ca.store.record_prepared(preparation)
    assert fresh_ca.store.audit_head().sequence == 1


def test_a_million_serials_are_all_different() -> None:
    serials = {new_serial() for _ in range(1_000_000)}
    assert len(serials) == 1_000_000
    assert {serial.bit_length() for serial in serials} == {137}


def test_many_threads_share_one_chain(fresh_ca: CaInDirectory) -> None:
    barrier = threading.Barrier(8)

    def issue(_: int) -> int:
        barrier.wait(timeout=10)
        return fresh_ca.issue().audit_sequence

    with ThreadPoolExecutor(8) as pool:
        sequences = list(pool.map(issue, range(64)))
    assert len(set(sequences)) == 64
    assert verify(fresh_ca.store.audit_rows()).sequence == 128
    (live,) = fresh_ca.store.live_identities(fresh_ca.clock())
    assert (live.spiffe_id, live.certificates) == (str(WEB), 64)


def test_a_clock_that_went_back_stops_issuance(fresh_ca: CaInDirectory) -> None:
    fresh_ca.clock.offset = HOUR
    fresh_ca.issue()
    fresh_ca.clock.offset = HOUR - timedelta(minutes=4)
    fresh_ca.issue()
    fresh_ca.clock.offset = timedelta(minutes=50)
    with pytest.raises(IssuerUnavailableError, match="clock went back"):
        fresh_ca.issue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda leaf: replace(leaf, serial=7),
        lambda leaf: replace(leaf, validity=replace(leaf.validity, not_after=AGES)),
    ],
)
def test_lint_stops_a_certificate_that_the_profile_must_not_make(
    shared_ca: CaInDirectory, spoil: Callable[[Leaf], Leaf]
) -> None:
    validity = shared_ca.authority.validity(shared_ca.clock(), HOUR)
    leaf = Leaf(WEB, (), web_order().key, new_serial(), validity)
    assert shared_ca.authority.draft(leaf, LIFETIMES.maximum)
    with pytest.raises(IssuerUnavailableError, match="lint"):
        shared_ca.authority.draft(spoil(leaf), LIFETIMES.maximum)


@given(st.from_regex(r"spiffe://[a-z0-9.]{1,20}(/[a-zA-Z0-9.-]{1,8}){0,5}", fullmatch=True))
def test_only_workloads_get_leafs(shared_ca: CaInDirectory, text: str) -> None:
    try:
        spiffe_id = parse_spiffe_id(text)
    except RejectedError:
        return
    parts = text.split("/")
    is_workload = len(parts) == 7 and (parts[3], parts[5]) == ("ns", "sa")
    try:
        issued = shared_ca.issue(web_order(entitlement=Entitlement(spiffe_id)))
    except RejectedError:
        assert not is_workload
    else:
        assert is_workload
        assert issued.leaf.spiffe_id == spiffe_id


def test_the_key_is_used_in_one_place() -> None:
    """`Authority.sign` is called by `issue` alone; no other module signs anything."""
    calls = set()
    for file in Path(garrison.ca.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "sign":
                calls.add((file.stem, ast.unparse(node)))
    assert calls == {
        ("keys", "certificate.sign"),
        ("authority", "self._key.sign"),
        ("authority", "self._throw_away.sign"),
        ("issuance", "self.authority.sign"),
        ("state", "root_key.sign"),
    }
