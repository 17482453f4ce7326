"""Pairs of sidecars in one topology, measured in turn: `make bench ONLY=proxy`."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median

import aiohttp

from garrison.deploy.demo.stage import Stage
from tests.bench import ground
from tests.bench.cost import Cpu, cpu_of, resident_mb
from tests.bench.figures import Effort, Figures, in_turn
from tests.bench.load import Outcome, VoidRunError, run_load, running_load
from tests.bench.programs import Peers
from tests.bench.repository import (
    GRPC_HOST,
    HTTP_HOST,
    METHOD,
    REFUSED,
    path_of,
)
from tests.bench.sidecars import pairs
from tests.bench.sidecars.topology import Identities, Pair

MANY = 32
RATE = 2000  # requests a second where it is fixed
SHAKERS = 8
WARM_SECONDS = 0.3
OK = 200
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Course:
    """A load, and the figure that its cost is."""

    figure: str
    load: Callable[[Pair, float], Awaitable[Outcome]]


async def measure(effort: Effort, peers: Peers, say: Say) -> Figures:
    """Measure all pairs; raise `VoidRunError` if any answer was wrong."""
    async with ground.stage() as stage:
        return await measure_on(stage, effort, peers, say)


async def measure_on(stage: Stage, effort: Effort, peers: Peers, say: Say) -> Figures:
    """Do so on a stage that has not been used."""
    figures = Figures()
    field = await pairs.field(stage, peers)
    idle = {pair: resident_mb(pair.servers[0]) for pair in field.pairs}
    for pair in field.pairs:
        await check(pair)
    say("protocols between, memory")
    contenders = await _cheapest(stage, field.pairs, effort, figures)
    for pair in contenders:
        figures.add("rss_mb_idle", pair.name, idle[pair])
        await _memory(pair, field.identities, effort, figures)
    for course in COURSES:
        say(course.figure)
        for pair in in_turn(contenders, effort.rounds):
            await _run(course, pair, effort, figures)
    say("latency at a fixed rate")
    for pair in in_turn(contenders, effort.rounds):
        await _latency(pair, effort, figures)
    say("handshakes")
    for pair in in_turn(contenders, effort.rounds):
        await _handshakes(pair, field.identities, effort, figures)
    return figures


async def check(pair: Pair) -> None:
    """Hold a pair to what it is there for: it answers, and refuses what no line allows."""
    await http(1, 16)(pair, WARM_SECONDS)
    await grpc(pair, WARM_SECONDS)
    async with aiohttp.ClientSession(headers={"host": HTTP_HOST}) as client:
        with contextlib.suppress(aiohttp.ClientError):  # refused in the handshake, or by an answer
            url = f"https://{pair.door}{path_of(16)}"
            async with client.get(url, ssl=_anonymous()) as answer:
                if answer.status == OK:
                    raise VoidRunError(f"{pair.name} answers whoever has no certificate")
        if pair.authorizes:
            async with client.get(f"http://{pair.entrance}{REFUSED}") as answer:
                if answer.status == OK:
                    raise VoidRunError(f"{pair.name} answers {REFUSED}, which no line allows")


def _anonymous() -> ssl.SSLContext:
    """Make TLS of a client that trusts anybody and has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def http(connections: int, size: int) -> Callable[[Pair, float], Awaitable[Outcome]]:
    """Make a closed loop."""

    def load(pair: Pair, seconds: float) -> Awaitable[Outcome]:
        return run_load(
            "closed",
            seconds,
            target=pair.entrance,
            host=HTTP_HOST,
            path=path_of(size),
            connections=connections,
        )

    return load


def grpc(pair: Pair, seconds: float) -> Awaitable[Outcome]:
    """Make unary calls with 1 KB both ways, eight at once on each of four connections."""
    return run_load(
        "grpc",
        seconds,
        target=pair.grpc_entrance,
        host=GRPC_HOST,
        path=METHOD,
        connections=4,
        streams=MANY // 4,
    )


MAIN = Course("cpu_us_per_request", http(MANY, 1024))
COURSES = (
    MAIN,
    Course("cpu_us_per_request_1_connection", http(1, 1024)),
    Course("cpu_us_per_request_64kb", http(MANY, 64 * 1024)),
    Course("cpu_us_per_request_64kb_1_connection", http(1, 64 * 1024)),
    Course("cpu_us_per_request_grpc", grpc),
)


async def _cost(course: Course, pair: Pair, seconds: float) -> tuple[Cpu, Outcome]:
    before = cpu_of(pair.all)
    outcome = await course.load(pair, seconds)
    return cpu_of(pair.all) - before, outcome


async def _run(course: Course, pair: Pair, effort: Effort, figures: Figures) -> None:
    cost, outcome = await _cost(course, pair, effort.seconds)
    figures.add(course.figure, pair.name, cost.total / outcome.answers * 1e6)
    if course is MAIN:
        figures.add("kernel_us_per_request", pair.name, cost.system / outcome.answers * 1e6)
        figures.add("requests_per_second", pair.name, outcome.answers / outcome.seconds)


async def _cheapest(
    stage: Stage, field: Sequence[Pair], effort: Effort, figures: Figures
) -> list[Pair]:
    """Keep of each peer the protocol that costs it less, and end the other."""
    costs: dict[Pair, list[float]] = {pair: [] for pair in field}
    for pair in in_turn(field, 2):
        cost, outcome = await _cost(MAIN, pair, min(effort.seconds, 2.0))
        costs[pair].append(cost.total / outcome.answers)
    best: dict[str, Pair] = {}
    for pair in sorted(field, key=lambda each: median(costs[each])):
        best.setdefault(pair.name, pair)
    for pair in field:
        if best[pair.name] is pair:
            figures.note("protocol_between", pair.name, pair.protocol)
        else:
            await pairs.end(stage, pair)
    return [pair for pair in field if best[pair.name] is pair]


async def _memory(pair: Pair, identities: Identities, effort: Effort, figures: Figures) -> None:
    server = pair.servers[0]
    held = running_load(
        "held",
        target=pair.door,
        host=HTTP_HOST,
        path=path_of(1024),
        connections=effort.connections,
        identity=identities.client,
        name=HTTP_HOST,
    )
    async with held as running:
        await running.line()
        figures.add(f"rss_mb_{effort.connections}_connections", pair.name, resident_mb(server))
        running.stop()
        if (await running.line())["right"] != effort.connections:
            raise VoidRunError(f"{pair.name} has not held {effort.connections} connections")


async def _latency(pair: Pair, effort: Effort, figures: Figures) -> None:
    outcome = await run_load(
        "paced",
        effort.seconds,
        target=pair.entrance,
        host=HTTP_HOST,
        path=path_of(1024),
        connections=MANY,
        rate=RATE,
    )
    figures.add("p50_us", pair.name, outcome.p50_us)
    figures.add("p99_us", pair.name, outcome.p99_us)


async def _handshakes(pair: Pair, identities: Identities, effort: Effort, figures: Figures) -> None:
    """Count what the server's side does in a second on a processor."""
    before = cpu_of(pair.servers[:1])
    outcome = await run_load(
        "handshakes",
        effort.seconds,
        target=pair.door,
        connections=SHAKERS,
        identity=identities.client,
        name=HTTP_HOST,
    )
    cost = cpu_of(pair.servers[:1]) - before
    figures.add("handshakes_per_cpu_second", pair.name, outcome.answers / cost.total)
    figures.note("handshake_group", pair.name, ", ".join(outcome.more))
