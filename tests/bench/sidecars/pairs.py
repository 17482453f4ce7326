"""Starts a pair of each kind, all of them side by side, in front of one application."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.processes import Process, Program
from garrison.deploy.demo.stage import Stage
from garrison.identity.errors import UnavailableError
from tests.bench.figures import OURS
from tests.bench.ground import identity
from tests.bench.load import words
from tests.bench.programs import Peers
from tests.bench.repository import CALLEE, CALLER
from tests.bench.sidecars.envoy import ENVOY
from tests.bench.sidecars.haproxy import HAPROXY
from tests.bench.sidecars.nginx import NGINX
from tests.bench.sidecars.topology import (
    H2,
    Applications,
    Identities,
    Kind,
    Pair,
    Plan,
    Ports,
)

KINDS = (ENVOY, HAPROXY, NGINX)
FIRST_HOST = 31  # of the stage's network, for the peers
LISTENING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Field:
    """All pairs that run, and who they are."""

    pairs: tuple[Pair, ...]
    identities: Identities


async def field(stage: Stage, peers: Peers) -> Field:
    """Start the application, our pair (which the stage has), and those of the peers."""
    identities = Identities(await identity(stage, CALLER), await identity(stage, CALLEE))
    applications = await _applications(stage)
    pairs = [await _ours(stage)]
    hosts = iter(range(FIRST_HOST, 200))
    for kind in KINDS:
        if kind.name not in peers.found:
            continue
        for protocol in kind.protocols:
            ports = Ports(
                stage.places.network.host(next(hosts)), stage.places.network.host(next(hosts))
            )
            directory = (
                stage.places.directory / "peers" / f"{kind.name}-{protocol.replace('/', '')}"
            )
            directory.mkdir(parents=True)
            program = peers.found[kind.name]
            plan = Plan(kind.name, program, protocol, ports, identities, applications, directory)
            pairs.append(await _theirs(stage, kind, plan))
    return Field(tuple(pairs), identities)


async def end(stage: Stage, pair: Pair) -> None:
    """End a peer's pair that is measured no further."""
    for name in pair.processes:
        await stage.processes[name].end()


async def _applications(stage: Stage) -> Applications:
    """Put the load's application in the place of the demo's."""
    http, rpc = stage.instance("api-1"), stage.instance("rpc-1")
    for instance in (http, rpc):
        await stage.processes[instance.name].end()
    command = words("upstream", {"http1": http.application, "http2": rpc.application})
    await stage.processes.start(Program("upstream", tuple(command)))
    for instance in (http, rpc):
        await listens(instance.application)
    return Applications(http.application, rpc.application)


async def _ours(stage: Stage) -> Pair:
    """Start the sidecars again without access log, which the peers have none of either."""
    names = ("client-1", "api-1", "rpc-1")
    sidecars = [await _quietly(stage, stage.instance(name)) for name in names]
    client, api = stage.instance("client-1"), stage.instance("api-1")
    return Pair(
        name=OURS,
        protocol=H2,
        entrance=client.outbound,
        grpc_entrance=client.outbound,
        door=api.inbound,
        clients=(sidecars[0].pid,),
        servers=(sidecars[1].pid, sidecars[2].pid),
        authorizes=True,
        processes=tuple(each.program.name for each in sidecars),
    )


async def _quietly(stage: Stage, instance: Instance) -> Process:
    name = f"{instance.name}.sidecar"
    await stage.processes[name].end()
    settings = stage.places.settings(instance.name)
    text = settings.read_text(encoding="utf-8")
    settings.write_text(f'access_log = "off"\n{text}', encoding="utf-8")
    process = await stage.processes.start(stage.processes[name].program)
    await stage.ready(process, instance.admin)
    return process


async def _theirs(stage: Stage, kind: Kind, plan: Plan) -> Pair:
    client, server = kind.programs(plan)
    processes = [await stage.processes.start(program) for program in (client, server)]
    ports = plan.ports
    for address in (ports.entrance, ports.grpc_entrance, ports.door, ports.grpc_door):
        await listens(address)
    return Pair(
        name=kind.name,
        protocol=plan.protocol,
        entrance=ports.entrance,
        grpc_entrance=ports.grpc_entrance,
        door=ports.door,
        clients=(processes[0].pid,),
        servers=(processes[1].pid,),
        authorizes=kind.authorizes,
        processes=(client.name, server.name),
    )


async def listens(address: str) -> None:
    """Wait until somebody accepts connections there."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(LISTENING_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.close()
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise UnavailableError(f"nobody listens on {address}") from None
