"""A token is accepted only if all of it is right; each way to be wrong is refused."""

import asyncio
import hashlib
import hmac
import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from garrison.identity.attestation import (
    Attested,
    AttestorUnavailableError,
    TokenRejectedError,
    attest,
)
from garrison.identity.errors import RejectedError
from garrison.identity.jwks_source import JwksFile
from garrison.identity.oidc import Issuer, IssuerRejectedError, OidcAttestor
from garrison.identity.registration import parse_selector
from tests.identity.tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    SUBJECT,
    TokenIssuer,
    base64url,
    good_claims,
    seconds,
)

GOOD = TokenIssuer()
ALGORITHMS = frozenset({"ES256", "ES384", "RS256", "PS256", "EdDSA"})


def attestor(jwks: Path, algorithms: frozenset[str] = ALGORITHMS) -> OidcAttestor:
    issuer = Issuer(ISSUER, AUDIENCE, algorithms)
    return OidcAttestor("local", issuer, JwksFile(jwks, lambda: 0.0), lambda: NOW)


def judge(attestor: OidcAttestor, token: str) -> Attested:
    return asyncio.run(attest([attestor], token))


@pytest.fixture(scope="module")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "jwks.json"
    path.write_bytes(GOOD.jwks())
    return path


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("kid", ["a", None])
def test_a_good_token_gives_its_issuer_and_subject(
    tmp_path: Path, algorithm: str, kid: str | None
) -> None:
    issuer = TokenIssuer.of(algorithm, kid)
    (tmp_path / "jwks").write_bytes(issuer.jwks())
    attested = judge(attestor(tmp_path / "jwks"), issuer.token())
    assert attested.selectors == {
        parse_selector(f"local:iss:{ISSUER}"),
        parse_selector(f"local:sub:{SUBJECT}"),
    }
    assert attested.expires_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", AUDIENCE]},
        {"nbf": seconds(NOW)},
        {"iat": None},
        {"exp": seconds(NOW) + 0.5},
        {"iat": seconds(NOW) + 9},
    ],
)
def test_what_is_unusual_but_right_is_accepted(jwks: Path, claims: dict[str, object]) -> None:
    assert judge(attestor(jwks), GOOD.token(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": [AUDIENCE, 1]},
        {"aud": {AUDIENCE: 1}},
        {"aud": AUDIENCE.upper()},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a\nb"},
        {"sub": "x" * 2000},
        {"exp": None},
        {"exp": seconds(NOW) - 11},
        {"exp": str(seconds(NOW) + 60)},
        {"exp": True},
        {"exp": 1e300},
        {"exp": -1},
        {"nbf": seconds(NOW) + 60},
        {"nbf": "now"},
        {"iat": seconds(NOW) + 60},
        {"iat": "now"},
    ],
    ids=str,
)
def test_a_wrong_claim_is_refused(jwks: Path, claims: dict[str, object]) -> None:
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), GOOD.token(**claims))


def test_a_forged_token_is_refused(jwks: Path) -> None:
    forged = TokenIssuer(kid=GOOD.kid).token()
    with pytest.raises(TokenRejectedError, match="signature"):
        judge(attestor(jwks), forged)


def test_changed_claims_are_refused(jwks: Path) -> None:
    header, _, signature = GOOD.token().split(".")
    payload = GOOD.token(sub="system:serviceaccount:garrison:policy-server").split(".")[1]
    with pytest.raises(TokenRejectedError, match="signature"):
        judge(attestor(jwks), f"{header}.{payload}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "ES256K", "es256"])
def test_an_algorithm_that_is_not_pinned_is_refused(jwks: Path, algorithm: str) -> None:
    header, payload = base64url(json.dumps({"alg": algorithm}).encode()), GOOD.token().split(".")[1]
    for signature in ("", GOOD.token().split(".")[2]):
        with pytest.raises(TokenRejectedError):
            judge(attestor(jwks), f"{header}.{payload}.{signature}")


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    """The confusion of RS256 with HS256 (RFC 8725 §2.1)."""
    issuer = TokenIssuer.of("RS256")
    (tmp_path / "jwks").write_bytes(issuer.jwks())
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head = base64url(json.dumps({"alg": "HS256", "kid": issuer.kid}).encode())
    body = issuer.token().split(".")[1]
    mac = hmac.new(public, f"{head}.{body}".encode(), hashlib.sha256).digest()
    with pytest.raises(TokenRejectedError, match="HS256"):
        judge(attestor(tmp_path / "jwks"), f"{head}.{body}.{base64url(mac)}")


def test_a_key_does_only_its_own_algorithm(tmp_path: Path) -> None:
    issuer = TokenIssuer.of("RS256")
    (tmp_path / "jwks").write_bytes(json.dumps({"keys": [issuer.jwk(alg="PS256")]}).encode())
    with pytest.raises(TokenRejectedError, match="no one key"):
        judge(attestor(tmp_path / "jwks"), issuer.token())


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "other"},
        {"kid": "../k1"},
        {"kid": ["k1"]},
        {"typ": "wit+jwt"},
        {"typ": None},
        {"crit": []},
        {"b64": True},
        {"jwk": GOOD.jwk()},
        {"jku": "https://evil.example/jwks"},
        {"x5c": []},
    ],
    ids=lambda header: ",".join(header) + str(header.get("typ")),
)
def test_a_wrong_header_is_refused(jwks: Path, header: dict[str, object]) -> None:
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), GOOD.sign(json.dumps(good_claims()).encode(), header))


def test_a_member_twice_is_refused(jwks: Path) -> None:
    body = json.dumps(good_claims()).encode()
    assert judge(attestor(jwks), GOOD.sign(body))
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), GOOD.sign(b'{"sub": "system:admin", ' + body[1:]))
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), GOOD.sign_raw(b'{"alg":"none","alg":"ES256"}', b"{}"))


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c.d", "x" * 20_000, "é.é.é", "e30.e30.e30", "[].[].x"],
    ids=lambda token: token[:10],
)
def test_what_is_no_token_is_refused(jwks: Path, token: str) -> None:
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), token)


@pytest.mark.parametrize("change", ["{}=", "{} ", "{}\n", " {}"])
def test_base64_has_one_form(jwks: Path, change: str) -> None:
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), change.format(GOOD.token()))


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"9" * 5000])
def test_what_is_no_number_is_refused(jwks: Path, number: bytes) -> None:
    body = json.dumps({"iss": ISSUER, "sub": "a", "aud": AUDIENCE, "exp": 1}).encode()
    with pytest.raises(TokenRejectedError):
        judge(attestor(jwks), GOOD.sign(body.replace(b'"exp": 1', b'"exp": ' + number)))


@given(st.one_of(st.text(max_size=80), st.from_regex(r"[A-Za-z0-9_-]*(\.[A-Za-z0-9_-]*){2}")))
def test_no_text_does_more_than_be_refused(jwks: Path, token: str) -> None:
    with pytest.raises(TokenRejectedError):
        asyncio.run(attestor(jwks).attest(token))


@given(st.integers(0, 600), st.integers(0, 255))
def test_no_changed_byte_passes(jwks: Path, position: int, byte: int) -> None:
    token = bytearray(GOOD.token().encode())
    position %= len(token)
    if token[position] == byte or byte > 127:
        return
    token[position] = byte
    with pytest.raises(TokenRejectedError):
        asyncio.run(attestor(jwks).attest(token.decode()))


def test_two_attestors_for_one_token_are_refused(jwks: Path) -> None:
    both = [attestor(jwks), attestor(jwks)]
    with pytest.raises(TokenRejectedError, match="several"):
        asyncio.run(attest(both, GOOD.token()))


def test_without_keys_nothing_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(AttestorUnavailableError):
        judge(attestor(tmp_path / "absent"), GOOD.token())


@pytest.mark.parametrize("algorithms", [{"none"}, {"HS256"}, {"ES256", "none"}, set(), {"rs256"}])
def test_only_asymmetric_algorithms_can_be_configured(algorithms: set[str]) -> None:
    with pytest.raises(IssuerRejectedError):
        Issuer(ISSUER, AUDIENCE, frozenset(algorithms))


def test_a_token_is_named_without_being_told(
    jwks: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = GOOD.token()
    attested = judge(attestor(jwks), token)
    expired = GOOD.token(exp=1, iat=0)
    with pytest.raises(RejectedError) as refusal:
        judge(attestor(jwks), expired)
    told = caplog.text + "".join(capsys.readouterr()) + repr(attested) + str(refusal.value)
    assert not any(part in told for part in (token, *token.split("."), *expired.split(".")))


def test_time_passes(jwks: Path) -> None:
    def later() -> datetime:
        return NOW + timedelta(hours=1, seconds=10)

    issuer = Issuer(ISSUER, AUDIENCE, ALGORITHMS)
    aged = OidcAttestor("local", issuer, JwksFile(jwks, lambda: 0.0), later)
    with pytest.raises(TokenRejectedError, match="expired"):
        judge(aged, GOOD.token())
