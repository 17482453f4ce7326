"""Timeouts, retries and circuit limits as policy files say them.

Applications that hold a request for ever show what a limit is worth: whatever is answered
meanwhile was answered by the mesh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from garrison.deploy.demo.observer import Answer
from tests.e2e.traffic.lab import Lab, route, to, traffic_policy

# What a sidecar lets a peer have open on one HTTP/2 connection.
STREAMS = 250
ENDLESS = {"request": "0s"}


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers.get("x-garrison-code", "")


@contextlib.contextmanager
def all_held(lab: Lab) -> Iterator[None]:
    with lab.echoes["a"].hold(), lab.echoes["b"].hold(), lab.echoes["c"].hold():
        yield


def held(lab: Lab) -> int:
    return sum(echo.held for echo in lab.echoes.values())


def test_a_request_that_takes_too_long_is_a_504(lab: Lab) -> None:
    lab.enforce(route(to("echo", timeouts={"request": "300ms"})))
    with all_held(lab):
        status, told = code(lab.get())
    assert (status, told.partition("/")[2]) == (504, "timeout")
    assert lab.get().status == 200


def test_an_attempt_that_takes_too_long_is_made_elsewhere(lab: Lab) -> None:
    limits = {"request": "10s", "backendRequest": "300ms"}
    lab.enforce(traffic_policy(), route(to("echo", timeouts=limits), idempotent=True))
    with lab.echoes["a"].hold():
        answered = lab.versions(6)
    assert lab.echoes["a"].seen > 0, "the slow one was never tried"
    assert answered["a"] == 0


def test_without_leave_an_attempt_that_takes_too_long_is_the_only_one(lab: Lab) -> None:
    limits = {"request": "10s", "backendRequest": "300ms"}
    lab.enforce(traffic_policy(), route(to("echo", timeouts=limits)))
    with all_held(lab):
        assert lab.get().status == 504
    assert sum(echo.seen for echo in lab.echoes.values()) == 1


def test_answers_are_retried_by_their_codes(lab: Lab) -> None:
    retry = {"codes": [500], "attempts": 2}
    lab.enforce(traffic_policy(), route(to("echo", retry=retry), idempotent=True))
    lab.echoes["a"].status = 500
    assert lab.versions(6)["a"] == 0
    lab.echoes["a"].status = 503
    statuses = [lab.get().status for _ in range(3)]
    assert sorted(statuses) == [200, 200, 503]


def test_requests_beyond_the_limit_are_refused_at_once(lab: Lab) -> None:
    lab.enforce(traffic_policy(circuit={"maxRequests": 2}), route(to("echo", timeouts=ENDLESS)))
    before = lab.counted("overflows_total")
    with all_held(lab):
        calls = lab.call_at_once(8)
        answers = calls.answers
        lab.mesh.until(lambda: len(answers) == 6 and held(lab) == 2)
        assert {code(answer) for answer in answers} == {(503, "outbound/overflow")}
        assert lab.counted("overflows_total") == before + 6
    calls.finish()
    assert [answer.status for answer in answers[6:]] == [200, 200]
    assert lab.versions(6).total() == 6


def test_requests_that_wait_for_a_connection_are_limited(lab: Lab) -> None:
    """All to one instance, by one connection: as many as it carries, and one that waits."""
    circuit = {"maxConnections": 1, "maxPendingRequests": 1}
    lab.enforce(traffic_policy(circuit=circuit), route(to("echo-a", timeouts=ENDLESS)))
    lab.get()
    before = lab.counted("overflows_total", "lab/echo-a")
    with lab.echoes["a"].hold():
        calls = lab.call_at_once(STREAMS + 4)
        answers = calls.answers
        lab.mesh.until(lambda: len(answers) == 3 and held(lab) == STREAMS)
        assert {code(answer) for answer in answers} == {(503, "outbound/overflow")}
        assert lab.counted("overflows_total", "lab/echo-a") == before + 3
        assert lab.counted("connections", "lab/echo-a") == 1
    calls.finish()
    assert [answer.status for answer in answers[3:]] == [200] * (STREAMS + 1)


def test_a_limit_of_connections_starves_no_instance(lab: Lab) -> None:
    """One connection is not enough for three instances: each may have one all the same."""
    lab.enforce(traffic_policy(circuit={"maxConnections": 1}), route(to("echo-narrow")))
    assert lab.versions(9) == {"a": 3, "b": 3, "c": 3}


def test_retries_have_a_budget(lab: Lab) -> None:
    for echo in lab.echoes.values():
        echo.status = 503
    none = {"retryBudget": {"percent": 1, "minConcurrency": 0}}
    lab.enforce(traffic_policy(circuit=none), route(to("echo"), idempotent=True))
    before = lab.counted("retries_over_budget_total")
    assert lab.get().status == 503
    assert sum(echo.seen for echo in lab.echoes.values()) == 1
    assert lab.counted("retries_over_budget_total") == before + 1
    lab.enforce(traffic_policy(), route(to("echo"), idempotent=True))
    assert lab.get().status == 503
    assert [echo.seen for echo in lab.echoes.values()] in ([2, 1, 1], [1, 2, 1], [1, 1, 2])
