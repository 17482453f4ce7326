"""An issuer of tokens for tests: real keys, a JWK Set, tokens as right or wrong as asked for."""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ISSUER = "https://issuer.example"
AUDIENCE = "garrison-ca"
SUBJECT = "system:serviceaccount:shop:web"

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def new_key(algorithm: str) -> Key:
    match algorithm:
        case "RS256" | "PS256":
            return rsa.generate_private_key(65537, 2048)
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class TokenIssuer:
    """Signs with one key."""

    algorithm: str = "ES256"
    kid: str | None = "k1"
    key: Key = field(default_factory=lambda: new_key("ES256"))

    @classmethod
    def of(cls, algorithm: str, kid: str | None = "k1") -> "TokenIssuer":
        return cls(algorithm, kid, new_key(algorithm))

    def jwk(self, **members: object) -> dict[str, object]:
        match self.key:
            case ec.EllipticCurvePrivateKey():
                public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            case rsa.RSAPrivateKey():
                public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            case ed25519.Ed25519PrivateKey():
                public = OKPAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return {**public, **({"kid": self.kid} if self.kid else {}), **members}

    def jwks(self) -> bytes:
        return json.dumps({"keys": [self.jwk()]}).encode()

    def token(self, **claims: object) -> str:
        """Sign good claims changed by `claims`; a claim that is None is left out."""
        return self.sign(json.dumps(good_claims(**claims)).encode())

    def sign(self, payload: bytes, header: dict[str, object] | None = None) -> str:
        kid = {"kid": self.kid} if self.kid else {}
        headers = {"typ": "JWT", "alg": self.algorithm, **kid, **(header or {})}
        return self.sign_raw(json.dumps(headers).encode(), payload)

    def sign_raw(self, header: bytes, payload: bytes) -> str:
        signing_input = f"{base64url(header)}.{base64url(payload)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        signature = algorithm.sign(signing_input.encode(), self.key)
        return f"{signing_input}.{base64url(signature)}"


def good_claims(**changes: object) -> dict[str, object]:
    claims: dict[str, object] = {
        "iss": ISSUER,
        "sub": SUBJECT,
        "aud": AUDIENCE,
        "iat": seconds(NOW),
        "exp": seconds(NOW + timedelta(hours=1)),
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def seconds(time: datetime) -> int:
    return int(time.timestamp())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
