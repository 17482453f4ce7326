"""Attestation by a token of an OpenID Connect issuer: a Kubernetes service account's, a CI job's.

JWT as RFC 7519, checked as RFC 8725 advises: the algorithms are pinned by configuration and bound
to keys, the token is one unambiguous pair of JSON objects, and issuer, audience and expiry are
required.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

from garrison.identity.attestation import Attested, TokenRejectedError
from garrison.identity.errors import RejectedError
from garrison.identity.jwks import ALGORITHMS
from garrison.identity.jwks_source import KeySource
from garrison.identity.registration import Selector
from garrison.identity.strict_json import JsonRejectedError, parse_object

MAX_TOKEN_BYTES = 16 * 1024
LEEWAY = timedelta(seconds=10)

_TYPES = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}  # RFC 9068 §2.1
_LAST_SECOND = 250_000_000_000  # year 9892: datetime ends soon after
# No key, nor where to get one, is taken from a token; no extension is understood (RFC 7515 §4).
_REFUSED_HEADERS = {"jku", "jwk", "x5u", "x5c", "crit", "b64", "enc", "zip"}

_SIGNATURES = jwt.PyJWS(algorithms=sorted(ALGORITHMS))


class IssuerRejectedError(RejectedError):
    """The settings of an issuer cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """What a token must say to be of this issuer and meant for us."""

    issuer: str
    audience: str
    algorithms: frozenset[str]

    def __post_init__(self) -> None:
        """Refuse empty names and algorithms that are symmetric, none, or unknown."""
        if not self.issuer or not self.audience:
            raise IssuerRejectedError("an issuer needs a name and an audience")
        unknown = self.algorithms - ALGORITHMS
        if unknown or not self.algorithms:
            wanted = ", ".join(sorted(ALGORITHMS))
            raise IssuerRejectedError(f"algorithms {sorted(unknown)}: wanted are some of {wanted}")


@dataclass(frozen=True, slots=True)
class _Token:
    header: dict[str, object]
    claims: dict[str, object]


class OidcAttestor:
    """Judges the tokens of one issuer."""

    def __init__(
        self, name: str, issuer: Issuer, keys: KeySource, clock: Callable[[], datetime]
    ) -> None:
        """Judge by `keys`, whose `run` somebody else must keep going."""
        self.name = name
        self._issuer = issuer
        self._keys = keys
        self._clock = clock

    def recognizes(self, token: str) -> bool:
        """Claim that the token calls itself this issuer's."""
        try:
            return _split(token).claims.get("iss") == self._issuer.issuer
        except RejectedError:
            return False

    async def attest(self, token: str) -> Attested:
        """Check signature and claims of `token`."""
        parsed = _split(token)
        self._check_signature(token, parsed.header)
        expires_at = _check_claims(parsed.claims, self._issuer, self._clock())
        try:
            selectors = frozenset(
                {
                    Selector(self.name, "iss", self._issuer.issuer),
                    Selector(self.name, "sub", _text(parsed.claims, "sub")),
                }
            )
        except RejectedError as error:
            raise TokenRejectedError(str(error)) from error
        return Attested(selectors, _name_token(token), expires_at)

    def _check_signature(self, token: str, header: dict[str, object]) -> None:
        algorithm, kid = _text(header, "alg"), header.get("kid")
        if algorithm not in self._issuer.algorithms:
            raise TokenRejectedError(f"algorithm {algorithm!r} is not one of this issuer")
        if not isinstance(kid, str | None):
            raise TokenRejectedError("'kid' is not text")
        key = self._keys.keys().find(kid, algorithm)
        if key is None:
            self._keys.want_refresh()
            raise TokenRejectedError(f"no one key {kid!r} for {algorithm} among the issuer's")
        try:
            _SIGNATURES.decode(token, key.key, algorithms=[algorithm])
        except jwt.PyJWTError as error:
            raise TokenRejectedError(f"signature: {error}") from error


def _split(token: str) -> _Token:
    if len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise TokenRejectedError(f"token longer than {MAX_TOKEN_BYTES} bytes, or not ASCII")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004, RFC 7515 §7.1
        raise TokenRejectedError("token is not of three parts")
    try:
        header, claims = (parse_object(_decode(part)) for part in parts[:2])
    except JsonRejectedError as error:
        raise TokenRejectedError(f"token: {error}") from error
    _check_header(header)
    return _Token(header, claims)


def _decode(part: str) -> bytes:
    """Decode base64url without padding, in its one canonical form (RFC 7515 §2)."""
    try:
        decoded = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise TokenRejectedError("token is not base64url") from error
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part.encode():
        raise TokenRejectedError("token is not canonical base64url")
    return decoded


def _check_header(header: dict[str, object]) -> None:
    refused = _REFUSED_HEADERS & header.keys()
    if refused:
        raise TokenRejectedError(f"token has the header members {sorted(refused)}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRejectedError(f"token is of type {kind!r}")


def _check_claims(claims: dict[str, object], issuer: Issuer, now: datetime) -> datetime:
    """Check RFC 7519 §4.1; the answer is when the token ends."""
    if _text(claims, "iss") != issuer.issuer:
        raise TokenRejectedError(f"issuer {claims['iss']!r} is not {issuer.issuer!r}")
    if issuer.audience not in _audiences(claims):
        raise TokenRejectedError(f"audience {claims['aud']!r} is without {issuer.audience!r}")
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise TokenRejectedError("token never expires")
    if expires_at + LEEWAY <= now:
        raise TokenRejectedError(f"token expired at {expires_at.isoformat()}")
    for name in ("nbf", "iat"):
        begins_at = _time(claims, name)
        if begins_at is not None and begins_at - LEEWAY > now:
            raise TokenRejectedError(f"{name!r} is in the future: {begins_at.isoformat()}")
        if begins_at is not None and begins_at > expires_at:
            raise TokenRejectedError(f"{name!r} is after 'exp'")
    return expires_at


def _audiences(claims: dict[str, object]) -> Iterable[str]:
    match claims.get("aud"):
        case str(audience):
            return (audience,)
        case [*audiences] if audiences and all(isinstance(name, str) for name in audiences):
            return [str(name) for name in audiences]
    raise TokenRejectedError("'aud' is neither text nor a list of texts")


def _time(claims: dict[str, object], name: str) -> datetime | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejectedError(f"{name!r} is not a number")
    if not 0 <= value <= _LAST_SECOND:
        raise TokenRejectedError(f"{name!r} is not a time: {value}")
    return datetime.fromtimestamp(value, UTC)


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise TokenRejectedError(f"{name!r} is missing or not text")
    return value


def _name_token(token: str) -> str:
    """Name a token in logs and audit, so that it can be recognized but not used."""
    return hashlib.sha256(token.encode()).hexdigest()[:32]
