"""The stand-in's tokens are what an OIDC attestor believes, and are renewed in place."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import timedelta
from pathlib import Path

import jwt
import pytest

from garrison.deploy.demo.token_issuer import TokenIssuer


def verify(token: str, keys: Path) -> dict[str, object]:
    key = jwt.PyJWKSet.from_dict(json.loads(keys.read_text())).keys[0]
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["ES256"], audience="garrison", issuer="https://issuer"
    )
    return claims


def test_token_is_verified_by_the_keys(tmp_path: Path) -> None:
    issuer = TokenIssuer("https://issuer", "garrison")
    issuer.write_keys(tmp_path / "jwks.json")
    assert verify(issuer.mint("shop/web"), tmp_path / "jwks.json")["sub"] == "shop/web"


def test_token_of_another_key_is_not(tmp_path: Path) -> None:
    TokenIssuer("https://issuer", "garrison").write_keys(tmp_path / "jwks.json")
    stranger = TokenIssuer("https://issuer", "garrison")
    with pytest.raises(jwt.InvalidSignatureError):
        verify(stranger.mint("shop/web"), tmp_path / "jwks.json")


def test_keys_hold_no_private_part(tmp_path: Path) -> None:
    TokenIssuer("https://issuer", "garrison").write_keys(tmp_path / "jwks.json")
    assert "d" not in json.loads((tmp_path / "jwks.json").read_text())["keys"][0]


def test_token_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "web.token"
    TokenIssuer("https://issuer", "garrison").write_token(file, "shop/web")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_tokens_are_kept_fresh_also_of_those_who_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.deploy.demo.token_issuer.TICK", timedelta(milliseconds=5))
    issuer = TokenIssuer("https://issuer", "garrison", timedelta(milliseconds=30))
    first, later = tmp_path / "web.token", tmp_path / "later.token"
    issuer.write_token(first, "shop/web")
    before, wanted = first.read_text(), {first: "shop/web"}

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(issuer.keep_fresh(lambda: wanted))
            async with asyncio.timeout(5):
                while first.read_text() == before:  # noqa: ASYNC110  # a file has no event
                    await asyncio.sleep(0.01)
                wanted[later] = "shop/later"
                while not later.exists():  # noqa: ASYNC110  # likewise
                    await asyncio.sleep(0.01)
            keeper.cancel()

    asyncio.run(scene())
    assert {path.name for path in tmp_path.iterdir()} == {"web.token", "later.token"}
