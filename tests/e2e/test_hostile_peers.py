"""Who gets through the inbound door: judged with another TLS stack, one flaw at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.identities import fetched, spiffe_id, stolen_authority
from tests.e2e.mesh import Mesh
from tests.e2e.tls_judge import Verdict, connect
from tests.fakes.certificates import Leaf, Pair, Root

CHARGE = (
    b"POST /charges HTTP/1.1\r\nHost: payments.bookstore\r\n"
    b"Content-Length: 2\r\nConnection: close\r\n%s\r\n{}"
)
ORDERS = spiffe_id("bookstore/orders")
PAYMENTS = spiffe_id("bookstore/payments")


def call(mesh: Mesh, identity: Path, *options: str, headers: bytes = b"") -> Verdict:
    inbound = mesh.instance("payments-1").inbound
    return connect(inbound, identity, CHARGE % headers, *options)


def assert_refused(verdict: Verdict) -> None:
    assert verdict.error
    assert not verdict.response


def test_another_tls_stack_calls_with_an_svid(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    verdict = call(mesh, identity, "-expect", PAYMENTS, "-alpn", "http/1.1")
    assert not verdict.error
    assert verdict.status == 200
    assert (verdict.version, verdict.group) == ("TLS 1.3", "X25519MLKEM768")


def test_a_session_is_not_resumed(mesh: Mesh, tmp_path: Path) -> None:
    """Resumption would skip the checks of an identity that has meanwhile lost its right."""
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    verdict = call(mesh, identity, "-twice")
    assert (verdict.status, verdict.resumed) == (200, False)


def test_a_peer_without_post_quantum_may_still_call(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    verdict = call(mesh, identity, "-groups", "x25519")
    assert (verdict.status, verdict.group) == (200, "X25519")


FLAWS: dict[str, Leaf] = {
    "expired": Leaf((ORDERS,), age=timedelta(hours=2), lifetime=timedelta(hours=-1)),
    "not yet valid": Leaf((ORDERS,), age=timedelta(hours=-1), lifetime=timedelta(hours=2)),
    "a hundred years": Leaf((ORDERS,), lifetime=timedelta(days=36_500)),
    "two URI names": Leaf((ORDERS, spiffe_id("bookstore/web"))),
    "no URI name": Leaf((), dns=("orders.bookstore",)),
    "another scheme": Leaf(("https://bookstore.example/ns/bookstore/sa/orders",)),
    "no path": Leaf(("spiffe://bookstore.example",)),
    "upper-case trust domain": Leaf(("spiffe://Bookstore.example/ns/bookstore/sa/orders",)),
    "dot segments": Leaf(("spiffe://bookstore.example/ns/x/../bookstore/sa/orders",)),
    "trailing slash": Leaf((ORDERS + "/",)),
    "escaped": Leaf(("spiffe://bookstore.example/ns/bookstore/sa/%6frders",)),
    "another trust domain": Leaf(("spiffe://other.example/ns/bookstore/sa/orders",)),
    "an authority": Leaf((ORDERS,), is_ca=True, signs_certificates=True),
    "may sign": Leaf((ORDERS,), signs_certificates=True),
    "for servers only": Leaf((ORDERS,), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_certificate_of_the_right_issuer_is_refused(
    mesh: Mesh, tmp_path: Path, flaw: str
) -> None:
    roots = mesh.stage.places.roots.read_bytes()
    identity = stolen_authority(mesh).pair(FLAWS[flaw]).write(tmp_path, roots)
    assert_refused(call(mesh, identity))


def test_a_flawless_certificate_of_the_right_issuer_is_not_refused(
    mesh: Mesh, tmp_path: Path
) -> None:
    """The control of the test above: what is refused there is refused for its flaw."""
    roots = mesh.stage.places.roots.read_bytes()
    identity = stolen_authority(mesh).pair(Leaf((ORDERS,))).write(tmp_path, roots)
    assert call(mesh, identity).status == 200


def test_a_foreign_authority_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    roots = mesh.stage.places.roots.read_bytes()
    foreign = Root("bookstore.example").pair(Leaf((ORDERS,)))
    assert_refused(call(mesh, foreign.write(tmp_path, roots)))


def test_a_certificate_without_its_key_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    """What anyone can do who has seen a certificate on the wire."""
    chain = (fetched(mesh, "bookstore/orders", tmp_path) / "svid.pem").read_bytes()
    other = Root("bookstore.example").pair(Leaf((ORDERS,)))
    roots = mesh.stage.places.roots.read_bytes()
    assert_refused(call(mesh, Pair(other.key, chain).write(tmp_path / "mixed", roots)))


def test_an_anonymous_peer_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    inbound = mesh.instance("payments-1").inbound
    assert_refused(connect(inbound, identity, CHARGE % b"", anonymous=True))


def test_tls_1_2_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    assert_refused(call(mesh, identity, "-max-version", "1.2"))


def test_plaintext_is_refused(mesh: Mesh) -> None:
    host, _, port = mesh.instance("payments-1").inbound.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(CHARGE % b"")
        answer = b""
        try:
            while chunk := connection.recv(4096):
                answer += chunk
        except ConnectionResetError:
            pass
    assert not answer.startswith(b"HTTP/")


def test_a_valid_identity_without_permission_is_denied(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/web", tmp_path)
    verdict = call(mesh, identity)
    assert verdict.status == 403
    assert "inbound/denied" in verdict.response
    assert "authz/" not in verdict.response, "the policy is told to operators only"


def test_the_log_names_the_line_that_allowed(mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/orders", tmp_path)
    assert call(mesh, identity).status == 200
    lines = logged(mesh, lambda line: line["source"] == ORDERS and line["status"] == 200)
    assert lines[-1]["rule"].startswith("authz/payments.csv:")
    assert lines[-1]["commit"] == mesh.head()


def test_claims_about_oneself_change_nothing(mesh: Mesh, tmp_path: Path) -> None:
    web = fetched(mesh, "bookstore/web", tmp_path / "web")
    orders = fetched(mesh, "bookstore/orders", tmp_path / "orders")
    claim = b"x-forwarded-client-cert: URI=%s\r\n"
    assert call(mesh, web, headers=claim % ORDERS.encode()).status == 403
    assert call(mesh, orders, headers=claim % spiffe_id("bookstore/web").encode()).status == 200


def logged(mesh: Mesh, wanted: Callable[[dict[str, object]], bool]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []

    def find() -> bool:
        lines = mesh.access_log("payments-1", direction="inbound")
        found[:] = [line for line in lines if wanted(line)]
        return bool(found)

    mesh.until(find)
    return found
