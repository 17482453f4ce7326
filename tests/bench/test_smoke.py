"""The benchmark runs, and what it finds is whole; how fast anything is, is no matter here."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench import authz_part, ca_part, ground, policy_part, proxy_part, report
from tests.bench.figures import OURS, Effort, Figures
from tests.bench.load import VoidRunError, run_load
from tests.bench.programs import find_peers

pytestmark = pytest.mark.xdist_group("machine")
TINY = Effort(rounds=1, seconds=0.1, proxies=(20,), lines=(10, 500), connections=20, namespaces=2)
SECONDS = 240.0  # catches a hang


@dataclass(frozen=True)
class Measured:
    """What came of each part that stands on a mesh."""

    proxy: Figures
    ca: Figures
    policy: Figures


@pytest.fixture(scope="module")
def measured() -> Measured:
    async def measure() -> Measured:
        async with asyncio.timeout(SECONDS), ground.stage() as stage:
            return Measured(
                await proxy_part.measure_on(stage, TINY, find_peers(), silently),
                await ca_part.measure_on(stage, TINY, silently),
                await policy_part.measure_on(stage, TINY, silently),
            )

    return asyncio.run(measure())


def silently(_: str) -> None:
    """Say nothing."""


def test_pairs_of_sidecars_answer_rightly_under_every_load(measured: Measured) -> None:
    peers, figures = find_peers(), measured.proxy
    assert "envoy" in peers.found, peers.missing
    contenders = frozenset({OURS, *peers.found})
    assert {frozenset(by) for by in figures.samples.values()} == {contenders}
    assert {course.figure for course in proxy_part.COURSES} < set(figures.samples)
    assert figures.facts["handshake_group"][OURS] == "X25519MLKEM768"
    assert figures.facts["handshake_group"]["envoy"] == "X25519MLKEM768"


def test_a_part_is_reported_beside_the_others(measured: Measured, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    report.write("proxy", measured.proxy, report.machine(), file)
    report.write("ca", measured.ca, report.machine(), file)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert set(written["proxy"]["cpu_us_per_request"]) >= {OURS, "envoy"}
    assert written["proxy"]["cpu_us_per_request"][OURS] > 0
    low, high = written["spread"]["proxy"]["rss_mb_idle"][OURS]
    assert 0 < low <= written["proxy"]["rss_mb_idle"][OURS] <= high
    assert written["ca"]["svids_per_second"][OURS] > 0
    report.plot("proxy", measured.proxy, tmp_path / "plots")
    assert (tmp_path / "plots" / "proxy-cpu_us_per_request.svg").is_file()


def test_the_ca_answers_rightly_under_load(measured: Measured) -> None:
    assert {"svids_per_second", "cpu_us_per_svid"} < set(measured.ca.samples)


def test_a_change_reaches_every_simulated_sidecar(measured: Measured) -> None:
    wanted = {"compile_cold_ms", "compile_changed_ms", "change_last_ms_20", "rss_mb_20"}
    assert wanted < set(measured.policy.samples)


def test_the_sidecar_and_pycasbin_agree_while_they_are_timed() -> None:
    figures = asyncio.run(authz_part.measure(TINY, silently))
    both = {OURS, authz_part.THEIRS}
    for count in TINY.lines:
        assert set(figures.samples[f"decision_us_{count}_lines"]) == both
        assert set(figures.samples[f"decision_us_one_caller_{count}_lines"]) == both


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\0\1\2\4", "another body"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\0\1\2", "content-length"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 4\r\n\r\n\0\1\2\3", "not 200"),
    ],
)
def test_a_wrong_answer_voids_the_run(answer: bytes, told: str) -> None:
    with pytest.raises(VoidRunError, match=told):
        asyncio.run(asked_of(answer))


def test_right_answers_do_not() -> None:
    asyncio.run(asked_of(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\0\1\2\3"))


async def asked_of(answer: bytes) -> None:
    """Load somebody who always answers the same."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        options = {"target": f"{host}:{port}", "host": "x", "path": "/4", "connections": 1}
        await run_load("closed", 0.1, **options)
