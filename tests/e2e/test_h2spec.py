"""h2spec, an outside judge of HTTP/2 (RFC 9113, RFC 7541), puts all its cases to both listeners."""

from __future__ import annotations

import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.identities import fetched
from tests.e2e.mesh import Mesh
from tests.e2e.tls_tunnel import tunnel

SOURCE = Path(__file__).parent / "h2spec"
PROGRAM = "github.com/summerwind/h2spec/cmd/h2spec"
CASES = 140  # fewer were asked than it knows: it did not get through
BUILD_SECONDS = 300
SECONDS = 180


@pytest.fixture(scope="module")
def h2spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build h2spec at the version that go.sum pins; Go keeps what it compiled between runs."""
    executable = tmp_path_factory.mktemp("h2spec") / "h2spec"
    command = ["go", "build", "-o", str(executable), PROGRAM]
    subprocess.run(command, cwd=SOURCE, check=True, timeout=BUILD_SECONDS)
    return executable


def failures(h2spec: Path, host: str, port: int, directory: Path) -> list[str]:
    """Put every case to a port, and return what did not hold."""
    report = directory / "report.xml"
    arguments = ["--host", host, "--port", str(port), "--path", "/books/7", "--timeout", "5"]
    done = subprocess.run(
        [h2spec, *arguments, "--junit-report", report],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    cases = list(ET.parse(report).iter("testcase"))
    assert len(cases) >= CASES, done.stdout + done.stderr
    wrong = [each for each in cases if any(e.tag in {"failure", "error", "skipped"} for e in each)]
    return [f"{each.get('package')}: {each.get('classname')}: {_reason(each)}" for each in wrong]


def _reason(case: ET.Element) -> str:
    return " ".join("".join(case.itertext()).split())


def test_inbound_speaks_http2_as_specified(mesh: Mesh, h2spec: Path, tmp_path: Path) -> None:
    identity = fetched(mesh, "bookstore/web", tmp_path)
    with tunnel(mesh.instance("catalog-1").inbound, identity, "h2") as port:
        assert failures(h2spec, "127.0.0.1", port, tmp_path) == []


def test_outbound_speaks_http2_as_specified(mesh: Mesh, h2spec: Path, tmp_path: Path) -> None:
    host, _, port = mesh.instance("web-1").outbound.rpartition(":")
    assert failures(h2spec, host, int(port), tmp_path) == []
