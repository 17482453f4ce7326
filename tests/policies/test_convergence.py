"""What counts as evidence that a commit is enforced."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from garrison.policies.convergence import Census, as_json
from garrison.policies.departures import MAX_GONE, MAX_GONE_OF_ONE_IDENTITY
from garrison.policies.encoded import MARKER
from garrison.policies.snapshot import CLUSTER, EXTENSION
from garrison.xds.client import Acknowledged, Client, Refused

NOW = datetime(2026, 1, 1, tzinfo=UTC)
C1, C2 = "1" * 40, "2" * 40


def client(stream: int, user_agent: str = "garrison-proxy") -> Client:
    return Client(
        stream=stream,
        spiffe_id="spiffe://mesh.example/ns/shop/sa/web",
        certificate_expires_at=NOW,
        node_id=f"web-{stream}",
        user_agent=user_agent,
        metadata={},
        connected_at=NOW,
    )


def census(*clients: Client) -> Census:
    made = Census(lambda: NOW)
    for each in clients:
        made.connected(each)
    return made


def laggards(of: Census, commit: str) -> list[str]:
    return [each.client.node_id for each in of.laggards(commit)]


def test_a_proxy_enforces_the_commit_whose_marker_it_took() -> None:
    one, two = client(1), client(2)
    known = census(one, two)
    assert laggards(known, C1) == ["web-1", "web-2"]
    known.acknowledged(one, Acknowledged(EXTENSION, C1, {MARKER: "v"}))
    assert laggards(known, C1) == ["web-2"]
    known.acknowledged(two, Acknowledged(EXTENSION, C1, {MARKER: "v"}))
    assert laggards(known, C1) == []
    assert laggards(known, C2) == ["web-1", "web-2"]


def test_nothing_less_than_the_marker_is_evidence_of_a_proxy() -> None:
    one = client(1)
    known = census(one)
    known.acknowledged(one, Acknowledged(CLUSTER, C1, {MARKER: "v"}))
    known.acknowledged(one, Acknowledged(EXTENSION, C1, {"authz/shop/web/allow": "v"}))
    known.settled(one, C1)
    known.refused(one, Refused(EXTENSION, C1, {MARKER: "v"}, "no"))
    assert laggards(known, C1) == ["web-1"]


def test_an_envoy_enforces_what_it_has_all_of() -> None:
    one = client(1, "envoy")
    known = census(one)
    known.acknowledged(one, Acknowledged(EXTENSION, C1, {MARKER: "v"}))
    assert laggards(known, C1) == ["web-1"]
    known.settled(one, C1)
    assert laggards(known, C1) == []


def test_a_refusal_is_kept_with_its_reason_and_changes_no_evidence() -> None:
    one = client(1)
    known = census(one)
    known.acknowledged(one, Acknowledged(EXTENSION, C1, {MARKER: "v"}))
    names = {f"shop/{number}": "v" for number in range(100)}
    known.refused(one, Refused(CLUSTER, C2, names, "Cluster.type: not supported"))
    (standing,) = known.standings
    told = as_json(standing, C2)
    assert (told["commit"], told["in_sync"]) == (C1, False)
    assert told["last_nack"] == {
        "commit": C2,
        "type": "Cluster",
        "names": [f"shop/{number}" for number in range(20)],
        "reason": "Cluster.type: not supported",
        "at": NOW.isoformat(),
    }


def test_who_has_left_is_no_laggard() -> None:
    one = client(1)
    known = census(one)
    known.disconnected(one)
    assert laggards(known, C1) == []


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def named(stream: int, node: str, hours: int = 6, identity: str = "web") -> Client:
    return replace(
        client(stream),
        node_id=node,
        spiffe_id=f"spiffe://mesh.example/ns/shop/sa/{identity}",
        certificate_expires_at=NOW + timedelta(hours=hours),
    )


def gone(of: Census) -> list[str]:
    return [each.client.node_id for each in of.gone]


def test_who_went_away_is_told_until_it_is_back() -> None:
    clock = Clock()
    known = Census(clock)
    one, other = named(1, "web-1"), named(2, "web-2")
    for each in (one, other):
        known.connected(each)
    known.acknowledged(one, Acknowledged(EXTENSION, C1, {MARKER: "v"}))
    clock.now += timedelta(minutes=5)
    known.disconnected(one)
    (departure,) = known.gone
    assert (departure.client, departure.commit, departure.at) == (one, C1, clock.now)
    assert departure.as_json()["gone_since"] == "2026-01-01T00:05:00+00:00"
    assert laggards(known, C2) == ["web-2"], "who is gone is no laggard"
    known.connected(named(3, "web-1"))
    assert gone(known) == []


def test_a_client_with_another_stream_is_not_gone() -> None:
    """As when a sidecar opens a new stream, with its new certificate, before the old one ends."""
    known = census(named(1, "web-1"), named(2, "web-1"))
    known.disconnected(named(1, "web-1"))
    assert gone(known) == []
    known.disconnected(named(2, "web-1"))
    assert gone(known) == ["web-1"]


def test_who_is_gone_is_forgotten_with_its_certificate_and_after_an_hour() -> None:
    clock = Clock()
    known = Census(clock)
    for number, hours in ((1, 6), (2, 1)):
        clock.now = NOW + timedelta(minutes=10)
        known.connected(named(number, f"web-{number}", hours))
        known.disconnected(named(number, f"web-{number}", hours))
    assert gone(known) == ["web-1", "web-2"]
    clock.now = NOW + timedelta(minutes=60)
    assert gone(known) == ["web-1"], "the other can serve nobody any more"
    clock.now = NOW + timedelta(minutes=70)
    assert gone(known) == []


def test_the_gone_are_bounded_and_nobody_crowds_the_others_out() -> None:
    known = Census(lambda: NOW)
    made = [named(0, "other", identity="other")]
    made += [named(n, f"web-{n}") for n in range(1, 2 * MAX_GONE)]
    for each in made:
        known.connected(each)
        known.disconnected(each)
    assert len(known.gone) == 1 + MAX_GONE_OF_ONE_IDENTITY
    assert gone(known)[0] == "other"
    assert gone(known)[-1] == made[-1].node_id
    for number in range(2 * MAX_GONE):
        each = named(number, "n", identity=f"i{number}")
        known.connected(each)
        known.disconnected(each)
    assert len(known.gone) == MAX_GONE
