"""The policy server as its clients and operators meet it: real streams, a real repository."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from garrison.identity.addresses import split_address
from garrison.identity.certificate_client import TokenUnreadableError
from garrison.identity.errors import GarrisonError
from garrison.identity.listening import PortUnavailableError
from garrison.identity.trust import BundleRejectedError
from garrison.policies.policy_server import PolicyServer
from garrison.policies.repository import open_repository
from garrison.policies.snapshot import CLUSTER, EXTENSION, LISTENER
from tests.documents import documented_metrics, exposed_metrics
from tests.fakes.certificate_authority import FakeAuthority
from tests.fakes.certificates import Leaf, Pair, Root
from tests.policies.bookstore import example_texts
from tests.policies.policy_mesh import (
    BINDING,
    CATALOG,
    METHOD,
    TIMEOUT,
    WEB,
    Served,
    asynchronous,
    authority,
    bounded,
    channel,
    first_request,
    on_policy_server,
    policy_settings,
    serving,
    sidecar,
)

BAD = {"services/web.yaml": example_texts()["services/web.yaml"].replace("port: 80", "port: x")}
Request = Callable[[], discovery_pb2.DeltaDiscoveryRequest]
CATALOG_ROUTE = "routes/catalog.yaml"


def in_sync(count: int, commit: str | None = None) -> Any:  # noqa: ANN401 - a condition
    def condition(status: Any) -> bool:  # noqa: ANN401 - JSON
        return (
            len(status["clients"]) == count
            and status["converged"]
            and (commit is None or status["commit"] == commit)
        )

    return condition


def changed(path: str) -> dict[str, str]:
    """Change a number in a file that matters to callers of catalog."""
    text = example_texts()[path]
    assert "weight: 90" in text
    return {path: text.replace("weight: 90", "weight: 89").replace("weight: 10", "weight: 11")}


@on_policy_server
async def test_a_sidecar_gets_its_own_view_and_the_marker_last(served: Served) -> None:
    async with sidecar(served, WEB, "web-1") as web, sidecar(served, CATALOG, "catalog-1") as own:
        status = await served.becomes(in_sync(2))
        assert status["commit"] == served.repository.head()
        by_node = {client["node"]: client for client in status["clients"]}
        assert by_node["web-1"]["spiffe_id"] == WEB
        assert by_node["web-1"]["kind"] == "garrison-proxy"
        assert by_node["web-1"]["last_nack"] is None
        assert web.order[-1] == own.order[-1] == "garrison.commit"
        assert "application" in own.resources[CLUSTER]
        assert "authz/bookstore/catalog/allow" in own.resources[EXTENSION]
        assert "authz/bookstore/catalog/allow" not in web.resources[EXTENSION]
        assert set(web.resources[LISTENER]) >= {"inbound", "outbound"}


@on_policy_server
async def test_a_commit_is_pushed_and_enforced_by_all(served: Served) -> None:
    async with sidecar(served, WEB, "web-1") as web, sidecar(served, CATALOG, "catalog-1"):
        await served.becomes(in_sync(2))
        web.order.clear()
        commit = served.repository.commit(changed(CATALOG_ROUTE))
        code, outcome = await served.refresh()
        assert (code, outcome["outcome"], outcome["commit"]) == (200, "published", commit)
        await served.becomes(in_sync(2, commit))
        assert web.order == ["outbound", "outbound/bookstore/catalog", "garrison.commit"]
        assert (await served.refresh())[1]["outcome"] == "unchanged"


@asynchronous
async def test_a_commit_is_seen_without_a_hint(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.becomes_ready()
        commit = served.repository.commit(changed(CATALOG_ROUTE))
        await served.becomes(lambda status: bool(status["commit"] == commit))


@on_policy_server
async def test_a_bad_commit_changes_nothing_and_is_told(served: Served) -> None:
    async with sidecar(served, WEB, "web-1") as web:
        good = (await served.becomes(in_sync(1)))["commit"]
        before = {url: dict(held) for url, held in web.resources.items()}
        web.order.clear()
        bad = served.repository.commit(BAD)
        code, outcome = await served.refresh()
        assert (code, outcome["outcome"], outcome["commit"]) == (422, "refused", good)
        status = await served.status()
        assert (status["commit"], status["ready"], status["converged"]) == (good, True, True)
        refused = status["refused"]
        assert (refused["commit"], refused["total"]) == (bad, len(refused["diagnostics"]))
        finding = refused["diagnostics"][0]
        assert (finding["file"], finding["field"]) == ("services/web.yaml", "spec.port")
        assert finding["line"] > 0
        assert finding["reason"]
        assert finding["remedy"]
        assert web.order == []
        assert web.resources == before
        repaired = await served.publish({"services/web.yaml": example_texts()["services/web.yaml"]})
        status = await served.becomes(in_sync(1, repaired))
        assert status["refused"] is None


@asynchronous
async def test_nothing_is_served_before_the_first_good_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.becomes_ready()
    repository = served.repository
    bad = repository.commit(BAD)
    async with serving(tmp_path, state=None) as served:
        status = await served.becomes(lambda status: bool(status["refused"]))
        assert (status["commit"], status["refused"]["commit"]) == (None, bad)
        await served.becomes(lambda status: status["lacking"] == [
            "no good commit yet",
            "not listening",
        ])  # fmt: skip
        assert not await served.is_ready()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(split_address(served.settings.listen), timeout=1).close()
        repository.commit({"services/web.yaml": example_texts()["services/web.yaml"]})
        await served.becomes_ready()


@asynchronous
async def test_a_restart_at_a_bad_commit_serves_what_was_published_last(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.becomes_ready()
        good = served.repository.head()
    bad = served.repository.commit(BAD)
    async with serving(tmp_path) as served:
        await served.becomes_ready()
        status = await served.status()
        assert (status["commit"], status["refused"]["commit"]) == (good, bad)
        async with sidecar(served, WEB, "web-1"):
            await served.becomes(in_sync(1, good))


@on_policy_server
async def test_a_refusing_sidecar_is_a_laggard_with_its_reason(served: Served) -> None:
    async with sidecar(served, WEB, "web-1"), sidecar(served, WEB, "web-2") as odd:
        first = (await served.becomes(in_sync(2)))["commit"]
        odd.refused = {"outbound": "no such field", "garrison.commit": "something was refused"}
        odd.order.clear()
        commit = await served.publish(changed(CATALOG_ROUTE))
        status = await served.becomes(
            lambda status: (
                [client["commit"] for client in status["clients"]] == [commit, first]
                and "something" in status["clients"][1]["last_nack"]["reason"]
            )
        )
        laggard = status["clients"][1]
        assert not status["converged"]
        assert (laggard["node"], laggard["in_sync"]) == ("web-2", False)
        assert laggard["last_nack"]["commit"] == commit
        assert odd.order == ["outbound/bookstore/catalog"]  # the good neighbour was taken


@pytest.mark.parametrize(
    ("request_of", "code"),
    [
        (
            lambda: first_request("n", binding={"outbound": "example.org:80"}),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (lambda: first_request("n" * 600), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
@on_policy_server
async def test_an_impossible_node_is_refused(
    served: Served, request_of: Request, code: grpc.StatusCode
) -> None:
    assert await end_of_stream(served, svid(served, WEB), request_of()) == code


@on_policy_server
async def test_who_is_no_svid_of_ours_gets_nothing(served: Served) -> None:
    root = served.authority.root
    strangers = {
        grpc.StatusCode.UNAUTHENTICATED: [
            root.pair(Leaf(uris=(WEB, CATALOG))),
            root.pair(Leaf(uris=("spiffe://other.example/ns/bookstore/sa/web",))),
            root.pair(Leaf(uris=(), dns=("web.bookstore",))),
        ],
        grpc.StatusCode.UNAVAILABLE: [Root("bookstore.example").pair(Leaf(uris=(WEB,)))],
    }
    for code, pairs in strangers.items():
        for pair in pairs:
            assert await end_of_stream(served, pair, first_request("n")) == code


@on_policy_server
async def test_the_node_cannot_claim_another_identity(served: Served) -> None:
    stranger = "spiffe://bookstore.example/ns/elsewhere/sa/nobody"
    async with sidecar(served, stranger, CATALOG) as nobody:
        await served.becomes(in_sync(1))
        assert nobody.resources[CLUSTER] == {}
        assert set(nobody.resources[LISTENER]) == {"outbound"}
        assert set(nobody.resources[EXTENSION]) == {"garrison.commit"}


@on_policy_server
async def test_a_state_of_the_world_client_is_served_by_name(served: Served) -> None:
    pair = svid(served, WEB)
    async with channel(served, pair) as opened, asyncio.timeout(TIMEOUT):
        method: Any = opened.stream_stream(
            METHOD.replace("Delta", "Stream"),
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )
        call = method()
        request = discovery_pb2.DiscoveryRequest(
            node={"id": "grpc-1", "user_agent_name": "grpc", "metadata": BINDING},
            type_url=CLUSTER,
            resource_names=["bookstore/orders"],
        )
        await call.write(request)
        response = await call.read()
        cluster = cluster_pb2.Cluster()
        assert response.resources[0].Unpack(cluster)
        assert cluster.name == "bookstore/orders"
        commit = served.repository.head()
        assert response.version_info.startswith(f"{commit}/")
        request.response_nonce = response.nonce
        await call.write(request)
        status = await served.becomes(in_sync(1))
        assert status["clients"][0]["kind"] == "envoy"


@on_policy_server
async def test_operators_see_health_and_metrics_and_pages_do_not(served: Served) -> None:
    async with sidecar(served, WEB, "web-1"):
        await served.becomes(in_sync(1))
        async with served.http.get(served.admin("/metrics")) as response:
            text = await response.text()
        assert 'garrison_policy_clients{in_sync="true",kind="garrison-proxy"} 1.0' in text
        assert "garrison_policy_ready 1.0" in text
        assert exposed_metrics(text) == documented_metrics("policies/README.md")
        assert served.repository.head() in text
        async with served.http.get(served.admin("/live")) as response:
            assert response.status == 200
        for path in ("/status", "/metrics", "/live"):
            for headers in ({"Host": "rebound.example"}, {"Origin": "https://page.example"}):
                async with served.http.get(served.admin(path), headers=headers) as response:
                    assert response.status == 403
        async with served.http.get(served.admin("/refresh")) as response:
            assert response.status == 405


@on_policy_server
async def test_a_repository_out_of_reach_keeps_what_is_served(served: Served) -> None:
    commit = (await served.status())["commit"]
    moved = served.repository.path.rename(served.repository.path.with_name("moved"))
    code, outcome = await served.refresh()
    assert (code, outcome["outcome"], outcome["commit"]) == (503, "unavailable", commit)
    assert await served.is_ready()
    assert "no such directory" in (await served.status())["unavailable"]
    moved.rename(served.repository.path)
    assert (await served.refresh())[0] == 200
    assert (await served.status())["unavailable"] is None


@asynchronous
async def test_a_ca_that_is_late_is_waited_for(tmp_path: Path) -> None:
    late = authority()
    late.refusal = (grpc.StatusCode.UNAVAILABLE, "starting")
    async with serving(tmp_path, late) as served:
        status = await served.becomes(lambda status: status["commit"] is not None)
        assert not status["ready"]
        assert "no svid yet" in status["lacking"]
        late.refusal = None
        await served.becomes_ready()


@on_policy_server
async def test_a_commit_of_another_trust_domain_is_refused(served: Served) -> None:
    commit = await served.publish(
        {"mesh.yaml": example_texts()["mesh.yaml"].replace("bookstore.example", "other.example")}
    )
    status = await served.becomes(lambda status: bool(status["refused"]))
    assert status["refused"]["commit"] == commit
    assert status["refused"]["diagnostics"][0]["field"] == "spec.trustDomain"
    assert await served.is_ready()


@pytest.mark.parametrize("is_late", [False, True])
def test_a_repository_of_another_trust_domain_than_the_ca_is_not_served(
    tmp_path: Path, *, is_late: bool
) -> None:
    async def scene() -> None:
        other = FakeAuthority(
            root=Root("other.example"),
            leaf=Leaf(uris=("spiffe://other.example/ns/garrison/sa/policy-server",)),
        )
        other.bundle = other.root.pem
        if is_late:
            other.refusal = (grpc.StatusCode.UNAVAILABLE, "starting")
        async with serving(tmp_path, other) as served:
            if is_late:
                await served.becomes(lambda status: status["commit"] is not None)
                other.refusal = None
            status = await served.becomes(lambda status: status["refused"] is not None)
            assert (status["commit"], status["ready"]) == (None, False)
            reason = status["refused"]["diagnostics"][0]["reason"]
            assert "bookstore.example" in reason
            assert "other.example" in reason

    asyncio.run(bounded(scene()))


@asynchronous
async def test_a_port_in_use_is_told_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.becomes_ready()
        for port in ("listen", "admin_listen"):
            other = policy_settings(
                tmp_path,
                served.authority.root,
                ("127.0.0.1:1", "127.0.0.1:1"),
                **{port: getattr(served.settings, port)},
            )
            source = open_repository(other.repository)
            second = PolicyServer(other, source, lambda _: pytest.fail("nothing is compiled"))
            with pytest.raises(PortUnavailableError, match=f"(?s){getattr(other, port)}.*`{port}`"):
                await second.run(asyncio.Event())


@pytest.mark.parametrize(
    ("file", "error"), [("token", TokenUnreadableError), ("roots.pem", BundleRejectedError)]
)
def test_a_missing_file_is_told_before_anything_starts(
    tmp_path: Path, file: str, error: type[GarrisonError]
) -> None:
    settings = policy_settings(tmp_path, Root(), ("127.0.0.1:1", "127.0.0.1:1"))
    (tmp_path / file).unlink()
    source: Any = None
    with pytest.raises(error, match=file):
        PolicyServer(settings, source, lambda _: pytest.fail("nothing is compiled"))


def svid(served: Served, spiffe_id: str) -> Pair:
    return served.authority.root.pair(Leaf(uris=(spiffe_id,)))


async def end_of_stream(
    served: Served, pair: Pair, request: discovery_pb2.DeltaDiscoveryRequest
) -> grpc.StatusCode:
    async with channel(served, pair) as opened, asyncio.timeout(TIMEOUT):
        method: Any = opened.stream_stream(
            METHOD, request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString
        )
        call = method()
        try:
            await call.write(request)
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        code: grpc.StatusCode = await call.code()
        return code
