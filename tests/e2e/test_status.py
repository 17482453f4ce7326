"""`garrison status` as people and CI run it, against a running mesh: what it says, and its exit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.policies.encoded import MARKER
from tests.e2e.identities import fetched, spiffe_id
from tests.e2e.mesh import Mesh
from tests.fakes.certificates import Pair
from tests.policies.policy_mesh import channel_to, following

GARRISON = Path(sys.executable).with_name("garrison")
SECONDS = 90  # a limit for what hangs
LONG = 600  # a --timeout that no test lives to see
README = {"README.md": "It sells books.\n"}
MISTAKE = {"authz/mistake.csv": "p, alow, bookstore/web, bookstore/catalog, read, /*\n"}


def start(mesh: Mesh, *options: str, ca: str = "") -> subprocess.Popen[str]:
    places = mesh.stage.places
    urls = (f"http://{places.policy_admin}", f"http://{ca or places.ca_admin}")
    return subprocess.Popen(
        [GARRISON, "status", "--policy", urls[0], "--ca", urls[1], *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(mesh: Mesh, *options: str, ca: str = "") -> tuple[int, str, str]:
    """Run it to its end; return exit status, stdout and stderr."""
    process = start(mesh, *options, ca=ca)
    out, errors = process.communicate(timeout=SECONDS)
    return process.returncode, out, errors


@pytest.fixture
def settled(mesh: Mesh) -> Iterator[Mesh]:
    """The shared mesh, converged before a test and after."""
    before = mesh.head()
    mesh.until(lambda: mesh.status()["converged"])
    yield mesh
    mesh.reset(before)


def test_converged_mesh_is_0(settled: Mesh) -> None:
    status, out, errors = asked(settled)
    assert (status, errors) == (0, "")
    assert settled.head()[:10] in out
    assert "all in sync" in out
    assert all(each.name in out for each in settled.stage.population.instances)


def test_json_names_each_proxy_and_nothing_else_is_printed(settled: Mesh) -> None:
    status, out, errors = asked(settled, "--json")
    told: dict[str, Any] = json.loads(out)
    assert (status, errors) == (0, "")
    assert (told["commit"], told["converged"], told["laggards"]) == (settled.head(), True, [])
    proxies = {each["node"]: each for each in told["proxies"]}
    assert proxies.keys() == {each.name for each in settled.stage.population.instances}
    for proxy in proxies.values():
        assert (proxy["commit"], proxy["bundle_in_sync"]) == (settled.head(), True)


def test_a_commit_that_is_there_is_waited_for_in_no_time(settled: Mesh) -> None:
    assert asked(settled, "--wait", settled.head()[:9], "--timeout", "0")[0] == 0


def test_a_commit_that_comes_while_it_waits_is_0(settled: Mesh) -> None:
    commit = settled.run(settled.stage.policies.commit_only(README, "say what it is"))
    waiting = start(settled, "--wait", commit, "--timeout", str(SECONDS), "--json")
    settled.run(settled.stage.policies.push())
    out, _ = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 0
    assert json.loads(out)["commit"] == commit


def test_a_commit_that_never_comes_is_1_at_the_timeout(settled: Mesh) -> None:
    began = time.monotonic()
    status, out, errors = asked(settled, "--wait", "deadbeef", "--timeout", "1")
    assert status == 1
    assert time.monotonic() - began >= 1
    assert settled.head()[:10] in out, "it says what is enforced instead"
    assert "deadbeef is not enforced by every proxy after 1 s" in errors


def test_a_refused_commit_is_1_at_once_with_its_diagnostics(settled: Mesh) -> None:
    bad = settled.commit(MISTAKE)
    status, out, _ = asked(settled, "--wait", bad, "--timeout", str(LONG))
    assert status == 1
    assert f"commit {bad[:10]} was refused" in out
    assert "authz/mistake.csv:1" in out
    assert "(fix: " in out
    status, out, _ = asked(settled, "--wait", bad, "--timeout", str(LONG), "--json")
    (finding,) = json.loads(out)["refused"]["diagnostics"]
    assert (finding["file"], finding["line"]) == ("authz/mistake.csv", 1)


def test_a_proxy_that_refuses_is_1_with_its_reason(settled: Mesh, tmp_path: Path) -> None:
    """A client with a right SVID that refuses what it is sent, as another version might."""
    places = settled.stage.places
    directory = fetched(settled, "bookstore/web", tmp_path)
    pair = Pair((directory / "key.pem").read_bytes(), (directory / "svid.pem").read_bytes())

    def has_refused() -> bool:
        clients = {client["node"]: client for client in settled.status()["clients"]}
        nack = clients.get("web-9", {}).get("last_nack") or {}
        return nack.get("names") == [MARKER]

    async def ask() -> tuple[int, str, str]:
        async with (
            channel_to(places.policy, places.roots.read_bytes(), pair) as channel,
            following(channel, "web-9", {MARKER: "field [x] is not supported"}),
        ):
            await asyncio.to_thread(settled.until, has_refused)
            return await asyncio.to_thread(asked, settled)

    status, out, _ = asyncio.run(asyncio.wait_for(ask(), SECONDS))
    assert status == 1
    assert "1 behind" in out
    told = " ".join(out.split())
    assert f"web-9 refused a TypedExtensionConfig of {settled.head()[:10]}" in told
    assert "field [x] is not supported" in told
    assert spiffe_id("bookstore/web") not in told, "identities are written as policy does"


def test_without_the_ca_it_tells_what_it_knows_and_is_2(settled: Mesh) -> None:
    status, out, errors = asked(settled, ca="127.0.0.1:9")
    assert status == 2
    assert settled.head()[:10] in out
    assert errors.startswith("garrison: bundles are unknown: http://127.0.0.1:9: no status")
    assert len(errors.splitlines()) == 1


def test_refresh_answers_what_came_of_it(settled: Mesh) -> None:
    def refresh() -> tuple[int, dict[str, Any]]:
        url = f"http://{settled.stage.places.policy_admin}/refresh"
        answer = settled.run(settled.stage.observer.look(url, "POST"))
        return answer.status, answer.json()

    status, told = refresh()
    assert (status, told["outcome"], told["commit"]) == (200, "unchanged", settled.head())
    good, bad = settled.head(), settled.commit(MISTAKE)
    status, told = refresh()
    assert (status, told["outcome"], told["commit"]) == (422, "refused", good)
    assert told["refused"]["commit"] == bad
