"""A large mesh: how long it takes to compile, and to reach every sidecar: `make bench ONLY=policy`.

The sidecars are simulated by the load: mutual TLS each, with SVIDs signed by the CA's own key,
views scoped to what each identity may call. The policy server and the CA are the real processes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garrison.deploy.demo.stage import POLICY_SERVER, Stage
from tests.bench import compile_once, ground
from tests.bench.cost import cpu_of, resident_mb
from tests.bench.figures import OURS, Effort, Figures
from tests.bench.load import Running, VoidRunError, running_load
from tests.bench.repository import TRUST_DOMAIN, texts
from tests.e2e.identities import authority_of
from tests.fakes.certificates import Leaf, Pair
from tests.policies.large_mesh import SERVICES, large_mesh

PUBLISH_SECONDS = 300.0
CHANGED = "authz/n0.csv"


async def measure(effort: Effort, say: Callable[[str], None]) -> Figures:
    """Compile in processes of their own, then publish to more and more sidecars."""
    async with ground.stage() as stage:
        return await measure_on(stage, effort, say)


async def measure_on(stage: Stage, effort: Effort, say: Callable[[str], None]) -> Figures:
    """Do so on a stage, which has a large mesh then."""
    figures = Figures()
    say("compile")
    for _ in range(effort.rounds):
        await _compile(effort, figures)
    say("publish")
    await _publish(stage, effort, figures)
    svids = _svids(stage, effort)
    for clients in effort.proxies:
        say(f"{clients} sidecars")
        await _reach(stage, svids, clients, effort, figures)
    return figures


async def _compile(effort: Effort, figures: Figures) -> None:
    command = (sys.executable, "-m", compile_once.__name__, str(effort.namespaces))
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await running.communicate()
    if running.returncode:
        raise VoidRunError("the mesh does not compile")
    for figure, value in json.loads(output).items():
        figures.add(figure, OURS, value)


async def _publish(stage: Stage, effort: Effort, figures: Figures) -> None:
    """Push the large mesh beside what is there, and wait until it is enforced."""
    own = texts()
    added = {name: text for name, text in large_mesh(effort.namespaces).items() if name not in own}
    commit = await stage.policies.commit_only(added, "a large mesh")
    start = time.monotonic()
    await stage.policies.push()
    async with asyncio.timeout(PUBLISH_SECONDS):
        while not await stage.all_enforce(commit):  # noqa: ASYNC110  # it is told to nobody
            await asyncio.sleep(0.05)
    figures.add("publish_first_ms", OURS, (time.monotonic() - start) * 1e3)
    figures.add("rss_mb_alone", OURS, resident_mb(_server(stage)))


def _svids(stage: Stage, effort: Effort) -> Path:
    """Sign an SVID for each identity with the CA's key: asking for them is another measurement."""
    places = stage.places
    authority = authority_of(places, TRUST_DOMAIN)
    file = places.directory / "svids.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number in range(effort.namespaces * SERVICES):
            name = f"n{number // SERVICES}/sa/s{number % SERVICES}"
            pair = authority.pair(Leaf(uris=(f"spiffe://{TRUST_DOMAIN}/ns/{name}",)))
            lines.write(json.dumps(_pem(pair)) + "\n")
    return file


def _pem(pair: Pair) -> dict[str, str]:
    return {"chain": pair.chain.decode(), "key": pair.key.decode()}


async def _reach(stage: Stage, svids: Path, clients: int, effort: Effort, figures: Figures) -> None:
    """Connect all at once, then change one line and wait for the last of them, once a round."""
    server = _server(stage)
    alone, own = resident_mb(server), len(stage.population.instances)
    fleet = running_load(
        "fleet", target=stage.places.policy, roots=stage.places.roots, svids=svids, clients=clients
    )
    async with fleet as running:
        start = (await running.line())["started"]
        before = cpu_of([server])
        head = await stage.policies.head()
        in_sync = await _all_enforce(running, head)
        suffix = f"_{clients}"
        figures.add(f"herd_failed_streams{suffix}", OURS, in_sync["failures"])
        if in_sync["failures"]:
            figures.note(f"herd_failure{suffix}", OURS, in_sync["failure"])
        figures.add(f"herd_ms{suffix}", OURS, (in_sync["last"] - start) * 1e3)
        figures.add(f"herd_cpu_s{suffix}", OURS, (cpu_of([server]) - before).total)
        for _ in range(effort.rounds):
            reached = await _change(stage, running, clients, figures)
            if reached["failures"] > in_sync["failures"]:
                raise VoidRunError(f"a stream failed by a change: {reached['failure']}")
        grown = (resident_mb(server) - alone) * 1024 / clients
        figures.add(f"rss_mb{suffix}", OURS, resident_mb(server))
        figures.add(f"rss_kb_per_sidecar{suffix}", OURS, grown)
        connected = len((await stage.observer.status())["clients"])
        if connected != clients + own:
            raise VoidRunError(f"{connected} clients are connected, not {clients} and {own}")


async def _change(stage: Stage, running: Running, clients: int, figures: Figures) -> dict[str, Any]:
    text = stage.policies.read(CHANGED)
    added = f"p, allow, n1/s1, n0/s0, GET, /added{len(text)}/*\n"
    commit = await stage.policies.commit_only({CHANGED: text + added}, "one line")
    before = cpu_of([_server(stage)])
    start = time.time()
    async with asyncio.TaskGroup() as both:
        both.create_task(stage.policies.push())
        waiting = both.create_task(_all_enforce(running, commit))
    reached = waiting.result()
    cost = cpu_of([_server(stage)]) - before
    for name in ("p50", "p99", "last"):
        figures.add(f"change_{name}_ms_{clients}", OURS, (reached[name] - start) * 1e3)
    figures.add(f"change_spread_ms_{clients}", OURS, (reached["last"] - reached["first"]) * 1e3)
    figures.add(f"change_cpu_ms_{clients}", OURS, cost.total * 1e3)
    return reached


async def _all_enforce(running: Running, commit: str) -> dict[str, Any]:
    while True:
        line: dict[str, Any] = await running.line(PUBLISH_SECONDS)
        if line["commit"] == commit:
            return line


def _server(stage: Stage) -> int:
    return stage.processes[POLICY_SERVER].pid
