"""A server that is reached at the right address with the wrong identity gets no request."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.identities import fetched, spiffe_id
from tests.e2e.mesh import Mesh
from tests.e2e.tls_judge import serving
from tests.fakes.certificates import Leaf, Root


def test_a_server_with_another_services_svid_is_refused(own_mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(own_mesh, "bookstore/ratings", tmp_path)
    own_mesh.kill("payments-1.sidecar")
    with serving(own_mesh.instance("payments-1").inbound, identity):
        answer = own_mesh.call("orders-1", "http://payments.bookstore/charges/7")
    assert (answer.status, answer.code) == (502, "outbound/peer-identity")


def test_a_server_of_a_foreign_authority_is_refused(own_mesh: Mesh, tmp_path: Path) -> None:
    roots = own_mesh.stage.places.roots.read_bytes()
    foreign = Root("bookstore.example").pair(Leaf((spiffe_id("bookstore/payments"),)))
    own_mesh.kill("payments-1.sidecar")
    with serving(own_mesh.instance("payments-1").inbound, foreign.write(tmp_path, roots)):
        answer = own_mesh.call("orders-1", "http://payments.bookstore/charges/7")
    assert (answer.status, answer.code) == (502, "outbound/tls-failed")


def test_a_server_with_the_right_svid_is_called(own_mesh: Mesh, tmp_path: Path) -> None:
    identity = fetched(own_mesh, "bookstore/payments", tmp_path)
    own_mesh.kill("payments-1.sidecar")
    with serving(own_mesh.instance("payments-1").inbound, identity):
        answer = own_mesh.call("orders-1", "http://payments.bookstore/charges/7")
    assert answer.status == 200
    assert answer.body.decode().strip() == f"judge: caller {spiffe_id('bookstore/orders')}"
