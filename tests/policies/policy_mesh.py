"""A policy server on loopback with a real repository, and clients of its streams."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from dulwich import porcelain
from dulwich.repo import Repo
from envoy.service.discovery.v3 import discovery_pb2

from garrison.identity.certificate_client import CaAccess
from garrison.policies.compilation import compile_commit
from garrison.policies.policy_server import PolicyServer
from garrison.policies.policy_settings import PolicySettings
from garrison.policies.repository import open_repository
from garrison.policies.snapshot import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES
from tests.fakes.certificate_authority import FakeAuthority, running
from tests.fakes.certificates import Leaf, Pair, Root
from tests.policies.bookstore import example_texts

TIMEOUT = 20
ALL_TYPES = (CLUSTER, ENDPOINTS, LISTENER, ROUTES, EXTENSION)
WEB = "spiffe://bookstore.example/ns/bookstore/sa/web"
CATALOG = "spiffe://bookstore.example/ns/bookstore/sa/catalog"
BINDING = {
    "inbound": "127.0.20.1:15006",
    "application": "127.0.20.1:8080",
    "outbound": "127.0.20.1:15001",
}
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test that is a coroutine."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(bounded(test(**fixtures)))

    return run


def on_policy_server(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test that is a coroutine with `served`: ready, and looking only when it is told to."""

    async def scene(tmp_path: Path, **fixtures: object) -> None:
        async with serving(tmp_path, poll_seconds=3600.0) as served:
            await served.becomes_ready()
            await test(served=served, **fixtures)

    def run(tmp_path: Path, **fixtures: object) -> None:
        asyncio.run(bounded(scene(tmp_path, **fixtures)))

    wanted = inspect.signature(test).parameters.values()
    here = inspect.signature(run).parameters["tmp_path"]
    others = [each for each in wanted if each.name != "served"]
    functools.update_wrapper(run, test)
    run.__signature__ = inspect.Signature([here, *others])  # type: ignore[attr-defined]  # pytest reads it
    return run


async def bounded(scene: Awaitable[None]) -> None:
    async with asyncio.timeout(3 * TIMEOUT):
        await scene


@dataclass(frozen=True)
class PolicyRepository:
    """A git repository with a work tree, as an author has one."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> PolicyRepository:
        """Begin with the example."""
        path.mkdir()
        Repo.init(str(path), default_branch=b"main").close()
        made = cls(path)
        made.commit(example_texts())
        return made

    def commit(self, files: Mapping[str, str]) -> str:
        for name, text in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        porcelain.add(str(self.path), [str(self.path / name) for name in files])
        author = b"Ann Author <ann@bookstore.example>"
        commit = porcelain.commit(
            str(self.path), message=b"change", author=author, committer=author
        )
        return commit.decode()

    def head(self) -> str:
        return open_repository(str(self.path)).head()


@dataclass
class Served:
    """A policy server that runs in this process, and its CA."""

    repository: PolicyRepository
    authority: FakeAuthority
    settings: PolicySettings
    server: PolicyServer
    bundle_address: str
    http: aiohttp.ClientSession

    def admin(self, path: str) -> str:
        return f"http://{self.settings.admin_listen}{path}"

    async def status(self) -> Any:  # noqa: ANN401 - JSON
        async with self.http.get(self.admin("/status")) as response:
            return await response.json()

    async def refresh(self) -> tuple[int, Any]:
        async with self.http.post(self.admin("/refresh")) as response:
            return response.status, await response.json()

    async def publish(self, files: Mapping[str, str]) -> str:
        """Commit, and have the server look."""
        commit = self.repository.commit(files)
        await self.refresh()
        return commit

    async def becomes_ready(self) -> None:
        await self.becomes(lambda status: bool(status["ready"]))

    async def is_ready(self) -> bool:
        async with self.http.get(self.admin("/ready")) as response:
            return response.status == 200

    async def becomes(self, condition: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - JSON
        """Wait until the status is as wanted, and return it."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                with suppress(aiohttp.ClientConnectorError):  # it has only begun to start
                    status = await self.status()
                    if condition(status):
                        return status
                await asyncio.sleep(0.02)


def free_host() -> str:
    return "127." + ".".join(str(random.randint(1, 250)) for _ in range(3))


def policy_settings(
    directory: Path, root: Root, addresses: tuple[str, str], **other: object
) -> PolicySettings:
    (directory / "roots.pem").write_bytes(root.pem)
    (directory / "token").write_text("token")
    access = CaAccess(
        address=addresses[0],
        bundle_address=addresses[1],
        roots=directory / "roots.pem",
        token=directory / "token",
    )
    host = free_host()
    values: dict[str, Any] = {
        "repository": str(directory / "repository"),
        "listen": f"{host}:15010",
        "admin_listen": f"{host}:15011",
        "poll_seconds": 0.1,
        "state": directory / "state",
        "ca": access,
    }
    return PolicySettings(**(values | other))


def authority() -> FakeAuthority:
    leaf = Leaf(
        uris=("spiffe://bookstore.example/ns/garrison/sa/policy-server",), dns=("policy.garrison",)
    )
    made = FakeAuthority(root=Root("bookstore.example"), leaf=leaf)
    made.bundle = made.root.pem
    return made


@asynccontextmanager
async def serving(
    directory: Path, ca: FakeAuthority | None = None, **other: object
) -> AsyncIterator[Served]:
    """Run a policy server over the example repository, or over the one that is there."""
    ca = ca or authority()
    path = directory / "repository"
    repository = PolicyRepository(path) if path.exists() else PolicyRepository.create(path)
    async with (
        running(ca) as addresses,
        aiohttp.ClientSession() as http,
        asyncio.TaskGroup() as tasks,
    ):
        settings = policy_settings(directory, ca.root, addresses, **other)
        source = open_repository(settings.repository)
        server = PolicyServer(settings, source, lambda commit: compile_commit(source.read(commit)))
        stop = asyncio.Event()
        task = tasks.create_task(server.run(stop))
        await asyncio.sleep(0)
        try:
            served = Served(repository, ca, settings, server, addresses[1], http)
            yield served
        finally:
            stop.set()
            await task


@dataclass
class Sidecar:
    """A client of the delta stream that keeps what it is given."""

    call: Any
    resources: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {url: {} for url in ALL_TYPES}
    )
    order: list[str] = field(default_factory=list)  # names as they came
    refused: dict[str, str] = field(default_factory=dict)  # names to refuse, and why

    async def follow(self) -> None:
        """Take and answer responses until the stream ends."""
        async for response in self.call:
            await self.call.write(self._answer(response))

    def _answer(self, response: Any) -> discovery_pb2.DeltaDiscoveryRequest:  # noqa: ANN401
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        bad = [each.name for each in response.resources if each.name in self.refused]
        if bad:
            answer.error_detail.message = f"{bad[0]}: {self.refused[bad[0]]}"
            return answer
        held = self.resources[response.type_url]
        for each in response.resources:
            held[each.name] = each.resource.value
            self.order.append(each.name)
        for name in response.removed_resources:
            held.pop(name, None)
            self.order.append(f"-{name}")
        return answer


@asynccontextmanager
async def channel(served: Served, pair: Pair) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(served.settings.listen, served.authority.root.pem, pair) as opened:
        yield opened


@asynccontextmanager
async def channel_to(address: str, roots: bytes, pair: Pair) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(roots, pair.key, pair.chain)
    options = (("grpc.ssl_target_name_override", "policy.garrison"),)
    async with grpc.aio.secure_channel(address, credentials, options) as opened:
        yield opened


def first_request(
    node: str, user_agent: str = "garrison-proxy", binding: Mapping[str, str] | None = None
) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(
        node={
            "id": node,
            "user_agent_name": user_agent,
            "metadata": dict(BINDING if binding is None else binding),
        },
        type_url=CLUSTER,
        resource_names_subscribe=["*"],
    )


@asynccontextmanager
async def sidecar(served: Served, spiffe_id: str, node: str) -> AsyncIterator[Sidecar]:
    """Connect as garrison-proxy does, and follow."""
    pair = served.authority.root.pair(Leaf(uris=(spiffe_id,)))
    async with channel(served, pair) as opened, following(opened, node) as client:
        yield client


@asynccontextmanager
async def following(
    opened: grpc.aio.Channel, node: str, refused: Mapping[str, str] | None = None
) -> AsyncIterator[Sidecar]:
    """Subscribe to everything on a channel that is open, and follow; refuse what is to be."""
    async with asyncio.TaskGroup() as tasks:
        method: Any = opened.stream_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        call = method()
        client = Sidecar(call, refused=dict(refused or {}))
        await call.write(first_request(node))
        for url in ALL_TYPES[1:]:
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["*"])
            )
        task = tasks.create_task(client.follow())
        yield client
        task.cancel()
