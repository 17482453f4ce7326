"""The issuing key at work: it signs what was linted and recorded, under an issuer that is valid.

`Authority.draft` lays a certificate out and tells the digest of the bytes to be signed; the audit
row with that digest gives a `Receipt`; `Authority.sign` wants both and compares. There is no other
way to the key.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spiffe import TrustDomain

from garrison.ca.audit import Receipt
from garrison.ca.csr import encode_key
from garrison.ca.errors import CsrRejectedError, IssuerUnavailableError, StateRejectedError
from garrison.ca.keys import SigningKey
from garrison.ca.lint import lint_leaf
from garrison.ca.profile import (
    ISSUING_CONSTRAINTS,
    ROOT_CONSTRAINTS,
    Leaf,
    Signer,
    Validity,
    leaf_certificate,
)

BACKDATE = timedelta(seconds=60)  # for clocks that are behind ours
SERIAL_BITS = 136  # of randomness; RFC 5280 §4.1.2.2 has room for 159 in all


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate that was laid out and linted, and the digest of its bytes to be signed."""

    leaf: Leaf
    layout: x509.CertificateBuilder
    tbs_digest: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A certificate that may be signed, and the proof that it was recorded."""

    draft: Draft
    receipt: Receipt


class Authority:
    """One issuing key with its chain."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        key: SigningKey,
        issuing: x509.Certificate,
        root: x509.Certificate,
    ) -> None:
        """Check that key and chain belong together. Raises `StateRejectedError`."""
        _check_chain(trust_domain, key, issuing, root)
        self.trust_domain = trust_domain
        self.issuing = issuing
        self.root = root
        self.own_keys = frozenset({_key_of(issuing), _key_of(root)})
        self._key = key
        self._throw_away = SigningKey.generate(key.key_type)
        self._signer = Signer.of(issuing)

    @property
    def key_id(self) -> str:
        """The issuing key's identifier, as leafs point to it."""
        return self._signer.key_identifier.hex()

    @property
    def not_after(self) -> datetime:
        """When the first certificate of the chain expires."""
        return min(self.issuing.not_valid_after_utc, self.root.not_valid_after_utc)

    def validity(self, now: datetime, ttl: timedelta) -> Validity:
        """Tell from when to when a leaf may be valid that is to live for `ttl` from `now`.

        Raises `IssuerUnavailableError` if no leaf may be signed now, `CsrRejectedError` if `ttl` is
        less than a second.
        """
        self._check_time(now)
        second = now.replace(microsecond=0)
        not_after = min(second + ttl, self.not_after).replace(microsecond=0)
        if not_after <= second:
            raise CsrRejectedError("a certificate has to live for a second or more")
        return Validity(max(second - BACKDATE, self.issuing.not_valid_before_utc), not_after)

    def draft(self, leaf: Leaf, longest: timedelta) -> Draft:
        """Lay `leaf` out, sign it with a throw-away key and judge the result.

        Raises `IssuerUnavailableError` if it is not as it must be.
        """
        layout = leaf_certificate(leaf, self._signer)
        trial = self._throw_away.sign(layout)
        problems = lint_leaf(trial, leaf, self.issuing, longest + BACKDATE)
        if problems:
            raise IssuerUnavailableError(f"lint: {', '.join(problems)} of {leaf.spiffe_id}")
        return Draft(leaf, layout, _tbs_digest(trial))

    def sign(self, prepared: Prepared, now: datetime) -> x509.Certificate:
        """Sign what was prepared. Raises `IssuerUnavailableError`."""
        self._check_time(now)
        certificate = self._key.sign(prepared.draft.layout)
        if _tbs_digest(certificate) != prepared.receipt.tbs_digest:
            raise IssuerUnavailableError("the certificate is not the one that was recorded")
        return certificate

    def _check_time(self, now: datetime) -> None:
        for name, certificate in (("issuing", self.issuing), ("root", self.root)):
            begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            if not begins <= now < ends:
                raise IssuerUnavailableError(
                    f"the {name} certificate is valid from {begins} to {ends}, and it is {now}: "
                    "nothing is signed under it"
                )


def new_serial() -> int:
    """Draw a serial that nobody can guess or has met; all have the same length."""
    return 1 << SERIAL_BITS | secrets.randbits(SERIAL_BITS)


def _tbs_digest(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest()


def _key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_chain(
    trust_domain: TrustDomain, key: SigningKey, issuing: x509.Certificate, root: x509.Certificate
) -> None:
    if _key_of(issuing) != encode_key(key.public):
        raise StateRejectedError("the issuing certificate is not of the issuing key")
    try:
        issuing.verify_directly_issued_by(root)
        root.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise StateRejectedError("the chain from issuing certificate to root is broken") from error
    for certificate, constraints in ((issuing, ISSUING_CONSTRAINTS), (root, ROOT_CONSTRAINTS)):
        _check_signer(certificate, constraints, trust_domain)


def _check_signer(
    certificate: x509.Certificate, constraints: x509.BasicConstraints, trust_domain: TrustDomain
) -> None:
    subject = certificate.subject.rfc4514_string()
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise StateRejectedError(f"{subject}: not a signing certificate") from error
    if found != constraints:
        raise StateRejectedError(f"{subject}: {found}, not {constraints}")
    own = names.get_values_for_type(x509.UniformResourceIdentifier)
    if own != [trust_domain.as_spiffe_id()]:
        raise StateRejectedError(
            f"{subject} is of {', '.join(own)}, but trust_domain is {trust_domain}: "
            "correct that, or name another state directory"
        )
