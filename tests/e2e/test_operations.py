"""What an operator does to a running mesh, and what is seen of a request afterwards."""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.application import HELD, Application, standing_in
from tests.e2e.keep_alive import AWAY, get, load
from tests.e2e.mesh import Mesh

BOOK = "http://catalog.bookstore/books/7"
RATING = "http://ratings.bookstore/ratings/7"
ROUTE = "routes/catalog.yaml"
CALLS = 60  # of a load, before and after what happens in it
DRAIN_SECONDS = 60  # longer than any test takes from the signal to the last answer
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def unretried(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh in which a request that an instance may have begun is not sent to another one."""
    before, route = mesh.head(), mesh.stage.policies.read(ROUTE)
    strict = re.sub(r"  annotations:.*?\n(?=spec:)", "", route, flags=re.DOTALL)
    patient, count = re.subn(r"equest: \ds", "equest: 60s", strict)
    assert ("idempotent" in strict, count) == (False, 2)
    mesh.commit_and_wait({ROUTE: patient})
    yield mesh
    mesh.reset(before)


@contextlib.contextmanager
def patient(mesh: Mesh, instance: str) -> Iterator[str]:
    """Restart a sidecar with time to drain; say what its process is called."""
    file, process = mesh.stage.places.settings(instance), f"{instance}.sidecar"
    before = file.read_text()
    file.write_text(re.sub("drain_seconds = .*", f"drain_seconds = {DRAIN_SECONDS}", before))
    mesh.kill(process)
    mesh.start(process)
    try:
        yield process
    finally:
        file.write_text(before)
        mesh.kill(process)
        mesh.start(process)


@contextlib.contextmanager
def held(
    mesh: Mesh, application: Application, caller: str, url: str, count: int = 4
) -> Iterator[list[concurrent.futures.Future[str]]]:
    """Begin requests that run until the application releases them."""
    client = mesh.instance(caller)
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        begun = [threads.submit(get, client, url) for _ in range(count)]
        mesh.until(lambda: application.held() == count)
        try:
            yield begun
        finally:
            application.release.set()


def is_draining(mesh: Mesh, instance: str) -> bool:
    """Claim that a sidecar has heard the signal; its admin door stays open until its end."""
    admin = mesh.instance(instance).admin
    answer = mesh.run(mesh.stage.observer.look(f"http://{admin}/ready"))
    return answer.status == 503 and "draining" in answer.body.decode()


def test_a_callees_sidecar_drains_and_restarts_without_a_failed_request(unretried: Mesh) -> None:
    mesh = unretried
    with (
        patient(mesh, "catalog-1") as sidecar,
        standing_in(mesh, "catalog-1") as first,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        load(mesh.instance("web-1"), BOOK) as calls,
    ):
        mesh.until(lambda: calls.answered > CALLS)
        begun = _one_held(mesh, first, threads)
        ended = mesh.drain(sidecar)
        mesh.until(lambda: is_draining(mesh, "catalog-1"))
        during = calls.answered
        mesh.until(lambda: calls.answered > during + CALLS)
        assert not ended.done(), "it waits for the request that it has"
        first.release.set()
        assert {each.result(DRAIN_SECONDS) for each in begun} == {"200"}
        assert ended.result(DRAIN_SECONDS) == 0
        mesh.start(sidecar)
        restarted = len(first.seen)
        mesh.until(lambda: len(first.seen) > restarted, otherwise="it gets no traffic again")
    assert calls.failures() == {}


def _one_held(
    mesh: Mesh, application: Application, threads: concurrent.futures.Executor
) -> list[concurrent.futures.Future[str]]:
    """Begin requests until the application holds one; other instances answer theirs."""
    begun: list[concurrent.futures.Future[str]] = []
    while not application.held():
        begun.append(threads.submit(get, mesh.instance("web-1"), f"{BOOK}{HELD}"))
        mesh.until(lambda: begun[-1].done() or application.held())
    return begun


def test_a_callers_sidecar_drains_without_a_lost_answer(mesh: Mesh) -> None:
    """Its clients may be refused from then on; whatever was taken is answered."""
    with (
        standing_in(mesh, "ratings-1") as ratings,
        patient(mesh, "web-1") as sidecar,
        load(mesh.instance("web-1"), RATING) as calls,
    ):
        mesh.until(lambda: calls.answered > CALLS)
        with held(mesh, ratings, "web-1", f"{RATING}{HELD}") as begun:
            ended = mesh.drain(sidecar)
            mesh.until(lambda: is_draining(mesh, "web-1"))
            mesh.until(lambda: calls.outcomes[AWAY] > 0)
            assert not ended.done(), "it waits for the requests that it has"
        assert {each.result(DRAIN_SECONDS) for each in begun} == {"200"}
        assert ended.result(DRAIN_SECONDS) == 0
    assert calls.failures() == {}
    assert len(ratings.seen) == calls.answered + len(begun), "an answer was lost"


def logged(mesh: Mesh, instance: str, **fields: object) -> dict[str, Any]:
    """Return the one line of a sidecar's access log that has these values."""
    mesh.until(lambda: mesh.access_log(instance, **fields))
    (line,) = mesh.access_log(instance, **fields)
    return line


def test_a_trace_that_the_caller_began_goes_through(mesh: Mesh) -> None:
    request_id = str(uuid4())
    headers = {
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "tracestate": "vendor=its-own",
        "x-request-id": request_id,
    }
    with standing_in(mesh, "ratings-1") as ratings:
        assert mesh.call("web-1", RATING, headers=headers).status == 200
    (seen,) = ratings.seen
    out = logged(mesh, "web-1", direction="outbound", request_id=request_id)
    into = logged(mesh, "ratings-1", direction="inbound", request_id=request_id)
    assert (out["trace_id"], into["trace_id"]) == (TRACE, TRACE)
    assert (out["parent_id"], into["parent_id"]) == (SPAN, out["span_id"])
    assert len({SPAN, out["span_id"], into["span_id"]}) == 3
    assert seen["traceparent"] == f"00-{TRACE}-{into['span_id']}-01"
    assert seen["tracestate"] == "vendor=its-own"
    assert seen["x-request-id"] == request_id


@pytest.mark.parametrize("given", [None, f"00-{TRACE}-{'0' * 16}-01", "nonsense"])
def test_a_trace_is_started_where_there_is_none(mesh: Mesh, given: str | None) -> None:
    headers = {"traceparent": given, "tracestate": "of=nothing"} if given else {}
    with standing_in(mesh, "ratings-1") as ratings:
        assert mesh.call("web-1", RATING, headers=headers).status == 200
    (seen,) = ratings.seen
    request_id = seen["x-request-id"]
    out = logged(mesh, "web-1", direction="outbound", request_id=request_id)
    into = logged(mesh, "ratings-1", direction="inbound", request_id=request_id)
    assert re.fullmatch("[0-9a-f]{32}", out["trace_id"])
    assert out["trace_id"] not in {TRACE, "0" * 32}
    assert (out["parent_id"], into["parent_id"]) == (None, out["span_id"])
    assert into["trace_id"] == out["trace_id"]
    assert seen["traceparent"].startswith(f"00-{out['trace_id']}-{into['span_id']}-")
    assert "tracestate" not in seen
