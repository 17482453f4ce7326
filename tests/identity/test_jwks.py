"""A JWK Set gives public keys for signatures, and nothing else; its source may fail."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from garrison.identity.attestation import AttestorUnavailableError
from garrison.identity.errors import RejectedError
from garrison.identity.jwks import MAX_JWKS_BYTES, parse_jwks
from garrison.identity.jwks_source import MAX_STALE, JwksFile, JwksUrl
from tests.identity.tokens import TokenIssuer

ONE, TWO = TokenIssuer(kid="one"), TokenIssuer(kid="two")
DAY = MAX_STALE.total_seconds()


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_keys_are_found_by_name() -> None:
    keys = parse_jwks(jwks(ONE.jwk(), TWO.jwk(use="sig")))
    found = keys.find("two", "ES256")
    assert found
    assert found.kid == "two"
    assert keys.find("three", "ES256") is None
    assert keys.find("one", "ES384") is None


def test_without_a_name_there_must_be_one_key_only() -> None:
    assert parse_jwks(jwks(ONE.jwk())).find(None, "ES256")
    assert parse_jwks(jwks(ONE.jwk(), TWO.jwk())).find(None, "ES256") is None


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "one"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {"kty": ["EC"]},
        {"kty": "EC", "crv": "P-256"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        TokenIssuer(key=rsa.generate_private_key(65537, 1024)).jwk(),
        ONE.jwk(use="enc"),
        ONE.jwk(key_ops=["sign"]),
        ONE.jwk(alg="HS256"),
        ONE.jwk(alg="ES384"),
    ],
    ids=lambda key: f"{key.get('kty')}-{key.get('use')}-{key.get('alg')}",
)
def test_a_key_of_another_kind_is_left_out(key: object) -> None:
    assert len(parse_jwks(jwks(TWO.jwk(), key)).keys) == 1
    with pytest.raises(RejectedError, match="no key"):
        parse_jwks(jwks(key))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": ["x"]}',
        b"\xff",
        b"[" * 100_000,
        jwks(ONE.jwk(), ONE.jwk()),
        jwks(ONE.jwk(d="AAAA")),
        jwks(ONE.jwk(kid=1)),
        jwks(*[{}] * 101),
        b'{"keys": [], ' + jwks(ONE.jwk())[1:],
        jwks(ONE.jwk()) + b" " * MAX_JWKS_BYTES,
    ],
    ids=lambda text: text[:12].decode(errors="replace"),
)
def test_what_is_no_jwk_set_is_refused(text: bytes) -> None:
    with pytest.raises(RejectedError):
        parse_jwks(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["keys", "kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"]),
                inner,
            )
        ),
    )
)
def test_no_json_does_more_than_be_refused(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"keys": [value]})):
        with pytest.raises(RejectedError):
            parse_jwks(text.encode())


def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    source = JwksFile(path, lambda: 0.0)
    with pytest.raises(AttestorUnavailableError):
        source.keys()
    path.write_bytes(ONE.jwks())
    assert source.keys().find("one", "ES256")
    (tmp_path / "next").write_bytes(TWO.jwks())
    (tmp_path / "next").replace(path)
    assert source.keys().find("two", "ES256")
    assert not source.keys().find("one", "ES256")


def test_a_file_that_went_bad_leaves_the_last_good_keys_for_a_day(tmp_path: Path) -> None:
    path, now = tmp_path / "jwks.json", [0.0]
    path.write_bytes(ONE.jwks())
    source = JwksFile(path, lambda: now[0])
    assert source.keys()
    path.write_bytes(b"{")
    now[0] = DAY
    assert source.keys().find("one", "ES256")
    now[0] = DAY + 1
    with pytest.raises(AttestorUnavailableError, match="old"):
        source.keys()
    path.write_bytes(TWO.jwks())
    assert source.keys().find("two", "ES256")


def test_a_file_that_stays_as_it_is_never_gets_old(tmp_path: Path) -> None:
    path, now = tmp_path / "jwks.json", [0.0]
    path.write_bytes(ONE.jwks())
    source = JwksFile(path, lambda: now[0])
    for _ in range(3):
        now[0] += DAY
        assert source.keys()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/jwks", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    finally:
        await runner.cleanup()


async def fetched(handler: Handler) -> JwksUrl:
    """Run a source until its first fetch is over."""
    answered = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        answered.set()
        return await handler(request)

    async with serving(answer) as url, asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        source = JwksUrl(url, lambda: 0.0)
        running = tasks.create_task(source.run())
        await answered.wait()
        await asyncio.sleep(0.2)
        running.cancel()
    return source


async def _good(_: web.Request) -> web.StreamResponse:
    return web.Response(body=ONE.jwks())


async def _moved(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


async def _endless(_: web.Request) -> web.StreamResponse:
    return web.Response(body=ONE.jwks() + b" " * MAX_JWKS_BYTES)


async def _broken(_: web.Request) -> web.StreamResponse:
    raise web.HTTPServiceUnavailable


def test_a_url_is_fetched() -> None:
    assert asyncio.run(fetched(_good)).keys().find("one", "ES256")


@pytest.mark.parametrize("handler", [_moved, _endless, _broken])
def test_what_a_url_must_not_answer_gives_no_keys(handler: Handler) -> None:
    source = asyncio.run(fetched(handler))
    with pytest.raises(AttestorUnavailableError):
        source.keys()


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "http://localhost.example/jwks",
        "file:///etc/passwd",
        "https://",
        "https://user@issuer.example/",
        "jwks.json",
        "",
    ],
)
def test_a_url_that_others_could_change_on_the_way_is_refused(url: str) -> None:
    assert JwksUrl("https://issuer.example/jwks", lambda: 0.0)
    with pytest.raises(RejectedError):
        JwksUrl(url, lambda: 0.0)


def test_a_special_file_cannot_hang_a_request(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AttestorUnavailableError):
        JwksFile(tmp_path / "pipe", lambda: 0.0).keys()
