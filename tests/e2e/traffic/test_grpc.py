"""gRPC by real clients and servers: calls, streams, refusals and deadlines cross both sidecars.

The client speaks HTTP/2 in the clear by prior knowledge (RFC 9113 section 3.3), the sidecars HTTP/2
in mutual TLS, the last one HTTP/2 in the clear to the application.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Queue

import grpc
import pytest

from tests.e2e.traffic.lab import CALLER, Lab, route, to, traffic_policy
from tests.e2e.traffic.parrot import HANG_SECONDS, Caller, caller, code_of


def client_port(lab: Lab) -> str:
    return f"{lab.mesh.instance(CALLER).address}:9202"


@pytest.fixture(params=["forward proxy", "client port"])
def parrots(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Callers by either door of the sidecar: the one names the service, the other is it."""
    lab.enforce()
    proxy = lab.mesh.instance(CALLER).outbound
    doors = {"forward proxy": (proxy, "parrot.lab"), "client port": (client_port(lab), None)}
    with caller(*doors[request.param]) as parrots:
        yield parrots


def test_a_unary_call_is_answered_with_its_trailers(lab: Lab, parrots: Caller) -> None:
    answer, call = parrots.method("Say").with_call(b"hello")
    trailers = dict(call.trailing_metadata())
    assert (answer, call.code()) == (b"hello", grpc.StatusCode.OK)
    assert trailers["x-parrot"] in lab.parrots


def test_messages_stream_both_ways_while_both_are_open(parrots: Caller) -> None:
    said: Queue[bytes | None] = Queue()
    call = parrots.converse()(iter(said.get, None))
    assert ("x-begun", "yes") in call.initial_metadata()
    for word in (b"one", b"two", b"three" * 50_000):
        said.put(word)
        assert next(call) == word
    said.put(None)
    assert list(call) == []
    assert "x-parrot" in dict(call.trailing_metadata())


def test_an_error_of_the_application_arrives_as_it_is(parrots: Caller) -> None:
    failed = code_of(lambda: parrots.method("Say")(b"fail"))
    assert failed == (grpc.StatusCode.FAILED_PRECONDITION, "no feathers")


def test_a_method_without_permission_is_denied_in_grpc(parrots: Caller) -> None:
    denied = code_of(lambda: parrots.method("Swear")(b"hello"))
    assert denied == (grpc.StatusCode.PERMISSION_DENIED, "inbound/denied")


def test_an_unknown_service_is_told_in_grpc(lab: Lab) -> None:
    with caller(lab.mesh.instance(CALLER).outbound, "payments.bookstore") as nobody:
        told = code_of(lambda: nobody.method("Say")(b"hello"))
    assert told == (grpc.StatusCode.UNIMPLEMENTED, "outbound/unknown-service")


@pytest.mark.parametrize(("callers", "routes", "least"), [(20, "10s", 10), (10, "20s", 10)])
def test_the_application_is_told_the_shorter_deadline(
    lab: Lab, callers: int, routes: str, least: int
) -> None:
    lab.enforce(route(to("parrot", timeouts={"request": routes}), of="parrot"))
    with caller(client_port(lab)) as parrots:
        parrots.method("Say")(b"hello", timeout=callers)
    (told,) = [left for parrot in lab.parrots.values() for left in parrot.remaining]
    assert 0 < told <= least


def test_the_mesh_ends_a_call_at_the_callers_deadline(lab: Lab) -> None:
    """By HTTP/1.1, whose client keeps no deadline of its own and would wait for the mesh."""
    lab.enforce()
    headers = {"content-type": "application/grpc", "grpc-timeout": "300m"}
    with lab.echoes["a"].hold(), lab.echoes["b"].hold(), lab.echoes["c"].hold():
        answer = lab.get(method="POST", **headers)
    assert (answer.status, answer.headers["grpc-status"]) == (200, "4")
    assert answer.headers["x-garrison-code"].endswith("/timeout")


def test_the_routes_limit_is_a_deadline_in_grpc(lab: Lab) -> None:
    """By the mesh or by the application, which is told of it: whoever comes first."""
    lab.enforce(route(to("parrot", timeouts={"request": "300ms"}), of="parrot"))
    with caller(client_port(lab)) as parrots:
        began = time.monotonic()
        code, _ = code_of(lambda: parrots.method("Say")(b"wait", timeout=HANG_SECONDS))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < HANG_SECONDS / 2, "the caller's own deadline ended it"


def test_one_connection_of_a_client_reaches_all_instances(lab: Lab, parrots: Caller) -> None:
    lab.enforce(traffic_policy(of="parrot"))
    calls = [parrots.method("Say").with_call(b"hello")[1] for _ in range(4)]
    assert {dict(call.trailing_metadata())["x-parrot"] for call in calls} == set(lab.parrots)


def test_all_legs_speak_http2(lab: Lab, parrots: Caller) -> None:
    parrots.method("Say")(b"hello")

    def protocols() -> list[str]:
        asked = {"path": "/lab.Parrot/Say", "grpc_status": 0}
        caller = lab.mesh.access_log(CALLER, **asked)
        callees = [
            line for name in ("parrot-a", "parrot-b") for line in lab.access_log(name, **asked)
        ]
        return [line["protocol"] for line in (*caller[-1:], *callees[-1:])]

    lab.mesh.until(lambda: protocols() == ["HTTP/2", "HTTP/2"])
