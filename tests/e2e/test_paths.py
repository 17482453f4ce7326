"""Spellings of a path that another reader might take for a path with other permissions."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.identities import fetched
from tests.e2e.mesh import Mesh
from tests.e2e.tls_judge import connect

# What orders may GET at catalog is /books/:id. Each of these leads, or seems to lead, elsewhere.
REFUSED = (
    "/books/%2e%2e%2fadmin",
    "/books/7%2Fadmin",
    "/books/7%2fadmin",
    "/books/7%5Cadmin",
    "/books\\admin",
    "/books/7%00",
    "/books/\x80",
    "/books/%ff%",
    "/books/7#/admin",
)
ELSEWHERE = (
    "/books/../admin",
    "/books/%2e%2e/admin",
    "/books/%2E%2E/admin",
    "/books/.%2e/admin",
    "//admin",
    "/./admin",
    "/books/7/../../admin",
    "/admin;/books/7",
    "/BOOKS/7",
)
SAME = ("//books//7", "/./books/7", "/x/../books/7", "/books/%37", "/books/7?x=/../admin")


def head(path: str, host: bytes = b"catalog.bookstore") -> bytes:
    target = path.encode("latin-1")
    return b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def orders(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetched(mesh, "bookstore/orders", tmp_path_factory.mktemp("orders"))


def inbound(mesh: Mesh, orders: Path, path: str) -> int:
    return connect(mesh.instance("catalog-1").inbound, orders, head(path)).status


def outbound(mesh: Mesh, path: str) -> int:
    """Send a path through the caller's sidecar as it is, which an HTTP library would mend."""
    host, _, port = mesh.instance("orders-1").outbound.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head(path))
        with connection.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@pytest.mark.parametrize("path", REFUSED)
def test_an_ambiguous_path_is_refused_at_both_ends(mesh: Mesh, orders: Path, path: str) -> None:
    assert (inbound(mesh, orders, path), outbound(mesh, path)) == (400, 400)


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_path_that_leads_elsewhere_is_denied(mesh: Mesh, orders: Path, path: str) -> None:
    assert (inbound(mesh, orders, path), outbound(mesh, path)) == (403, 403)


@pytest.mark.parametrize("path", SAME)
def test_a_path_spelt_otherwise_is_what_the_application_sees(
    mesh: Mesh, orders: Path, path: str
) -> None:
    verdict = connect(mesh.instance("catalog-1").inbound, orders, head(path))
    assert verdict.status == 200
    assert '"path": "/books/7"' in verdict.response


GET = b"GET /books/7 HTTP/1.1\r\n"
POST = b"POST /books/7 HTTP/1.1\r\nHost: catalog.bookstore\r\n"
HEADS = {
    "no host": GET + b"Connection: close\r\n\r\n",
    "two hosts": GET + b"Host: a.b\r\nHost: catalog.bookstore\r\n\r\n",
    "two authorities": head("http://web.bookstore/books/7"),
    "underscore": GET + b"Host: catalog.bookstore\r\nx_forwarded_client_cert: a\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two codings": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("flaw", HEADS)
def test_an_ambiguous_head_is_refused(mesh: Mesh, orders: Path, flaw: str) -> None:
    assert connect(mesh.instance("catalog-1").inbound, orders, HEADS[flaw]).status == 400
