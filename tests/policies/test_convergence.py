"""What counts as evidence that a commit is enforced."""

from __future__ import annotations

from datetime import UTC, datetime

from garrison.policies.convergence import Census, as_json
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
