"""The scenes of the demo. Each makes something happen, watches it, and says what it saw.

A scene that did not see what it is named for raises `SceneFailedError`: nothing is assumed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import aiohttp

from garrison.deploy.demo.instances import Instance
from garrison.deploy.demo.load import call_many, steady_load
from garrison.deploy.demo.observer import Answer
from garrison.deploy.demo.stage import Stage
from garrison.deploy.demo.summary import Check
from garrison.identity.errors import GarrisonError, UnavailableError

SCENE_SECONDS = 90.0
POLL_SECONDS = 0.02
WAIT_SECONDS = 40.0
BOOK = "http://catalog.bookstore/books/7"
ROUTE = "routes/catalog.yaml"
STABLE, CANARY = 90, 10  # the example's weights, in percent
SAMPLE = 1000
SIGMAS = 4.0  # a fair split strays as far as this once in 15,000 runs
WITHIN_RETRY_BUDGET = 3  # at once: as many retries as the example allows however few the calls
ACKNOWLEDGE_SECONDS = 0.5  # what a commit may take from its push to the last proxy
PUSHES = 3  # of which one must be that quick: a machine may be busy with something else
PROBES = 1  # calls by which an ejected instance is tried, in the time that the scene looks


class SceneFailedError(UnavailableError):
    """What the scene is named for did not happen."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene: the name of its check, what it is about, and how it is played."""

    name: str
    about: str
    play: Callable[[Stage], Awaitable[str]]


async def play(scene: Scene, stage: Stage) -> Check:
    """Play a scene to its end, good or bad, within `SCENE_SECONDS`."""
    try:
        async with asyncio.timeout(SCENE_SECONDS):
            return Check(scene.name, ok=True, detail=await scene.play(stage))
    except TimeoutError:
        return Check(scene.name, ok=False, detail=f"not within {SCENE_SECONDS:.0f} s")
    except (GarrisonError, aiohttp.ClientError) as error:
        return Check(scene.name, ok=False, detail=str(error) or repr(error))


async def allowed_call(stage: Stage) -> str:
    """Read a book as web: it arrives, and the callee's log names the line that allows it."""
    request_id = str(uuid4())
    answer = await stage.observer.call(_web(stage), BOOK, headers={"x-request-id": request_id})
    _expect(answer.status == HTTPStatus.OK, f"GET {BOOK}: {_told(answer)}")
    line = await _inbound_line(stage, request_id)
    return f"web read a book from {line['node']}; allowed by {_policy_line(stage, line)}"


async def denied_call(stage: Stage) -> str:
    """Ask payments as an operator: it refuses, and its log names the line that denies it."""
    (operator,) = stage.instances_of("ops/admin")
    answer = await stage.observer.call(operator, "http://payments.bookstore/health")
    _expect(answer.status == HTTPStatus.FORBIDDEN, f"an operator reached payments: {_told(answer)}")
    line = await _inbound_line(stage, answer.request_id)
    _expect(bool(line["rule"]), f"{line['node']} names no line that denies it")
    return f"{line['node']} refused an operator ({answer.code}): {_policy_line(stage, line)}"


async def canary_split(stage: Stage) -> str:
    """Count the calls that reach the new version: one in ten."""
    share = await _expect_share(stage, CANARY)
    return f"{share} of {SAMPLE} calls reached v2; its weight is {CANARY} %"


async def commit_shifts_traffic(stage: Stage) -> str:
    """Turn the weights round by a commit: traffic follows once every proxy has it."""
    before = commit = await stage.policies.head()
    times: list[float] = []
    while not times or (min(times) > ACKNOWLEDGE_SECONDS and len(times) < PUSHES):
        await stage.policies.reset(before)
        await _until(lambda: stage.all_enforce(before), "the commit was not taken back")
        message = "send most readers to v2"
        commit = await stage.policies.commit_only({ROUTE: _turned(stage)}, message)
        times.append(await _push_and_wait(stage, commit))
    told = " and ".join(f"{seconds * 1000:.0f} ms" for seconds in times)
    _expect(min(times) <= ACKNOWLEDGE_SECONDS, f"the last proxy acknowledged after {told}")
    share = await _expect_share(stage, STABLE)
    await stage.policies.reset(before)
    await _until(lambda: stage.all_enforce(before), "the commit was not taken back")
    return (
        f"every proxy acknowledged {commit[:7]} within {told} of its push; "
        f"then {share} of {SAMPLE} calls reached v2"
    )


async def failing_instance_retried(stage: Stage) -> str:
    """Make an instance answer 503 to everything: no caller notices."""
    before = await stage.observer.metric(_web(stage), "garrison_upstream_retries_total")
    stage.fault(_failing(stage).name).touch()
    tally = await call_many(stage.observer, _web(stage), BOOK, 100, WITHIN_RETRY_BUDGET)
    retries = await stage.observer.metric(_web(stage), "garrison_upstream_retries_total") - before
    _expect(not tally.failures, f"callers saw {dict(tally.failures)}")
    _expect(retries > 0, "nothing was retried")
    return f"{_failing(stage).name} fails; {tally.calls} calls, 0 failed, {retries:.0f} retried"


async def failing_instance_ejected(stage: Stage) -> str:
    """Watch the failing instance get no more traffic."""
    name = _failing(stage).name
    told = ""

    async def seen() -> bool:
        nonlocal told
        before = await _ejection(stage)
        tally = await call_many(stage.observer, _web(stage), BOOK, 50)
        _expect(not tally.failures, f"callers saw {dict(tally.failures)}")
        after = await _ejection(stage)
        if not before.now or before.total != after.total or not after.now:
            return False  # it was ejected, or tried again, in between
        reached = after.reached - before.reached
        _expect(reached <= PROBES, f"{reached:.0f} calls reached {name} while it was ejected")
        told = f"of {tally.calls} calls {reached:.0f} reached it ({PROBES} may, to try it)"
        return True

    await _until(seen, f"{name} was not ejected")
    return f"web's sidecar ejected {name}: {told}"


async def instance_recovers(stage: Stage) -> str:
    """Mend the instance: it gets traffic again."""
    failing = _failing(stage)
    stage.fault(failing.name).unlink()
    began = time.monotonic()

    async def serves() -> bool:
        tally = await call_many(stage.observer, _web(stage), BOOK, 20)
        _expect(not tally.failures, f"callers saw {dict(tally.failures)}")
        return tally.instances[failing.name] > 0

    await _until(serves, f"{failing.name} gets no traffic")
    return f"{failing.name} served again {time.monotonic() - began:.1f} s after it was mended"


async def svid_rotation_no_failure(stage: Stage) -> str:
    """Wait under load until every sidecar has a new certificate: no call fails."""
    started = await _renewals(stage)

    async def all_renewed() -> bool:
        now = await _renewals(stage)
        return all(now[name] > started[name] for name in started)

    async with steady_load(stage.observer, _web(stage), BOOK, per_second=80) as tally:
        await _until(all_renewed, "not every SVID was renewed")
    _expect(not tally.failures, f"callers saw {dict(tally.failures)}")
    return f"all {len(started)} SVIDs were renewed during {tally.calls} calls; 0 failed"


async def bad_commit_refused(stage: Stage) -> str:
    """Push a mistake: it is refused whole, with its place; the last good commit stays."""
    good = await stage.policies.head()
    bad = await stage.policies.commit(
        {"authz/mistake.csv": "p, alow, bookstore/web, bookstore/catalog, read, /*\n"}, "mistype"
    )
    try:
        refusal = await _refusal(stage, bad)
        _expect("authz/mistake.csv:1" in refusal, f"the refusal names no place: {refusal}")
        _expect(await stage.all_enforce(good), "a proxy left the last good commit")
        answer = await stage.observer.call(_web(stage), BOOK)
        _expect(answer.status == HTTPStatus.OK, f"GET {BOOK}: {_told(answer)}")
    finally:
        await stage.policies.reset(good)
    return f"{bad[:7]} was refused: {refusal}; {good[:7]} stays in force"


async def proxies_converged(stage: Stage) -> str:
    """Ask every proxy what it enforces: the newest commit."""
    head = await stage.policies.head()
    await _until(lambda: stage.all_enforce(head), f"not every proxy is at {head[:7]}")
    return f"{len(stage.population.instances)} proxies enforce {head[:7]}"


SCENES = (
    Scene("allowed-call", "web reads a book", allowed_call),
    Scene("denied-call", "an operator asks payments", denied_call),
    Scene("canary-split", "one call in ten goes to the new version", canary_split),
    Scene("commit-shifts-traffic", "a commit turns the weights round", commit_shifts_traffic),
    Scene("failing-instance-retried", "an instance fails", failing_instance_retried),
    Scene("failing-instance-ejected", "it gets no more traffic", failing_instance_ejected),
    Scene("instance-recovers", "it works again", instance_recovers),
    Scene("svid-rotation-no-failure", "all SVIDs are renewed under load", svid_rotation_no_failure),
    Scene("bad-commit-refused", "somebody pushes a mistake", bad_commit_refused),
    Scene("proxies-converged", "every proxy is asked what it enforces", proxies_converged),
)


def _web(stage: Stage) -> Instance:
    return stage.instances_of("bookstore/web")[0]


def _failing(stage: Stage) -> Instance:
    """Return the instance that is made to fail: one of several of the same version."""
    return stage.instances_of("bookstore/catalog")[1]


def _expect(claim: bool, otherwise: str) -> None:  # noqa: FBT001  # a claim
    if not claim:
        raise SceneFailedError(otherwise)


def _told(answer: Answer) -> str:
    return f"{answer.status} {answer.code or answer.body[:200].decode(errors='replace')}"


async def _until(claim: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not await claim():
        _expect(time.monotonic() < deadline, f"{otherwise} after {WAIT_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


async def _inbound_line(stage: Stage, request_id: str) -> dict[str, Any]:
    """Find the callee's own account of a request in the sidecars' access logs."""
    deadline = time.monotonic() + WAIT_SECONDS
    wanted = {"direction": "inbound", "request_id": request_id}
    while time.monotonic() < deadline:
        for instance in stage.population.instances:
            for line in stage.observer.access_log(instance, **wanted):
                return line
        await asyncio.sleep(POLL_SECONDS)
    raise SceneFailedError(f"no sidecar logged the request {request_id}")


def _policy_line(stage: Stage, line: dict[str, Any]) -> str:
    """Quote the line of policy that decided."""
    file, _, number = line["rule"].rpartition(":")
    text = stage.policies.read(file).splitlines()[int(number) - 1]
    return f"{line['rule']}: {' '.join(text.split())}"


async def _expect_share(stage: Stage, percent: int) -> int:
    """Call `SAMPLE` times, and expect that share of v2 within `SIGMAS` standard deviations."""
    tally = await call_many(stage.observer, _web(stage), BOOK, SAMPLE)
    _expect(not tally.failures, f"callers saw {dict(tally.failures)}")
    share = percent / 100
    stray = SIGMAS * math.sqrt(SAMPLE * share * (1 - share))
    seen = tally.versions["v2"]
    _expect(abs(seen - SAMPLE * share) <= stray, f"{seen} of {SAMPLE} calls reached v2")
    return seen


def _turned(stage: Stage) -> str:
    """Return the route with its two weights exchanged."""
    stable, canary = f"weight: {STABLE}", f"weight: {CANARY}"
    parts = [part.replace(canary, stable) for part in stage.policies.read(ROUTE).split(stable)]
    return canary.join(parts)


async def _push_and_wait(stage: Stage, commit: str) -> float:
    """Push, and return the seconds from then until every proxy had acknowledged the commit."""
    began = time.monotonic()
    await stage.policies.push()
    await _until(lambda: stage.all_enforce(commit), f"not every proxy acknowledged {commit[:7]}")
    return time.monotonic() - began


async def _refusal(stage: Stage, commit: str) -> str:
    """Wait until the status tells why a commit was refused, and return that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        refused = (await stage.observer.status())["refused"]
        if refused and refused["commit"] == commit:
            first = refused["diagnostics"][0]
            return f"{first['file']}:{first['line']}: {first['reason']}"
        await asyncio.sleep(POLL_SECONDS)
    raise SceneFailedError(f"the status does not tell of the refusal of {commit[:7]}")


@dataclass(frozen=True, slots=True)
class _Ejection:
    now: float  # endpoints that web's sidecar leaves alone
    total: float  # how often it began to
    reached: float  # requests that the failing instance's sidecar has had


async def _ejection(stage: Stage) -> _Ejection:
    web, metric = _web(stage), stage.observer.metric
    return _Ejection(
        await metric(web, "garrison_upstream_ejected_endpoints"),
        await metric(web, "garrison_upstream_ejections_total"),
        await metric(_failing(stage), "garrison_requests_total", direction="inbound"),
    )


async def _renewals(stage: Stage) -> dict[str, float]:
    return {
        each.name: await stage.observer.metric(each, "garrison_svid_renewals_total")
        for each in stage.population.instances
    }
