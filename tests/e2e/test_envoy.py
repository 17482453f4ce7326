"""A stock Envoy in place of our sidecar: the same policy server, the same CA, either end of a call.

Nothing is configured for it but what its bootstrap must know; routes, endpoints, identities and
authorization are the bytes that garrison-proxy gets.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from garrison.deploy.demo.instances import ADMIN_PORT, OUTBOUND_PORT
from tests.e2e.envoy import ControlPlane, Envoy, running_envoy
from tests.e2e.identities import fetched, spiffe_id
from tests.e2e.mesh import Mesh, running_mesh

CALLER_HOST = 150  # the last number of an address that no instance of the example has


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    """A mesh of which this module takes parts away."""
    with running_mesh() as running:
        yield running


@contextmanager
def envoy_beside(
    mesh: Mesh, identity: str, directory: Path, host: str, *, serves: bool
) -> Iterator[Envoy]:
    """Run Envoy on an address, as the sidecar of that identity's application."""
    places = mesh.stage.places
    control = ControlPlane("bookstore.example", places.policy, places.bundles)
    bind = {"outbound": f"{host}:{OUTBOUND_PORT}"}
    if serves:
        bind |= {"inbound": f"{host}:15006", "application": f"{host}:8080"}
    fetched(mesh, identity, directory)
    with running_envoy(directory, f"envoy-{host}", control, bind, f"{host}:{ADMIN_PORT}") as envoy:
        envoy.wait_ready(listeners=len(bind) - serves)
        yield envoy


@pytest.fixture
def caller(mesh: Mesh, tmp_path: Path) -> Iterator[str]:
    """The forward proxy of an Envoy with the identity of orders."""
    host = str(mesh.stage.places.network.host(CALLER_HOST))
    with envoy_beside(mesh, "bookstore/orders", tmp_path, host, serves=False):
        yield f"{host}:{OUTBOUND_PORT}"


@pytest.fixture
def callee(mesh: Mesh, tmp_path: Path) -> Iterator[Envoy]:
    """An Envoy in the place of the sidecar of ratings."""
    host = mesh.instance("ratings-1").address
    mesh.kill("ratings-1.sidecar")
    try:
        with envoy_beside(mesh, "bookstore/ratings", tmp_path, host, serves=True) as envoy:
            yield envoy
    finally:
        mesh.start("ratings-1.sidecar")


def through(proxy: str, url: str, method: str = "GET") -> tuple[int, str]:
    """Call by a forward proxy; return status and body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{proxy}"}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_envoy_calls_garrison(mesh: Mesh, caller: str) -> None:
    status, body = through(caller, "http://catalog.bookstore/books/7")
    assert (status, '"instance": "catalog-' in body) == (200, True)
    source = spiffe_id("bookstore/orders")

    def logged() -> bool:
        return any(
            mesh.access_log(f"catalog-{number}", source=source, status=200) for number in (1, 2, 3)
        )

    mesh.until(logged, otherwise="no callee logged the identity that Envoy called with")


def test_garrison_denies_envoy(caller: str) -> None:
    status, body = through(caller, "http://catalog.bookstore/books/7", "DELETE")
    assert (status, "inbound/denied" in body) == (403, True)


def test_envoy_does_not_know_what_its_identity_may_not_call(caller: str) -> None:
    assert through(caller, "http://ratings.bookstore/ratings/7") == (404, "")


def test_garrison_calls_envoy(mesh: Mesh, callee: Envoy) -> None:
    answer = mesh.call("web-1", "http://ratings.bookstore/ratings/7")
    assert answer.status == 200
    assert callee.counter("http.inbound.downstream_rq_2xx") >= 1


def test_envoy_denies_garrison(mesh: Mesh, callee: Envoy) -> None:
    denied = callee.counter("http.inbound.rbac.denied")
    answer = mesh.call("web-1", "http://ratings.bookstore/ratings/7", "DELETE")
    assert answer.status == 403
    assert callee.counter("http.inbound.rbac.denied") == denied + 1


@pytest.mark.usefixtures("callee")
def test_envoy_follows_commits_and_says_so(mesh: Mesh) -> None:
    before = mesh.head()
    name = f"envoy-{mesh.instance('ratings-1').address}"
    lines = mesh.stage.policies.read("authz/ratings.csv")
    assert mesh.call("web-1", "http://ratings.bookstore/ratings/7").status == 200
    try:
        commit = mesh.commit(
            {"authz/ratings.csv": lines + "p, deny, bookstore/web, bookstore/ratings, any, /*\n"}
        )

        def follows() -> bool:
            clients = mesh.status()["clients"]
            return any(client["node"] == name and client["commit"] == commit for client in clients)

        mesh.until(follows, otherwise="envoy has not acknowledged the commit")
        assert mesh.call("web-1", "http://ratings.bookstore/ratings/7").status == 403
    finally:
        mesh.run(mesh.stage.policies.reset(before))
    mesh.until(lambda: mesh.call("web-1", "http://ratings.bookstore/ratings/7").status == 200)
