"""Trust bundles by SDS over mutual TLS, both variants, and who is known to have them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from garrison.ca.bundle import load_bundle
from garrison.ca.bundle_service import SECRET
from garrison.ca.errors import StateRejectedError
from garrison.identity.certificate_client import private_key_pem
from tests.ca.authorities import TRUST_DOMAIN, WEB, CaInDirectory, leaf_of, make_ca, make_csr
from tests.ca.running import Mesh, meshed, until
from tests.fakes.certificates import Root

NAME = "spiffe://example.org"
PREFIX = "/envoy.service.secret.v3.SecretDiscoveryService/"
_OVERRIDE = (("grpc.ssl_target_name_override", "ca.garrison"),)


async def identity(mesh: Mesh) -> tuple[bytes, bytes]:
    """Ask for an SVID; the answer is key and chain."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = await mesh.ask(csr=make_csr(key))
    return private_key_pem(key), "".join(chain[:-1]).encode()


@asynccontextmanager
async def stream(
    mesh: Mesh, method: str, key: bytes | None = None, chain: bytes | None = None
) -> AsyncIterator[Any]:
    """Open a stream; its requests and responses are those of `method`."""
    if key is None:
        key, chain = await identity(mesh)
    is_delta = method == "DeltaSecrets"
    response = discovery_pb2.DeltaDiscoveryResponse if is_delta else discovery_pb2.DiscoveryResponse
    credentials = grpc.ssl_channel_credentials(mesh.roots, key, chain)
    address = f"127.0.0.1:{mesh.running.bundles}"
    async with grpc.aio.secure_channel(address, credentials, _OVERRIDE) as channel:
        opener: Any = channel.stream_stream(
            PREFIX + method,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )
        call = opener(timeout=10)
        yield call
        call.cancel()


def roots_in(packed: any_pb2.Any) -> bytes:
    secret = secret_pb2.Secret()
    assert packed.Unpack(secret)
    assert secret.name == NAME
    found: bytes = secret.validation_context.trusted_ca.inline_bytes
    return found


def test_delta_brings_the_roots_and_keeps_the_ack(tmp_path: Path) -> None:
    async def scene() -> None:
        async with meshed(tmp_path) as mesh, stream(mesh, "DeltaSecrets") as call:
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    node={"id": "web-1"}, type_url=SECRET, resource_names_subscribe=[NAME]
                )
            )
            response = await call.read()
            assert roots_in(response.resources[0].resource) == mesh.roots
            assert response.system_version_info == "1"
            (client,) = mesh.running.status.bundles.status()
            assert (client["node"], client["in_sync"]) == ("web-1", False)
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=response.nonce)
            )
            await until(lambda: bool(mesh.running.status.bundles.status()[0]["in_sync"]))
            (client,) = mesh.running.status.bundles.status()
            assert client["spiffe_id"] == str(WEB)
            assert client["bundle_version"] == response.resources[0].version
            call.cancel()
            await until(lambda: not mesh.running.status.bundles.status())

    asyncio.run(scene())


@pytest.mark.parametrize("asked", [NAME, "*"])
def test_a_client_that_comes_back_with_the_bundle_is_heard_again(
    tmp_path: Path, asked: str
) -> None:
    """Each SVID means a new stream; a client that has the bundle must not look as if it had not."""

    async def scene() -> None:
        async with meshed(tmp_path) as mesh, stream(mesh, "DeltaSecrets") as call:
            version, gone = mesh.running.status.bundles.version, "spiffe://gone.example"
            first = discovery_pb2.DeltaDiscoveryRequest(
                node={"id": "web-1"}, type_url=SECRET, resource_names_subscribe=[asked]
            )
            first.initial_resource_versions.update({NAME: version, gone: "1"})
            await call.write(first)
            response = await call.read()
            assert roots_in(response.resources[0].resource) == mesh.roots
            (client,) = mesh.running.status.bundles.status()
            assert client["in_sync"] is False  # a claim is no ACK
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=response.nonce)
            )
            await until(lambda: bool(mesh.running.status.bundles.status()[0]["in_sync"]))
            assert list((await call.read()).removed_resources) == [gone]

    asyncio.run(scene())


def test_state_of_the_world_brings_the_roots_and_keeps_the_nack(tmp_path: Path) -> None:
    async def scene() -> None:
        async with meshed(tmp_path) as mesh, stream(mesh, "StreamSecrets") as call:
            first = discovery_pb2.DiscoveryRequest(
                node={"id": "envoy-1"}, type_url=SECRET, resource_names=[NAME]
            )
            await call.write(first)
            response = await call.read()
            assert roots_in(response.resources[0]) == mesh.roots
            nack = discovery_pb2.DiscoveryRequest(
                type_url=SECRET, resource_names=[NAME], response_nonce=response.nonce
            )
            nack.error_detail.message = "cannot be parsed"
            await call.write(nack)
            await until(lambda: mesh.running.status.bundles.status()[0]["last_nack"] is not None)
            (client,) = mesh.running.status.bundles.status()
            assert (client["in_sync"], client["bundle_version"]) == (False, None)
            assert "cannot be parsed" in str(client["last_nack"])

    asyncio.run(scene())


def test_only_svids_of_the_trust_domain_may_ask(tmp_path: Path) -> None:
    foreign = Root().pair()

    async def scene() -> None:
        async with meshed(tmp_path) as mesh:
            for key, chain in ((foreign.key, foreign.chain), (None, None)):
                credentials = grpc.ssl_channel_credentials(mesh.roots, key, chain)
                address = f"127.0.0.1:{mesh.running.bundles}"
                async with grpc.aio.secure_channel(address, credentials, _OVERRIDE) as channel:
                    call: Any = channel.stream_stream(PREFIX + "DeltaSecrets")()
                    with pytest.raises(grpc.aio.AioRpcError) as refusal:
                        await call.wait_for_connection()
                    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
            assert mesh.running.status.bundles.status() == []

    asyncio.run(scene())


def test_a_name_that_is_not_there_is_told_as_absent(tmp_path: Path) -> None:
    async def scene() -> None:
        async with meshed(tmp_path) as mesh, stream(mesh, "DeltaSecrets") as call:
            other = "spiffe://other.example"
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    type_url=SECRET, resource_names_subscribe=[other]
                )
            )
            response = await call.read()
            assert (list(response.removed_resources), list(response.resources)) == ([other], [])

    asyncio.run(scene())


def test_a_bundles_number_rises_with_its_content(fresh_ca: CaInDirectory, tmp_path: Path) -> None:
    file, root = fresh_ca.state.roots, fresh_ca.authority.root
    assert load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store).sequence == 1
    assert load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store).sequence == 1
    first = file.read_bytes()
    (tmp_path / "second").mkdir()
    second = make_ca(tmp_path / "second")
    file.write_bytes(first + second.state.roots.read_bytes())
    assert load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store).sequence == 2
    file.write_bytes(first)
    assert load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store).sequence == 3
    second.store.close()


def test_a_bundle_holds_the_own_root_and_only_roots(fresh_ca: CaInDirectory) -> None:
    file, root = fresh_ca.state.roots, fresh_ca.authority.root
    own = file.read_bytes()
    leaf = leaf_of(fresh_ca.issue()).public_bytes(Encoding.PEM)
    for wrong in (b"", b"x", Root().pem, own + leaf, own * 17):
        file.write_bytes(wrong)
        with pytest.raises(StateRejectedError):
            load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store)
    file.unlink()
    with pytest.raises(StateRejectedError, match="cannot be read"):
        load_bundle(TRUST_DOMAIN, file, root, fresh_ca.store)


@pytest.mark.parametrize(
    ("asked", "word"),
    [([f"n{number}" for number in range(601)], "300 names"), (["n" * 66_000], "")],
)
def test_who_asks_for_much_more_than_bundles_is_refused(
    tmp_path: Path, asked: list[str], word: str
) -> None:
    async def scene() -> None:
        async with meshed(tmp_path) as mesh, stream(mesh, "DeltaSecrets") as call:
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    node={"id": "web-1"}, type_url=SECRET, resource_names_subscribe=asked
                )
            )
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert word in await call.details()

    asyncio.run(scene())
