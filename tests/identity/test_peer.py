"""Which certificates are an identity."""

from __future__ import annotations

import pytest
from cryptography import x509

from garrison.identity.peer import NotAnSvidError, spiffe_id_of
from tests.fakes.certificates import Leaf, Root

ID = "spiffe://mesh.example/ns/shop/sa/web"


def certificate(leaf: Leaf) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Root().pair(leaf).chain)


@pytest.mark.parametrize("leaf", [Leaf(), Leaf(dns=("web.shop",)), Leaf(uris=(ID + "-2",))])
def test_an_svid_has_one_identity(leaf: Leaf) -> None:
    assert str(spiffe_id_of(certificate(leaf))) == leaf.uris[0]


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (Leaf(uris=(ID, "spiffe://mesh.example/ns/shop/sa/other")), "2 URI names"),
        (Leaf(uris=(ID, "https://web.example")), "2 URI names"),
        (Leaf(uris=(ID, ID)), "2 URI names"),
        (Leaf(uris=(), dns=("web.shop",)), "0 URI names"),
        (Leaf(uris=()), r"no extension 2\.5\.29\.17"),
        (Leaf(uris=("https://mesh.example/ns/shop/sa/web",)), "spiffe://"),
        (Leaf(uris=("spiffe://mesh.example",)), "no path"),
        (Leaf(uris=("spiffe://mesh.example/",)), "segment"),
        (Leaf(uris=("spiffe://mesh.example/ns/../sa/web",)), "segment"),
        (Leaf(uris=("spiffe://Mesh.example/ns/shop/sa/web",)), "trust domain"),
        (Leaf(is_ca=True), "sign others"),
        (Leaf(signs_certificates=True), "sign others"),
        (Leaf(signs_data=False), "digitalSignature"),
    ],
)
def test_anything_else_is_none(leaf: Leaf, reason: str) -> None:
    with pytest.raises(NotAnSvidError, match=reason):
        spiffe_id_of(certificate(leaf))
