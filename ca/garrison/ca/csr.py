"""What is taken of a certificate request: its key, and the proof that the caller holds it.

PKCS#10 (RFC 2986). Subject, names and extensions that the request asks for are not read, let alone
copied: who the caller is was proved otherwise. A key is taken by the same rules that public CAs
follow for their subscribers (CA/Browser Forum Baseline Requirements §6.1.1.3, §6.1.5, §6.1.6).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from garrison.ca.errors import CsrRejectedError

MAX_CSR_BYTES = 16 * 1024
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 4096
RSA_EXPONENT = 65537

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key that is fit for a certificate and was proved to be the caller's (or is our own).

    `der` is the SubjectPublicKeyInfo by which keys are compared.
    """

    public: PublicKey
    der: bytes

    @classmethod
    def of(cls, public: PublicKey) -> Self:
        """Take a key that was checked."""
        return cls(public, encode_key(public))

    @property
    def digest(self) -> str:
        """The SHA-256 of `der`, by which records name a key."""
        return hashlib.sha256(self.der).hexdigest()


def parse_csr(pem: str, refused_keys: Collection[bytes]) -> SubjectKey:
    """Take the key of a PEM request whose signature it verifies.

    `refused_keys` are the DER of keys that nobody may have certified: the CA's own.
    Raises `CsrRejectedError`.
    """
    if len(pem) > MAX_CSR_BYTES:
        raise CsrRejectedError(f"the CSR is longer than {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = _check_key(request.public_key())
        is_held = request.is_signature_valid
    except CsrRejectedError:
        raise
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise CsrRejectedError("the CSR is not a PEM request with a key of a known kind") from error
    if not is_held:
        raise CsrRejectedError("the CSR is not signed by its own key")
    if key.der in refused_keys:
        raise CsrRejectedError("the CSR has a key of the CA")
    return key


def encode_key(public: PublicKey) -> bytes:
    """Encode a key as SubjectPublicKeyInfo, DER."""
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_key(public: object) -> SubjectKey:
    match public:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1()):
            return SubjectKey.of(public)
        case ec.EllipticCurvePublicKey():
            raise CsrRejectedError(f"curve {public.curve.name}: P-256 or P-384 is wanted")
        case ed25519.Ed25519PublicKey():
            return SubjectKey.of(public)
        case rsa.RSAPublicKey():
            return _check_rsa(public)
    raise CsrRejectedError("the CSR's key is neither ECDSA, Ed25519 nor RSA")


def _check_rsa(public: rsa.RSAPublicKey) -> SubjectKey:
    if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise CsrRejectedError(
            f"an RSA key of {public.key_size} bits: {MIN_RSA_BITS} to {MAX_RSA_BITS} are wanted"
        )
    if public.public_numbers().e != RSA_EXPONENT:
        raise CsrRejectedError(f"an RSA key with another exponent than {RSA_EXPONENT}")
    return SubjectKey.of(public)
