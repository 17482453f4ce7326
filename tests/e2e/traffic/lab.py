"""Two services of the tests' own in a running mesh: joined by a commit, as any service is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.observer import Answer
from garrison.deploy.demo.settings_files import proxy_settings
from tests.e2e.mesh import Mesh
from tests.e2e.traffic.echo import Echo, running_echoes
from tests.e2e.traffic.parrot import Parrot, running_parrot

POLICIES = Path(__file__).parent / "policies"
UNDER_TEST = "traffic/under-test.yaml"
HANG_SECONDS = 60
CALLER = "web-1"
ECHO = "http://echo.lab"
INSTANCES = (
    ("echo", "a", 71),
    ("echo", "b", 72),
    ("echo", "c", 73),
    ("parrot", "a", 81),
    ("parrot", "b", 82),
)
# Tests ask for what they hold: nobody is left alone for his errors, and the turn is everybody's.
CALM = {"consecutiveErrors": 1000}
IN_TURN = {"algorithm": "RoundRobin"}


@dataclass(frozen=True)
class Calls:
    """Calls under way; `answers` grows as they are answered."""

    answers: list[Answer]
    running: concurrent.futures.Future[None]

    def finish(self) -> None:
        """Wait until all are answered."""
        self.running.result(HANG_SECONDS)


@dataclass(frozen=True)
class Lab:
    """The services `echo.lab` and `parrot.lab`, called by web-1."""

    mesh: Mesh
    echoes: Mapping[str, Echo]  # by version
    parrots: Mapping[str, Parrot]
    instances: Mapping[str, Instance]  # echo-a, parrot-b

    def enforce(self, *documents: Mapping[str, Any]) -> None:
        """Commit these policies in place of the last test's, and wait until they are enforced."""
        clone = self.mesh.stage.policies.clone
        text = yaml.safe_dump_all(documents or [traffic_policy()])
        if (clone / UNDER_TEST).exists() and (clone / UNDER_TEST).read_text() == text:
            return
        commit = self.mesh.commit({UNDER_TEST: text})
        self.mesh.until(
            lambda: self._is_enforced(commit), HANG_SECONDS, "not every sidecar follows"
        )

    def _is_enforced(self, commit: str) -> bool:
        nodes = {client["node"]: client["commit"] for client in self.mesh.status()["clients"]}
        return all(nodes.get(name) == commit for name in (CALLER, *self.instances))

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> Answer:
        """Call the echoes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.mesh.call(CALLER, ECHO + path, method, named)

    def version(self, path: str = "/", method: str = "GET", **headers: str) -> str:
        """Call the echoes, and say which version answered."""
        answer = self.get(path, method, **headers)
        assert answer.status == 200, (answer.status, answer.headers)
        return str(answer.json()["version"])

    def versions(self, calls: int, path: str = "/") -> Counter[str]:
        """Call one after another, and count who answered."""

        async def all_calls() -> Counter[str]:
            caller = self.mesh.instance(CALLER)
            answers = [
                await self.mesh.stage.observer.call(caller, ECHO + path) for _ in range(calls)
            ]
            assert {answer.status for answer in answers} == {200}
            return Counter(answer.json()["version"] for answer in answers)

        return self.mesh.run(all_calls())

    def call_at_once(self, calls: int) -> Calls:
        """Begin so many calls of the echoes."""
        answers: list[Answer] = []

        proxy = f"http://{self.mesh.instance(CALLER).outbound}"

        async def one(client: aiohttp.ClientSession) -> None:
            async with client.get(ECHO, proxy=proxy) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                answers.append(Answer(response.status, headers, await response.read()))

        async def all_calls() -> None:
            connector = aiohttp.TCPConnector(limit=0)
            patience = aiohttp.ClientTimeout(HANG_SECONDS)
            async with (
                aiohttp.ClientSession(connector=connector, timeout=patience) as client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(calls):
                    group.create_task(one(client))

        return Calls(answers, asyncio.run_coroutine_threadsafe(all_calls(), self.mesh.loop))

    def access_log(self, instance: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of one of the lab's sidecars that have these values."""
        return self.mesh.stage.observer.access_log(self.instances[instance], **fields)

    def counted(self, name: str, cluster: str = "lab/echo") -> float:
        """Return a counter of the caller's sidecar for a cluster."""
        return self.mesh.metric(CALLER, f"garrison_upstream_{name}", cluster=cluster)


def route(*rules: Mapping[str, Any], idempotent: bool = False, of: str = "echo") -> dict[str, Any]:
    """Write an HTTPRoute of a service of the lab."""
    marks = {"garrison.dev/idempotent": "true"} if idempotent else {}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": f"{of}-under-test", "namespace": "lab", "annotations": marks},
        "spec": {
            "parentRefs": [{"group": "garrison.dev", "kind": "Service", "name": of}],
            "rules": list(rules),
        },
    }


def to(backend: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- as YAML takes it
    """Write a rule that leads to one backend."""
    return {"backendRefs": [{"name": backend}], **more}


def traffic_policy(of: str = "echo", **settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """Write a TrafficPolicy of a service of the lab."""
    target = {"group": "garrison.dev", "kind": "Service", "name": of}
    calm = {"loadBalancing": IN_TURN, "outlierDetection": CALM}
    return {
        "apiVersion": "garrison.dev/v1",
        "kind": "TrafficPolicy",
        "metadata": {"name": f"{of}-under-test", "namespace": "lab"},
        "spec": {"targetRefs": [target], **calm, **settings},
    }


@contextlib.contextmanager
def open_lab(mesh: Mesh) -> Iterator[Lab]:
    """Join the lab to a mesh until the block ends."""
    before = mesh.head()
    network = mesh.stage.places.network
    names = {file.relative_to(POLICIES).as_posix(): file for file in POLICIES.glob("*/*.*")}
    mesh.commit_and_wait({name: network.move(file.read_text()) for name, file in names.items()})
    instances = [_placed(mesh, *each) for each in INSTANCES]
    listening = {each.name: each.application for each in instances}
    with (
        running_echoes({name: listening[f"echo-{name}"] for name in "abc"}) as echoes,
        running_parrot("a", listening["parrot-a"]) as one,
        running_parrot("b", listening["parrot-b"]) as other,
        _sidecars(mesh, instances),
    ):
        yield Lab(mesh, echoes, {"a": one, "b": other}, {each.name: each for each in instances})
    mesh.reset(before)


def _placed(mesh: Mesh, service: str, version: str, number: int) -> Instance:
    address = mesh.stage.places.network.host(number)
    identity = f"lab/{service}"
    return Instance(f"{service}-{version}", identity, version, address, 15006, identity)


@contextlib.contextmanager
def _sidecars(mesh: Mesh, instances: list[Instance]) -> Iterator[None]:
    places, stage = mesh.stage.places, mesh.stage
    for instance in instances:
        settings = proxy_settings(places, stage.population.trust_domain, instance, 3600)
        places.settings(instance.name).write_text(settings)
        mesh.until(places.token(instance.identity).exists, 30, "no token")
        mesh.run(stage.start_sidecar(instance))
    try:
        for instance in instances:
            started = stage.processes[f"{instance.name}.sidecar"]
            mesh.run(stage.ready(started, instance.admin))
        yield
    finally:
        for instance in instances:
            mesh.kill(f"{instance.name}.sidecar")
