"""Stock Envoy as a client of the streams: nothing it waits for may be kept from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import envoy
from tests.e2e.envoy import ControlPlane, Envoy
from tests.fakes.certificates import Leaf, Pair
from tests.policies.bookstore import example_texts
from tests.policies.policy_mesh import WEB, Served, asynchronous, free_host, serving

SECONDS = 10.0  # Envoy gives up waiting for a resource after 15: then this is missed
LISTENERS = 3  # inbound, outbound, outbound/bookstore/catalog
TEXTS = example_texts()
VERSION_2 = TEXTS["services/catalog.yaml"].rpartition("---\n")[2]


@asynccontextmanager
async def ready_envoy(served: Served, directory: Path, api_type: str) -> AsyncIterator[Envoy]:
    """Run Envoy as web's sidecar, until all its listeners serve."""
    pair = served.authority.root.pair(Leaf(uris=(WEB,)))
    _lay_down(directory, pair, served.authority.root.pem)
    control = ControlPlane(
        "bookstore.example", served.settings.listen, served.bundle_address, api_type
    )
    host = free_host()
    bind = {
        "inbound": f"{host}:15006",
        "application": f"{host}:8080",
        "outbound": f"{host}:15001",
    }
    process = envoy.running_envoy(directory, "envoy-1", control, bind, f"{host}:15000")
    running = await asyncio.to_thread(process.__enter__)
    try:
        await asyncio.to_thread(running.wait_ready, LISTENERS, SECONDS)
        yield running
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)


def _lay_down(directory: Path, pair: Pair, roots: bytes) -> None:
    directory.mkdir()
    (directory / "svid.pem").write_bytes(pair.chain)
    (directory / "key.pem").write_bytes(pair.key)
    (directory / "roots.pem").write_bytes(roots)


async def enforces(served: Served, commit: str) -> None:
    """Wait until Envoy is known to enforce a commit, but not as long as Envoy itself would."""
    async with asyncio.timeout(SECONDS):
        while True:
            (client,) = (await served.status())["clients"]
            assert client["last_nack"] is None
            if client["commit"] == commit:
                assert client["kind"] == "envoy"
                return
            await asyncio.sleep(0.05)


async def clusters(running: Envoy) -> dict[str, dict[str, Any]]:
    """Return the clusters that Envoy has, warm ones only."""
    query = "/config_dump?resource=dynamic_active_clusters"
    dump = json.loads(await asyncio.to_thread(running.get, query))
    found = [each["cluster"] for each in dump.get("configs", [])]
    return {cluster["name"]: cluster for cluster in found}


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
@asynchronous
async def test_envoy_takes_every_kind_of_change_at_once(
    tmp_path: Path, envoy_executable: Path, api_type: str
) -> None:
    del envoy_executable  # it is there
    async with (
        serving(tmp_path, poll_seconds=3600.0) as served,
        ready_envoy(served, tmp_path / "envoy", api_type) as running,
    ):
        await enforces(served, served.repository.head())
        assert "bookstore/catalog-v2" in await clusters(running)

        # A cluster changes: Envoy warms the new one until it has had its endpoints anew.
        traffic = TEXTS["traffic/catalog.yaml"]
        slower = traffic.replace("connectTimeout: 500ms", "connectTimeout: 700ms")
        await enforces(served, await served.publish({"traffic/catalog.yaml": slower}))
        found = await clusters(running)
        assert found["bookstore/catalog-v1"]["connect_timeout"] == "0.700s"

        # Endpoints alone change.
        services = TEXTS["services/catalog.yaml"]
        moved = services.replace("127.0.20.12", "127.0.20.14")
        await enforces(served, await served.publish({"services/catalog.yaml": moved}))
        assert "127.0.20.14:15006" in await asyncio.to_thread(running.get, "/clusters")

        # A cluster goes, and the route to it before it.
        single = TEXTS["routes/catalog.yaml"].replace("weight: 90", "weight: 1")
        single = single.replace("        - {name: catalog-v2, weight: 10}\n", "")
        without = {
            "services/catalog.yaml": services.replace(f"---\n{VERSION_2}", ""),
            "routes/catalog.yaml": single,
        }
        await enforces(served, await served.publish(without))
        assert "bookstore/catalog-v2" not in await clusters(running)

        # Authorization changes, and everything comes back.
        denied = (
            TEXTS["authz/roles.csv"] + "\n" + "p, deny, bookstore/web, bookstore/web, any, /x\n"
        )
        await enforces(served, await served.publish(TEXTS | {"authz/roles.csv": denied}))
        assert "bookstore/catalog-v2" in await clusters(running)
        for kind in ("cluster_manager.cds", "listener_manager.lds"):
            assert await asyncio.to_thread(running.counter, f"{kind}.update_rejected") == 0
