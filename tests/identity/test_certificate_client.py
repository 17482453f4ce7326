"""Asking for an SVID, and what is not taken for one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from spiffe import X509Svid

from garrison.identity.certificate_client import (
    CaAccess,
    CaUnavailableError,
    CertificateClient,
    SvidRejectedError,
    TokenUnreadableError,
    read_token,
)
from garrison.identity.errors import GarrisonError
from garrison.identity.trust import BundleRejectedError, Trust
from tests.fakes.certificate_authority import FakeAuthority, running
from tests.fakes.certificates import Leaf, Root


def access(directory: Path, roots: bytes, address: str) -> CaAccess:
    (directory / "roots.pem").write_bytes(roots)
    (directory / "token").write_text("first\n")
    return CaAccess(
        address=address, roots=directory / "roots.pem", token=directory / "token", svid_seconds=77
    )


async def created(
    authority: FakeAuthority, directory: Path, roots: bytes | None = None
) -> X509Svid:
    async with running(authority) as (address, _):
        settings = access(directory, roots or authority.root.pem, address)
        return await CertificateClient(settings, Trust(settings.roots)).create()


def test_an_svid_is_issued_for_a_key_of_our_own(tmp_path: Path) -> None:
    authority = FakeAuthority()
    svid = asyncio.run(created(authority, tmp_path))
    assert str(svid.spiffe_id) == "spiffe://mesh.example/ns/shop/sa/web"
    assert svid.leaf.public_key() == svid.private_key.public_key()
    assert len(svid.cert_chain) == 1
    assert authority.tokens == ["Bearer first"]
    assert authority.seconds == [77]


def test_token_and_key_are_new_each_time(tmp_path: Path) -> None:
    async def scene() -> None:
        authority = FakeAuthority()
        async with running(authority) as (address, _):
            settings = access(tmp_path, authority.root.pem, address)
            client = CertificateClient(settings, Trust(settings.roots))
            first = await client.create()
            settings.token.write_text("second")
            second = await client.create()
        assert authority.tokens == ["Bearer first", "Bearer second"]
        assert first.leaf.public_key() != second.leaf.public_key()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("authority", "error", "reason"),
    [
        (FakeAuthority(other_key=True), SvidRejectedError, "another key"),
        (FakeAuthority(leaf=Leaf(lifetime=timedelta(seconds=-1))), SvidRejectedError, "expired"),
        (FakeAuthority(leaf=Leaf(is_ca=True)), SvidRejectedError, "not an SVID"),
        (FakeAuthority(leaf=Leaf(uris=("spiffe://A.b/c",))), SvidRejectedError, "not an SVID"),
        (
            FakeAuthority(refusal=(grpc.StatusCode.PERMISSION_DENIED, "no entry")),
            SvidRejectedError,
            "PERMISSION_DENIED: no entry",
        ),
        (
            FakeAuthority(refusal=(grpc.StatusCode.UNAVAILABLE, "starting")),
            CaUnavailableError,
            "starting",
        ),
    ],
)
def test_a_wrong_answer_is_refused(
    tmp_path: Path, authority: FakeAuthority, error: type[GarrisonError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        asyncio.run(created(authority, tmp_path))


def test_a_ca_under_another_root_gets_no_token(tmp_path: Path) -> None:
    authority = FakeAuthority()
    with pytest.raises(CaUnavailableError):
        asyncio.run(created(authority, tmp_path, roots=Root().pem))
    assert not authority.tokens


def test_the_wait_that_a_ca_asks_for_is_known(tmp_path: Path) -> None:
    authority = FakeAuthority(
        refusal=(grpc.StatusCode.UNAVAILABLE, "later"), trailing=(("retry-after-seconds", "7"),)
    )
    with pytest.raises(CaUnavailableError) as caught:
        asyncio.run(created(authority, tmp_path))
    assert caught.value.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", b"\xff", b"a" * 70_000])
def test_a_file_that_is_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(TokenUnreadableError, match=str(file)):
        read_token(file)


def test_a_missing_token_or_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenUnreadableError, match="nothere"):
        read_token(tmp_path / "nothere")
    with pytest.raises(BundleRejectedError, match="nothere"):
        _ = Trust(tmp_path / "nothere").roots
