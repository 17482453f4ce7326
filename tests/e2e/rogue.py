"""Certificates that no honest authority would issue, and the authorities that would.

Each flaw is one field of `Leaf`: everything else stays as a right SVID has it, so that a refusal
can only be for the flaw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Leaf:
    uris: tuple[str, ...]
    dns: tuple[str, ...] = ()
    starts_in: timedelta = timedelta(minutes=-1)
    lasts: timedelta = timedelta(hours=1)
    """From its start."""
    is_ca: bool = False
    signs_certificates: bool = False
    purposes: tuple[x509.ObjectIdentifier, ...] = BOTH
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)


@dataclass(frozen=True)
class Identity:
    """A leaf with its key, as PEM files want it."""

    chain: bytes
    key: bytes

    def write(self, directory: Path, roots: bytes) -> Path:
        """Lay down svid.pem, key.pem and roots.pem in a directory, made if it is not there."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "svid.pem").write_bytes(self.chain)
        (directory / "key.pem").write_bytes(self.key)
        (directory / "roots.pem").write_bytes(roots)
        return directory


@dataclass(frozen=True)
class Authority:
    """A root that signs leaves directly, whatever they say."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()
    """What stands in a leaf's chain after this authority's own certificate, the root left out."""
    in_chain: bool = False

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, leaf: Leaf) -> Identity:
        certificate = self._sign(leaf)
        chain = [certificate, *([self.certificate] if self.in_chain else []), *self.above]
        key = leaf.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Identity(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain), key)

    def _sign(self, leaf: Leaf) -> x509.Certificate:
        starts = datetime.now(UTC) + leaf.starts_in
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in leaf.uris]
        names += [x509.DNSName(name) for name in leaf.dns]
        issuer_key = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(leaf.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(starts)
            .not_valid_after(starts + leaf.lasts)
            .add_extension(x509.BasicConstraints(leaf.is_ca, None), critical=True)
            .add_extension(key_usage(signs_certificates=leaf.signs_certificates), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key.value),
                critical=False,
            )
        )
        if leaf.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(leaf.purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self.key, hashes.SHA256())


def new_authority(trust_domain: str, name: str = "rogue") -> Authority:
    """Make a self-signed root for a trust domain that it may have no right to."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Make the usage of a leaf, or of an authority."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
