"""A token issuer that stands in for Kubernetes' projected service-account tokens.

On a cluster the kubelet writes a short-lived token into each pod and renews it, and the API server
publishes the keys. Here this does both, into files: tokens are JWTs (RFC 7519) by ES256, keys a
JWK Set (RFC 7517).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

KEY_ID = "stand-in"
TICK = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Mints tokens of one issuer for one audience."""

    issuer: str
    audience: str
    lifetime: timedelta = timedelta(minutes=2)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1()), repr=False
    )

    def write_keys(self, file: Path) -> None:
        """Write the JWK Set that verifies the tokens."""
        public = ECAlgorithm(ECAlgorithm.SHA256).to_jwk(self.key.public_key(), as_dict=True)
        key = {**public, "kid": KEY_ID, "use": "sig", "alg": "ES256"}
        _replace(file, json.dumps({"keys": [key]}))

    def mint(self, subject: str) -> str:
        """Return a token that names `subject` and is good for `lifetime` from now."""
        now = datetime.now(UTC)
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": [self.audience],
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime,
        }
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": KEY_ID})

    def write_token(self, file: Path, subject: str) -> None:
        """Write a fresh token for `subject` in place of the one there."""
        _replace(file, self.mint(subject))

    async def keep_fresh(self, wanted: Callable[[], Mapping[Path, str]]) -> None:
        """Keep in each file a token for its subject, anew at a third of its life, until cancelled.

        `wanted` is asked every `TICK`: who is registered later gets a token too.
        """
        written: dict[Path, float] = {}
        while True:
            stale = time.monotonic() - self.lifetime.total_seconds() / 3
            for file, subject in wanted().items():
                if written.get(file, stale) <= stale:
                    self.write_token(file, subject)
                    written[file] = time.monotonic()
            await asyncio.sleep(TICK.total_seconds())


def _replace(file: Path, text: str) -> None:
    """Write atomically: a reader sees the old token or the new one, whole."""
    fresh = file.with_suffix(".fresh")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        written.write(text)
    fresh.replace(file)
