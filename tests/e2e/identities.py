"""Identities for tests: rightly had from the CA, or signed behind its back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509 import load_pem_x509_certificate

from garrison.deploy.demo.settings_files import Places
from garrison.identity.certificate_client import CaAccess, CertificateClient
from garrison.identity.trust import Trust
from tests.e2e.mesh import Mesh
from tests.fakes.certificates import Pair, Root


def spiffe_id(identity: str) -> str:
    """Spell NAMESPACE/ACCOUNT of the example's trust domain out."""
    namespace, _, account = identity.partition("/")
    return f"spiffe://bookstore.example/ns/{namespace}/sa/{account}"


def fetched(mesh: Mesh, identity: str, directory: Path, svid_seconds: int = 3600) -> Path:
    """Ask the CA for an SVID with that identity's token; return the directory of its files."""
    places = mesh.stage.places
    access = CaAccess(
        address=places.ca,
        roots=places.roots,
        token=places.token(identity),
        svid_seconds=svid_seconds,
    )
    svid = asyncio.run(CertificateClient(access, Trust(places.roots)).create())
    chain = b"".join(
        certificate.public_bytes(serialization.Encoding.PEM) for certificate in svid.cert_chain
    )
    key = svid.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Pair(key, chain).write(directory, places.roots.read_bytes())


def stolen_authority(mesh: Mesh) -> Root:
    """Take the CA's issuing key, as a thief of its disk and passphrase would."""
    return authority_of(mesh.stage.places, "bookstore.example")


def authority_of(places: Places, trust_domain: str) -> Root:
    """Sign with the key of a stage's CA."""
    state = places.directory / "ca"
    passphrase = (places.directory / "passphrase").read_bytes().strip()
    key = serialization.load_pem_private_key((state / "issuing.key").read_bytes(), passphrase)
    certificate = load_pem_x509_certificate((state / "issuing.pem").read_bytes())
    assert isinstance(key, EllipticCurvePrivateKey)
    return Root(trust_domain, key, certificate)
