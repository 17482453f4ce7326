"""A service's own SVID and bundle over their life, against a CA on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from spiffe import X509Svid

from garrison.identity.bundle_client import BundleClient
from garrison.identity.certificate_client import CaAccess, CertificateClient
from garrison.identity.credentials import Credentials, renewal_moment, server_credentials
from garrison.identity.peer import PeerRefusedError, TlsPeer, peer_of
from garrison.identity.spiffe_id import parse_trust_domain
from garrison.identity.trust import Trust
from garrison.xds.client import Acknowledged, Refused
from tests.fakes.certificate_authority import FakeAuthority, running
from tests.fakes.certificates import Leaf, Pair, Root

TIMEOUT = 20
ROOT = Root()
PAIR = ROOT.pair()
SVID = X509Svid.parse(PAIR.chain, PAIR.key)


@settings(max_examples=50)
@given(st.integers())
def test_renewal_is_at_half_of_life_give_or_take_a_tenth(seed: int) -> None:
    leaf = SVID.leaf
    now = leaf.not_valid_before_utc + timedelta(seconds=60)
    left = leaf.not_valid_after_utc - now
    assert 0.45 * left <= renewal_moment(SVID, now, random.Random(seed)) - now <= 0.55 * left


@pytest.mark.parametrize("left", [timedelta(), timedelta(milliseconds=100), timedelta(hours=-1)])
def test_however_short_a_life_renewal_is_no_busy_loop(left: timedelta) -> None:
    now = SVID.leaf.not_valid_after_utc - left
    assert renewal_moment(SVID, now, random.Random(1)) == now + timedelta(seconds=1)


async def with_credentials(
    authority: FakeAuthority,
    directory: Path,
    scene: Callable[[Credentials, BundleClient, Trust], Awaitable[None]],
) -> None:
    (directory / "roots.pem").write_bytes(authority.root.pem)
    (directory / "token").write_text("token")
    async with running(authority) as (address, bundle_address), asyncio.timeout(TIMEOUT):
        access = CaAccess(address=address, roots=directory / "roots.pem", token=directory / "token")
        trust = Trust(access.roots)
        credentials = Credentials(CertificateClient(access, trust).create)
        bundles = BundleClient(bundle_address, "policy-server-1", credentials, trust)
        async with asyncio.TaskGroup() as tasks:
            running_tasks = [
                tasks.create_task(credentials.keep_renewed()),
                tasks.create_task(bundles.follow()),
            ]
            await scene(credentials, bundles, trust)
            for task in running_tasks:
                task.cancel()


def test_an_svid_is_replaced_before_it_expires(tmp_path: Path) -> None:
    authority = FakeAuthority(leaf=Leaf(lifetime=timedelta(seconds=2), age=timedelta()))
    authority.bundle = authority.root.pem

    async def scene(credentials: Credentials, _: BundleClient, __: Trust) -> None:
        svid = await credentials.newer_than(None)
        for _number in range(3):
            newer = await credentials.newer_than(svid)
            assert newer.leaf.not_valid_before_utc < svid.leaf.not_valid_after_utc
            svid = newer

    asyncio.run(with_credentials(authority, tmp_path, scene))


def test_a_refusal_is_tried_again(tmp_path: Path) -> None:
    authority = FakeAuthority(refusal=(grpc.StatusCode.PERMISSION_DENIED, "no entry yet"))
    authority.bundle = authority.root.pem

    async def scene(credentials: Credentials, _: BundleClient, __: Trust) -> None:
        while not authority.tokens:  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(0.01)
        authority.refusal = None
        await credentials.newer_than(None)

    asyncio.run(with_credentials(authority, tmp_path, scene))


def test_bundles_are_followed_and_bad_ones_refused(tmp_path: Path) -> None:
    authority = FakeAuthority()
    authority.bundle = authority.root.pem
    both = authority.root.pem + Root().pem

    async def scene(_: Credentials, bundles: BundleClient, trust: Trust) -> None:
        await bundles.arrived.wait()
        assert trust.roots == authority.root.pem
        await answers(1)
        authority.publish(b"not a certificate")
        await answers(2)
        authority.publish(both)
        await answers(3)
        assert trust.roots == both

    async def answers(count: int) -> None:
        while len(authority.answers) < count:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)

    asyncio.run(with_credentials(authority, tmp_path, scene))
    kinds = [type(answer) for answer in authority.answers]
    assert kinds == [Acknowledged, Refused, Acknowledged]
    refusal = authority.answers[1]
    assert isinstance(refusal, Refused)
    assert "not PEM" in refusal.reason


async def call(address: str, roots: bytes, pair: Pair | None) -> str:
    """Return the identity under which a server takes us, or the status of its refusal."""
    key, chain = (pair.key, pair.chain) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    options = (("grpc.ssl_target_name_override", "policy.garrison"),)
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        try:
            method: Any = channel.unary_unary("/test/Who")
            answer: bytes = await method(b"", timeout=5)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    return answer.decode()


async def who(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    try:
        peer: TlsPeer = peer_of(context, parse_trust_domain("mesh.example"))
    except PeerRefusedError as error:
        await context.abort(error.code, str(error))
    return peer.spiffe_id.encode()


def test_a_server_takes_svids_of_its_trust_domain_only(tmp_path: Path) -> None:
    leaf = Leaf(
        uris=("spiffe://mesh.example/ns/garrison/sa/policy-server",), dns=("policy.garrison",)
    )
    authority = FakeAuthority(leaf=leaf)
    authority.bundle = authority.root.pem
    two_names = Leaf(uris=(*Leaf().uris, "spiffe://mesh.example/ns/shop/sa/db"))
    next_root = Root()

    async def scene(credentials: Credentials, bundles: BundleClient, trust: Trust) -> None:
        await bundles.arrived.wait()
        server = grpc.aio.server()
        method: Any = grpc.unary_unary_rpc_method_handler(who)
        handler = grpc.method_handlers_generic_handler("test", {"Who": method})
        server.add_generic_rpc_handlers((handler,))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(credentials, trust))
        await server.start()
        roots, address = authority.root.pem, f"127.0.0.1:{port}"
        assert await call(address, roots, authority.root.pair()) == Leaf().uris[0]
        assert "2 URI names" in await call(address, roots, authority.root.pair(two_names))
        foreign = authority.root.pair(Leaf(uris=("spiffe://other.example/ns/a/sa/b",)))
        assert "not of the trust domain" in await call(address, roots, foreign)
        for stranger in (
            None,
            Root().pair(),
            next_root.pair(),
            authority.root.pair(Leaf(lifetime=timedelta(seconds=-1))),
        ):
            assert (await call(address, roots, stranger)).startswith("UNAVAILABLE")
        authority.publish(roots + next_root.pem)
        while trust.roots == roots:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)
        assert await call(address, roots, next_root.pair()) == Leaf().uris[0]
        await server.stop(None)

    asyncio.run(with_credentials(authority, tmp_path, scene))


def test_each_handshake_uses_the_newest_svid(tmp_path: Path) -> None:
    leaf = Leaf(
        uris=("spiffe://mesh.example/ns/garrison/sa/policy-server",),
        dns=("policy.garrison",),
        lifetime=timedelta(seconds=3),
        age=timedelta(),
    )
    authority = FakeAuthority(leaf=leaf)
    authority.bundle = authority.root.pem

    async def scene(credentials: Credentials, bundles: BundleClient, trust: Trust) -> None:
        await bundles.arrived.wait()
        server = grpc.aio.server()
        method: Any = grpc.unary_unary_rpc_method_handler(who)
        handler = grpc.method_handlers_generic_handler("test", {"Who": method})
        server.add_generic_rpc_handlers((handler,))
        port = server.add_secure_port("127.0.0.1:0", server_credentials(credentials, trust))
        await server.start()
        address = f"127.0.0.1:{port}"
        first = credentials.svid
        await asyncio.sleep(3.2)  # the first has expired
        assert credentials.svid is not first
        answer = await call(address, authority.root.pem, authority.root.pair())
        assert answer == Leaf().uris[0]
        await server.stop(None)

    asyncio.run(with_credentials(authority, tmp_path, scene))


def test_the_key_is_in_no_text_of_the_svid() -> None:
    assert "PRIVATE" not in repr(SVID)
    assert isinstance(SVID.leaf, x509.Certificate)
