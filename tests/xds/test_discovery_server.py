"""A real server and real clients over loopback."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import wrappers_pb2

from garrison.xds.client import Acknowledged, Client, Refused, StreamRefusedError
from garrison.xds.resource import Resource, View
from garrison.xds.server import DiscoveryServer, server_options
from garrison.xds.service import AGGREGATED, Limits, Service, TypeRule
from garrison.xds.session import Discovery

A, B = "type.googleapis.com/a", "type.googleapis.com/b"
SERVICE = Service(AGGREGATED, (TypeRule(A), TypeRule(B, last=frozenset({"end"}))))
TIMEOUT = 10

Call = grpc.aio.StreamStreamCall[Any, Any]


@dataclass(frozen=True)
class Peer:
    spiffe_id: str = "spiffe://mesh.example/ns/shop/sa/web"
    expires_at: datetime = datetime(2999, 1, 1, tzinfo=UTC)


@dataclass
class Mesh:
    """A user of the server: what it serves, and what it was told."""

    view: View
    peer: Peer = field(default_factory=Peer)
    limits: Limits = field(default_factory=Limits)
    events: list[object] = field(default_factory=list)
    clients: dict[int, Client] = field(default_factory=dict)

    def connected(self, client: Client) -> None:
        self.clients[client.stream] = client

    def acknowledged(self, client: Client, event: Acknowledged) -> None:
        assert client.stream in self.clients
        self.events.append(event)

    def refused(self, client: Client, event: Refused) -> None:
        assert client.stream in self.clients
        self.events.append(event)

    def settled(self, client: Client, label: str) -> None:
        assert client.stream in self.clients
        self.events.append(label)

    def disconnected(self, client: Client) -> None:
        del self.clients[client.stream]

    def identify(self, _context: object) -> Peer:
        return self.peer


def resource(name: str, text: str) -> Resource:
    return Resource.of(name, wrappers_pb2.StringValue(value=text))


def view(label: str, a: dict[str, str], b: dict[str, str]) -> View:
    return View.of(
        label,
        {A: [resource(*item) for item in a.items()], B: [resource(*item) for item in b.items()]},
    )


@asynccontextmanager
async def serving(mesh: Mesh) -> AsyncIterator[tuple[DiscoveryServer, Any]]:
    discovery = Discovery(SERVICE, lambda _: mesh.view, mesh, mesh.identify, mesh.limits)
    served = DiscoveryServer(discovery)
    server = grpc.aio.server(options=server_options(mesh.limits))
    server.add_generic_rpc_handlers((served.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield served, ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
    finally:
        await server.stop(None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(0.005)


def delta(type_url: str = A, **fields: object) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)


async def status_of(call: Call) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(TIMEOUT):
        return await call.code(), await call.details()


def test_a_delta_client_gets_all_in_order_and_the_last_name_last() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {"x": "1", "y": "1"}, {"end": "c1", "z": "1"}))
        async with serving(mesh) as (served, stub), asyncio.timeout(TIMEOUT):
            call = stub.DeltaAggregatedResources()
            await call.write(delta(A, resource_names_subscribe=["*"], node={"id": "n1"}))
            await call.write(delta(B, resource_names_subscribe=["*"]))
            first, second = await call.read(), await call.read()
            assert (first.type_url, second.type_url) == (A, B)
            assert [each.name for each in first.resources] == ["x", "y"]
            assert [each.name for each in second.resources] == ["z"]
            assert first.system_version_info == "c1"
            value = wrappers_pb2.StringValue()
            assert first.resources[0].resource.Unpack(value)
            assert value.value == "1"
            await call.write(delta(A, response_nonce=first.nonce))
            await call.write(delta(B, response_nonce=second.nonce))
            last = await call.read()
            assert [each.name for each in last.resources] == ["end"]
            assert "c1" not in mesh.events
            await call.write(delta(B, response_nonce=last.nonce))
            await until(lambda: "c1" in mesh.events)
            mesh.view = view("c2", {"x": "1", "y": "2"}, {"end": "c2", "z": "1"})
            served.changed()
            changed = await call.read()
            assert [each.name for each in changed.resources] == ["y"]
            await call.write(delta(A, response_nonce=changed.nonce))
            last = await call.read()
            assert [each.name for each in last.resources] == ["end"]

    asyncio.run(scene())


def test_a_state_of_the_world_client_gets_all_each_time() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {"x": "1", "y": "1"}, {}))
        async with serving(mesh) as (served, stub), asyncio.timeout(TIMEOUT):
            call = stub.StreamAggregatedResources()
            request = discovery_pb2.DiscoveryRequest(type_url=A, resource_names=["*"])
            await call.write(request)
            first = await call.read()
            assert len(first.resources) == 2
            assert first.version_info.startswith("c1/")
            request.response_nonce, request.version_info = first.nonce, first.version_info
            await call.write(request)
            await until(lambda: "c1" in mesh.events)
            mesh.view = view("c2", {"x": "1", "y": "2"}, {})
            served.changed()
            second = await call.read()
            assert len(second.resources) == 2
            assert second.version_info.startswith("c2/")
            request.response_nonce = second.nonce
            request.error_detail.message = "no good"
            await call.write(request)
            await until(lambda: any(isinstance(each, Refused) for each in mesh.events))
            assert "c2" not in mesh.events
            await call.done_writing()
            assert (await call.code()) is grpc.StatusCode.OK

    asyncio.run(scene())


def test_a_stream_ends_when_its_certificate_expires() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {}, {}), Peer(expires_at=datetime.now(UTC) + timedelta(seconds=0.2)))
        async with serving(mesh) as (_, stub):
            call = stub.DeltaAggregatedResources()
            await call.write(delta())
            code, details = await status_of(call)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "expired" in details

    asyncio.run(scene())


def test_what_a_peer_may_make_us_hold_is_bounded() -> None:
    async def scene() -> None:
        limits = Limits(
            names=10,
            name_characters=30,
            node_field_characters=20,
            metadata_fields=2,
            request_bytes=10_000,
        )
        mesh = Mesh(view("c1", {}, {}), limits=limits)
        async with serving(mesh) as (_, stub):

            async def refused(request: discovery_pb2.DeltaDiscoveryRequest, word: str) -> None:
                call = stub.DeltaAggregatedResources()
                await call.write(request)
                code, details = await status_of(call)
                assert code in {
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                }, (code, details)
                assert word in details
                await until(lambda: not mesh.clients)

            await refused(delta("type.googleapis.com/unknown"), "unknown")
            await refused(delta(node={"id": "n" * 21}), "node.id")
            await refused(delta(node={"id": "a\nb"}), "node.id")
            metadata = {str(number): "" for number in range(3)}
            await refused(delta(node={"metadata": metadata}), "node.metadata")
            await refused(delta(node={"metadata": {"k" * 21: ""}}), "node.metadata")
            names = [f"n{number}" for number in range(50)]
            await refused(delta(resource_names_subscribe=names), "10 names")
            await refused(delta(resource_names_subscribe=["n" * 31]), "30 characters")
            await refused(delta(initial_resource_versions={"n": "v" * 31}), "30 characters")
            await refused(delta(resource_names_subscribe=["n" * 20_000]), "larger than max")

    asyncio.run(scene())


def test_streams_of_one_identity_are_bounded() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {}, {}), limits=Limits(streams_of_one_identity=1))
        async with serving(mesh) as (_, stub):
            first = stub.DeltaAggregatedResources()
            await first.write(delta(node={"id": "n1", "metadata": {"a": "b", "c": 7}}))
            await until(lambda: len(mesh.clients) == 1)
            (client,) = mesh.clients.values()
            assert (client.node_id, client.metadata) == ("n1", {"a": "b"})
            second = stub.DeltaAggregatedResources()
            await second.write(delta())
            code, details = await status_of(second)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "too many streams" in details
            first.cancel()
            await until(lambda: not mesh.clients)

    asyncio.run(scene())


def test_bytes_of_one_identity_are_bounded_over_all_its_streams() -> None:
    async def scene() -> None:
        limits = Limits(held_bytes_of_one_identity=40_000, held_bytes=60_000)
        mesh = Mesh(view("c1", {}, {}), limits=limits)
        names = [f"{number:03}" + "n" * 100 for number in range(90)]  # some 25 kB to remember

        async def asks_for(some: list[str]) -> Any:  # noqa: ANN401 - a call of a stub
            call = stub.DeltaAggregatedResources()
            await call.write(delta(resource_names_subscribe=some))
            return call

        async with serving(mesh) as (_, stub), asyncio.timeout(TIMEOUT):
            first = await asks_for(names)
            assert len((await first.read()).removed_resources) == len(names)
            code, details = await status_of(await asks_for(names))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "sa/web ask for too many unknown names" in details
            assert await (await asks_for(names[:1])).read(), "little still passes"
            mesh.peer = Peer("spiffe://mesh.example/ns/shop/sa/other")
            other = await asks_for(names)
            assert await other.read(), "another identity has a budget of its own"
            mesh.peer = Peer("spiffe://mesh.example/ns/shop/sa/third")
            code, details = await status_of(await asks_for(names))
            assert (code, details[:11]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "all streams")
            first.cancel()
            mesh.peer = Peer()
            await until(lambda: len(mesh.clients) == 2)
            assert await (await asks_for(names)).read(), "what ended weighs nothing"

    asyncio.run(scene())


def test_names_that_come_one_by_one_count_together() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {}, {}), limits=Limits(held_bytes_of_one_identity=40_000))
        async with serving(mesh) as (_, stub):
            call = stub.DeltaAggregatedResources()
            for number in range(5):
                names = [f"{number}/{more:02}" + "n" * 100 for more in range(30)]
                await call.write(delta(resource_names_subscribe=names))
            await call.read()  # of the first; nothing else comes before its ACK
            code, details = await status_of(call)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "unknown names" in details

    asyncio.run(scene())


def test_a_stream_at_rest_keeps_no_request() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {"x": "1"}, {}))
        async with serving(mesh) as (_, stub), asyncio.timeout(TIMEOUT):
            calls = []
            for _ in range(3):
                call = stub.DeltaAggregatedResources()
                await call.write(delta(resource_names_subscribe=["*"]))
                first = await call.read()
                await call.write(delta(response_nonce=first.nonce))
                calls.append(call)
            await until(lambda: mesh.events.count("c1") == 3)
            gc.collect()
            kind = discovery_pb2.DeltaDiscoveryRequest
            kept = [each for each in gc.get_objects() if isinstance(each, kind)]
            assert not [each for each in kept if each.type_url == A]

    asyncio.run(scene())


def test_a_silent_stream_and_a_malformed_request_are_ended() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {}, {}), limits=Limits(first_request_seconds=0.1))
        async with serving(mesh) as (_, stub):
            code, _ = await status_of(stub.DeltaAggregatedResources())
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(scene())


def test_a_refused_peer_and_an_error_of_ours_have_a_status_and_no_detail() -> None:
    async def scene() -> None:
        mesh = Mesh(view("c1", {}, {}))

        class Nobody(Mesh):
            def identify(self, _context: object) -> Peer:
                raise StreamRefusedError(grpc.StatusCode.UNAUTHENTICATED, "two URI names")

        class Broken(Mesh):
            def identify(self, _context: object) -> Peer:
                raise ZeroDivisionError("secret")

        async with serving(Nobody(mesh.view)) as (_, stub):
            assert await status_of(stub.DeltaAggregatedResources()) == (
                grpc.StatusCode.UNAUTHENTICATED,
                "two URI names",
            )
        async with serving(Broken(mesh.view)) as (_, stub):
            assert await status_of(stub.DeltaAggregatedResources()) == (
                grpc.StatusCode.INTERNAL,
                "internal error",
            )

    asyncio.run(scene())
