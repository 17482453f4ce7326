"""Decisions in the sidecar's code against pycasbin's, of the same lines: `make bench ONLY=authz`.

All lines concern one destination. Once they are spread over 200 callers of which one asks, and once
all of them name the one that asks. pycasbin is asked by its own readers and its own `enforce`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from garrison.authz import (
    DEFAULT_MODEL,
    AuthorizationSources,
    Compiled,
    Request,
    SourceFile,
    compile_authorization,
)
from garrison.authz.oracle import Oracle
from tests.bench import load
from tests.bench.figures import OURS, Effort, Figures
from tests.bench.load import VoidRunError

DESTINATION = "bench/api"
CALLERS = tuple(f"team-{number % 7}/service-{number}" for number in range(200))
REQUESTS = 100  # of different lines
THEIRS = "pycasbin"


@dataclass(frozen=True, slots=True)
class Shape:
    """How lines are spread over callers."""

    suffix: str
    callers: tuple[str, ...]


SHAPES = (Shape("", CALLERS), Shape("_one_caller", CALLERS[:1]))


async def measure(effort: Effort, say: Callable[[str], None]) -> Figures:
    """Time both; raise `VoidRunError` where they disagree."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="garrison-bench-") as directory:
        for shape in SHAPES:
            for count in effort.lines:
                say(f"{count} lines{shape.suffix}")
                await _measure(Path(directory), shape, count, effort, figures)
    return figures


async def _measure(
    directory: Path, shape: Shape, count: int, effort: Effort, figures: Figures
) -> None:
    start = time.process_time()
    compiled = _compile(shape, count)
    rules = compiled.rules(DESTINATION)
    if not shape.suffix:
        took = time.process_time() - start
        figures.add(f"compile_ms_{count}_lines", OURS, took * 1e3)
    (directory / "deny").write_bytes(rules.deny.SerializeToString())
    (directory / "allow").write_bytes(rules.allow.SerializeToString())
    asked = [_request(shape, number * count // REQUESTS) for number in range(REQUESTS)]
    lines = (json.dumps({"method": each.method, "path": each.path}) for each in asked)
    (directory / "requests").write_text("\n".join(lines), encoding="utf-8")
    namespace, _, account = CALLERS[0].partition("/")
    allowed: list[bool] = []
    for _ in range(effort.rounds):
        ours = await load.decisions(
            deny=directory / "deny",
            allow=directory / "allow",
            requests=directory / "requests",
            host="api.bench",
            principal=f"spiffe://bench.example/ns/{namespace}/sa/{account}",
            seconds=min(effort.seconds, 0.5),
        )
        allowed = ours["allowed"]
        figures.add(f"decision_us{shape.suffix}_{count}_lines", OURS, ours["us"])
    figure = f"decision_us{shape.suffix}_{count}_lines"
    expected = list(zip(asked, allowed, strict=True))
    for took in _ask_casbin(compiled, expected, effort.seconds):
        figures.add(figure, THEIRS, took)


def _ask_casbin(
    compiled: Compiled, expected: list[tuple[Request, bool]], seconds: float
) -> Iterator[float]:
    """Ask as many as there is time for: at 100,000 lines one answer takes a second."""
    oracle = Oracle.whole(compiled.compilation)
    until = time.monotonic() + seconds
    for request, ours in expected:
        start = time.thread_time()
        allowed = oracle.allows(request)
        yield (time.thread_time() - start) * 1e6
        if allowed != ours:
            raise VoidRunError(f"{request}: pycasbin says {allowed}, the sidecar {ours}")
        if time.monotonic() > until:
            return


def _compile(shape: Shape, count: int) -> Compiled:
    text = "".join(
        f"p, allow, {shape.callers[line % len(shape.callers)]}, {DESTINATION}, read, "
        f"{_path(line, line // len(shape.callers))}\n"
        for line in range(count)
    )
    deny = f"p, deny, {CALLERS[0]}, {DESTINATION}, any, {_path(0, 0)}\n"
    sources = AuthorizationSources(
        DEFAULT_MODEL, (SourceFile("authz/bench.csv", text), SourceFile("authz/deny.csv", deny))
    )
    return compile_authorization(sources, "bench.example", (DESTINATION,), CALLERS)


def _path(line: int, turn: int) -> str:
    """Of a caller's four lines one is an exact path, one a prefix, two have a variable segment."""
    return (
        f"/api/v1/collection-{line}/items",
        f"/api/v1/collection-{line}/*",
        f"/api/v1/collection-{line}/:id",
        f"/api/:version/collection-{line}/*",
    )[turn % 4]


def _request(shape: Shape, line: int) -> Request:
    """Ask for what a line allows its caller; every other time by another method."""
    turn = line // len(shape.callers)
    line = turn * len(shape.callers)
    method = "GET" if turn % 2 == 0 else "DELETE"
    return Request(CALLERS[0], DESTINATION, method, f"/api/v1/collection-{line}/items")
