"""The public keys of a token issuer: a JWK Set, parsed into keys that know what they may verify.

RFC 7517 and 7518. An algorithm belongs to a key, never to a token: a symmetric key is not taken at
all, so that no public value can ever serve as a secret (RFC 8725 §2.1, §3.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from garrison.identity.errors import RejectedError
from garrison.identity.strict_json import parse_object

MAX_JWKS_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_RSA_BITS = 8192  # beyond it a verification is a burden that an issuer puts on us

RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = RSA_ALGORITHMS | frozenset(CURVE_ALGORITHMS.values()) | {"EdDSA"}

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class JwksRejectedError(RejectedError):
    """A text is no JWK Set that can be used."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key, its name within the set, and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The signing keys of one issuer; never empty."""

    keys: tuple[VerificationKey, ...]

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Find the one key that `kid` names, or without `kid` the only key for `algorithm`."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is not None:
            fitting = [key for key in fitting if key.kid == kid]
        return fitting[0] if len(fitting) == 1 else None


def parse_jwks(text: bytes) -> KeySet:
    """Parse a JWK Set; keys for other uses, unknown or too weak are left out (RFC 7517 §5).

    Raises `JwksRejectedError` or `JsonRejectedError`, also if no key is left.
    """
    if len(text) > MAX_JWKS_BYTES:
        raise JwksRejectedError(f"JWK Set longer than {MAX_JWKS_BYTES} bytes")
    members = parse_object(text).get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise JwksRejectedError(f"no list of at most {MAX_KEYS} 'keys'")
    keys = tuple(key for member in members if (key := _parse_key(member)))
    if not keys:
        raise JwksRejectedError("no key that can be used for signatures")
    _check_names(keys)
    return KeySet(keys)


def _parse_key(member: object) -> VerificationKey | None:
    if not isinstance(member, dict):
        raise JwksRejectedError("a key is not an object")
    if "d" in member:
        raise JwksRejectedError("a key is a private one: its issuer has lost it")
    kid, algorithm = member.get("kid"), member.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        raise JwksRejectedError("a key's 'kid' or 'alg' is not text")
    if not _is_for_signatures(member):
        return None
    try:
        key = jwt.PyJWK(member).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return None
    algorithms = _algorithms(key)
    if algorithm is not None:
        algorithms &= {algorithm}
    return VerificationKey(kid, algorithms, key) if algorithms else None


def _is_for_signatures(member: dict[str, object]) -> bool:
    operations = member.get("key_ops", ["verify"])
    return (
        member.get("kty") in ("RSA", "EC", "OKP")
        and member.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _algorithms(key: object) -> frozenset[str]:
    match key:
        case RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            return RSA_ALGORITHMS
        case EllipticCurvePublicKey() if key.curve.name in CURVE_ALGORITHMS:
            return frozenset({CURVE_ALGORITHMS[key.curve.name]})
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
        case _:
            return frozenset()


def _check_names(keys: Sequence[VerificationKey]) -> None:
    names = [key.kid for key in keys if key.kid is not None]
    if len(set(names)) != len(names):
        raise JwksRejectedError("two keys have one 'kid'")
