"""The certificates of a trust domain as data: each bit, and the clause that asks for it.

X509-SVID §2 to §4 on top of RFC 5280. Nothing of a request gets here but its public key. URI name
constraints are not set: common verifiers refuse every chain that has them, so a verifier picks the
bundle by the SVID's own trust domain instead.
"""

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe import SpiffeId, TrustDomain

from garrison.ca.csr import PublicKey, SubjectKey
from garrison.identity.spiffe_id import namespace_and_account, parse_spiffe_id

_MAX_COMMON_NAME = 64  # RFC 5280 appendix A.1, ub-common-name

LEAF_CONSTRAINTS = x509.BasicConstraints(ca=False, path_length=None)  # X509-SVID §4.1
LEAF_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,  # X509-SVID §4.3: must be set, alone suffices for TLS 1.3
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,  # X509-SVID §4.3: must not be set on a leaf
    crl_sign=False,  # X509-SVID §4.3: must not be set on a leaf
    encipher_only=False,
    decipher_only=False,
)
LEAF_PURPOSES = x509.ExtendedKeyUsage(  # X509-SVID §4.4: both, as peers take both roles
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)
SIGNING_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,  # X509-SVID §3.2: a signing certificate authenticates nobody
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,  # X509-SVID §4.3
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
ROOT_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=1)  # X509-SVID §4.1: root, issuing
ISSUING_CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=0)  # RFC 5280 §4.2.1.9: leafs only


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when, both included, in whole seconds (RFC 5280 §4.1.2.5)."""

    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Leaf:
    """An X.509-SVID before it is signed."""

    spiffe_id: SpiffeId
    dns_names: tuple[str, ...]
    key: SubjectKey
    serial: int
    validity: Validity


@dataclass(frozen=True, slots=True)
class Signer:
    """A signing certificate of the trust domain, as the next certificate must point to it."""

    name: x509.Name
    key_identifier: bytes

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Signer":
        """Point to `certificate`."""
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return cls(certificate.subject, found.value.digest)


def leaf_certificate(leaf: Leaf, signer: Signer) -> x509.CertificateBuilder:
    """Lay out an SVID."""
    namespace_and_account(leaf.spiffe_id)  # X509-SVID §3.1: a leaf's ID has a path
    builder = _dated(leaf.serial, leaf.validity, leaf.key.public)
    return (
        builder.subject_name(x509.Name([]))
        .issuer_name(signer.name)
        # X509-SVID §2: exactly one URI; RFC 5280 §4.2.1.6: critical, since the subject is empty.
        .add_extension(_names(leaf.spiffe_id, leaf.dns_names), critical=True)
        .add_extension(LEAF_CONSTRAINTS, critical=True)
        .add_extension(LEAF_KEY_USAGE, critical=True)  # X509-SVID §4.3: critical
        .add_extension(LEAF_PURPOSES, critical=False)
        .add_extension(_identifier(leaf.key.public), critical=False)
        .add_extension(_points_to(signer.key_identifier), critical=False)
    )


def root_certificate(
    trust_domain: TrustDomain, key: PublicKey, serial: int, validity: Validity
) -> x509.CertificateBuilder:
    """Lay out a self-signed root."""
    name = _authority_name("root", trust_domain, serial)
    builder = _dated(serial, validity, key).subject_name(name).issuer_name(name)
    return _signing(builder, trust_domain, key, ROOT_CONSTRAINTS)


def issuing_certificate(
    trust_domain: TrustDomain, key: PublicKey, serial: int, validity: Validity, signer: Signer
) -> x509.CertificateBuilder:
    """Lay out the certificate of the key that signs leafs."""
    name = _authority_name("issuing", trust_domain, serial)
    builder = _dated(serial, validity, key).subject_name(name).issuer_name(signer.name)
    signing = _signing(builder, trust_domain, key, ISSUING_CONSTRAINTS)
    return signing.add_extension(_points_to(signer.key_identifier), critical=False)


def _signing(
    builder: x509.CertificateBuilder,
    trust_domain: TrustDomain,
    key: PublicKey,
    constraints: x509.BasicConstraints,
) -> x509.CertificateBuilder:
    # X509-SVID §3.2, SPIFFE-ID §3.1: the authority carries the trust domain's ID, without a path.
    own_id = parse_spiffe_id(trust_domain.as_spiffe_id())
    return (
        builder.add_extension(_names(own_id, ()), critical=False)
        .add_extension(constraints, critical=True)  # RFC 5280 §4.2.1.9
        .add_extension(SIGNING_KEY_USAGE, critical=True)  # X509-SVID §4.3
        .add_extension(_identifier(key), critical=False)  # RFC 5280 §4.2.1.2
    )


def _dated(serial: int, validity: Validity, key: PublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(serial)
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .public_key(key)
    )


def _names(spiffe_id: SpiffeId, dns_names: tuple[str, ...]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(str(spiffe_id)), *map(x509.DNSName, dns_names)]
    )


def _identifier(key: PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _points_to(key_identifier: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_identifier, None, None)  # RFC 5280 §4.2.1.1


def _authority_name(role: str, trust_domain: TrustDomain, serial: int) -> x509.Name:
    """Name a signer so that no two have one name: chains are built by names."""
    suffix = f" {role} {serial & 0xFFFF_FFFF:08x}"
    common_name = trust_domain.name[: _MAX_COMMON_NAME - len(suffix)] + suffix
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
