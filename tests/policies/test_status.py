"""`garrison status` against servers that tell what a test wants told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from garrison.deploy.cli import run
from garrison.policies.cli import status
from tests.policies.policy_mesh import CATALOG, WEB, asynchronous, serving, sidecar

C1, C2 = "1" * 40, "2" * 40
AT = "2099-01-01T00:00:00+00:00"
NOWHERE = "http://127.0.0.1:1"


def policy_client(node: str, commit: str | None, **other: object) -> dict[str, object]:
    return {
        "spiffe_id": WEB,
        "node": node,
        "kind": "garrison-proxy",
        "commit": commit,
        "in_sync": commit == C1,
        "svid_expires_at": AT,
        "connected_since": AT,
        "last_nack": None,
    } | other


def bundle_client(node: str, spiffe_id: str = WEB, *, in_sync: bool = True) -> dict[str, object]:
    return {
        "spiffe_id": spiffe_id,
        "node": node,
        "bundle_version": "v1",
        "in_sync": in_sync,
        "svid_expires_at": AT,
        "connected_since": AT,
        "last_nack": None,
    }


@dataclass
class Told:
    """What the two servers say."""

    clients: list[dict[str, object]] = field(default_factory=list)
    holders: list[dict[str, object]] = field(default_factory=list)
    commit: str | None = C1
    refused: dict[str, object] | None = None
    gone: list[dict[str, object]] = field(default_factory=list)
    asked: int = 0

    async def policy(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(
            {
                "commit": self.commit,
                "refused": self.refused,
                "unavailable": None,
                "clients": self.clients,
                "gone": self.gone,
                "new": "field",
            }
        )

    async def ca(self, _: web.Request) -> web.Response:
        bundle = {"version": "v1", "sequence": 1}
        return web.json_response({"bundle": bundle, "clients": self.holders})


@asynccontextmanager
async def telling(told: Told) -> AsyncIterator[tuple[str, str]]:
    application = web.Application()
    application.router.add_get("/policy/status", told.policy)
    application.router.add_get("/ca/status", told.ca)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/policy", f"http://{host}:{port}/ca"
    finally:
        await runner.cleanup()


async def asked(told: Told, *arguments: str, ca: str | None = None) -> Result:
    """Run the command in a thread, since it has a loop of its own."""
    async with telling(told) as (policy_url, ca_url):
        urls = ("--policy", policy_url, "--ca", ca or ca_url)
        return await asyncio.to_thread(
            CliRunner().invoke, status, [*urls, *arguments], standalone_mode=False
        )


def test_all_in_sync_is_zero() -> None:
    told = Told(
        [policy_client("web-1", C1), policy_client("web-2", C1)],
        [bundle_client("web-1"), bundle_client("web-2", in_sync=False)],
    )
    result = asyncio.run(asked(told, "--json"))
    assert result.return_value == 0
    answer = json.loads(result.stdout)
    assert (answer["commit"], answer["converged"], answer["laggards"]) == (C1, True, [])
    assert answer["bundle"] == {"version": "v1", "sequence": 1}
    assert [each["bundle_in_sync"] for each in answer["proxies"]] == [True, False]


def test_a_laggard_is_named_with_its_reason() -> None:
    nack = {"commit": C1, "type": "Cluster", "names": ["a/b"], "reason": "no [b]x", "at": AT}
    told = Told([policy_client("web-1", C1), policy_client("web-2", C2, last_nack=nack)])
    result = asyncio.run(asked(told, "--json"))
    assert result.return_value == 1
    answer = json.loads(result.stdout)
    assert answer["laggards"] == [f"web-2 ({WEB})"]
    assert answer["proxies"][1]["last_nack"]["reason"] == "no [b]x"
    table = asyncio.run(asked(told)).stdout
    assert "1 behind" in table
    assert f"web-2 refused a Cluster of {C1[:10]}: no [b]x" in table
    assert "bookstore/web" in table


def test_a_pipe_gets_names_whole() -> None:
    node = "a-name-of-sixty-characters-" + "x" * 33
    told = Told([policy_client(node, C1, kind="a-kind-of-thirty-characters-xx")])
    assert f"{node}  bookstore/web  " in asyncio.run(asked(told)).stdout


def test_a_proxy_that_only_the_ca_knows_is_a_laggard() -> None:
    own = "spiffe://bookstore.example/ns/garrison/sa/policy-server"
    told = Told([policy_client("web-1", C1)], [bundle_client("web-1"), bundle_client("p", own)])
    assert asyncio.run(asked(told)).return_value == 0
    told.holders.append(bundle_client("catalog-1", CATALOG))
    result = asyncio.run(asked(told, "--json"))
    assert result.return_value == 1
    assert json.loads(result.stdout)["laggards"] == [f"catalog-1 ({CATALOG})"]


def test_who_went_away_is_shown_and_is_no_laggard() -> None:
    away: dict[str, object] = {
        "spiffe_id": WEB,
        "node": "web-2",
        "kind": "garrison-proxy",
        "commit": C2,
        "svid_expires_at": AT,
        "gone_since": "2026-01-01T00:00:00+00:00",
    }
    told = Told([policy_client("web-1", C1)], [bundle_client("web-1")], gone=[away])
    result = asyncio.run(asked(told))
    assert result.return_value == 0
    assert "web-2 (bookstore/web) has been gone for" in result.stdout.replace("\n", " ")
    (shown,) = json.loads(asyncio.run(asked(told, "--json")).stdout)["gone"]
    assert (shown["node"], shown["commit"]) == ("web-2", C2)
    told.holders.append(bundle_client("web-2"))
    result = asyncio.run(asked(told, "--json"))
    assert result.return_value == 1, "the CA sees it: it serves, by a configuration of long ago"
    assert json.loads(result.stdout)["gone"] == []


def test_a_refused_commit_is_shown_with_its_findings() -> None:
    finding = {
        "code": "a/b",
        "file": "routes/a.yaml",
        "line": 7,
        "field": "spec.x",
        "reason": "no such service",
        "remedy": "name one",
    }
    refused = {"commit": C2, "at": AT, "total": 9, "diagnostics": [finding]}
    told = Told([policy_client("web-1", C1)], refused=refused)
    output = asyncio.run(asked(told)).stdout.replace("\n", " ")
    assert "routes/a.yaml:7: spec.x: no such service (fix: name one)" in output
    assert "and 8 more" in output
    result = asyncio.run(asked(told, "--wait", C2[:10], "--timeout", "60"))
    assert result.return_value == 1, "there is nothing to wait for"


def test_waiting_ends_with_success_or_with_the_time() -> None:
    told = Told([policy_client("web-1", C1)])
    assert asyncio.run(asked(told, "--wait", C1[:7])).return_value == 0
    assert asyncio.run(asked(told, "--wait", C2, "--timeout", "0.3")).return_value == 1
    assert told.asked >= 3


def test_an_unreachable_ca_leaves_the_bundles_unknown() -> None:
    told = Told([policy_client("web-1", C1)])
    result = asyncio.run(asked(told, ca=NOWHERE))
    assert result.return_value == 2
    assert "all in sync" in result.stdout
    assert "bundles are unknown" in result.stderr
    assert asyncio.run(asked(told, "--wait", C1, ca=NOWHERE)).return_value == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--policy", NOWHERE], "no status"),
        (["--policy", "nonsense"], "no status"),
        (["--wait", "HEAD"], "no commit"),
        (["--timeout", "soon"], "soon"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_mistake_is_told_in_one_message(
    capfd: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert run(["status", *arguments]) == 2
    told = capfd.readouterr()
    assert word in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


@asynchronous
async def test_it_understands_a_real_policy_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.becomes_ready()
        async with sidecar(served, WEB, "web-1"):
            await served.becomes(lambda told: bool(told["clients"] and told["converged"]))
            arguments = ["--policy", served.admin(""), "--ca", NOWHERE, "--json"]
            commit = served.repository.head()
            result: Any = await asyncio.to_thread(
                CliRunner().invoke,
                status,
                [*arguments, "--wait", commit],
                standalone_mode=False,
            )
    assert result.return_value == 0
    answer = json.loads(result.stdout)
    assert answer["commit"] == commit
    assert [each["node"] for each in answer["proxies"]] == ["web-1"]
