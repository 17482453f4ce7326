"""Certificates as no CA of ours would make them, beside proper ones.

Each flaw is one field of `Leaf`: everything else stays as a right SVID has it, so that a refusal
can only be for the flaw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MINUTE = timedelta(minutes=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Leaf:
    """What a leaf is to say; the defaults make a proper SVID.

    age: how long ago its life began; lifetime: how long it lasts from now. Either may be negative.
    """

    uris: tuple[str, ...] = ("spiffe://mesh.example/ns/shop/sa/web",)
    dns: tuple[str, ...] = ()
    lifetime: timedelta = timedelta(hours=1)
    age: timedelta = MINUTE
    is_ca: bool = False
    signs_certificates: bool = False
    signs_data: bool = True
    purposes: tuple[x509.ObjectIdentifier, ...] = BOTH


@dataclass(frozen=True)
class Pair:
    """A key and its chain, in PEM."""

    key: bytes
    chain: bytes

    def write(self, directory: Path, roots: bytes) -> Path:
        """Lay down svid.pem, key.pem and roots.pem in a directory, made if it is not there."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "svid.pem").write_bytes(self.chain)
        (directory / "key.pem").write_bytes(self.key)
        (directory / "roots.pem").write_bytes(roots)
        return directory


@dataclass(frozen=True)
class Root:
    """A trust domain's signing authority: self-signed, or by `issuing` with a stolen key."""

    trust_domain: str = "mesh.example"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    issuing: x509.Certificate | None = None
    """Whose leaves these shall seem to be; it goes into their chains."""

    @cached_property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @cached_property
    def certificate(self) -> x509.Certificate:
        usage = _usage(signs_certificates=True, signs_data=False)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}")
        now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return (
            x509.CertificateBuilder(serial_number=1)
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self.key.public_key())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=10))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(self._key_identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pair(self, leaf: Leaf | None = None) -> Pair:
        """Make a key and a certificate for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = [self.sign(key.public_key(), leaf or Leaf())]
        if self.issuing:
            chain.append(self.issuing)
        return Pair(pem, b"".join(each.public_bytes(Encoding.PEM) for each in chain))

    def sign(self, key: ec.EllipticCurvePublicKey, leaf: Leaf) -> x509.Certificate:
        start = datetime.now(UTC) - leaf.age
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in leaf.uris]
        names += [x509.DNSName(name) for name in leaf.dns]
        builder = (
            x509.CertificateBuilder(serial_number=x509.random_serial_number())
            .subject_name(x509.Name([]))
            .issuer_name(self.issuing.subject if self.issuing else self._name)
            .public_key(key)
            .not_valid_before(start)
            .not_valid_after(start + leaf.age + leaf.lifetime)
            .add_extension(x509.BasicConstraints(ca=leaf.is_ca, path_length=None), critical=True)
            .add_extension(
                _usage(signs_certificates=leaf.signs_certificates, signs_data=leaf.signs_data),
                critical=True,
            )
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            self._key_identifier
        )
        builder = builder.add_extension(issuer, critical=False)
        if leaf.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(leaf.purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self.key, hashes.SHA256())

    @property
    def _key_identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())

    @property
    def _name(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.trust_domain)])


def _usage(*, signs_certificates: bool, signs_data: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs_data,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
