"""h2spec, an outside judge of HTTP/2 (RFC 9113, RFC 7541), puts all its cases to both listeners."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.identities import fetched
from tests.e2e.mesh import Mesh
from tests.e2e.tls_tunnel import tunnel

SOURCE = Path(__file__).parent / "h2spec"
PROGRAM = "github.com/summerwind/h2spec/cmd/h2spec"
CLIENT_PORT = 9101  # of the example's catalog
PATH = "/h2spec"
AGAIN = 3
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


@pytest.fixture(scope="module")
def open_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """A mesh in which what h2spec asks for is allowed, and so answered by an application.

    An answer of the mesh's own may come before h2spec has done to the stream what it wants judged.
    """
    before = mesh.head()
    mesh.commit_and_wait(
        {"authz/h2spec.csv": f"p, allow, shopfront, bookstore/catalog, any, {PATH}\n"}
    )
    yield mesh
    mesh.reset(before)


def failures(h2spec: Path, host: str, port: int, directory: Path) -> list[str]:
    """Put every case to a port, and return what did not hold.

    Sections with a failure are asked again: an application, too, may have answered first.
    """
    wrong = asked(h2spec, host, port, directory / "report.xml", at_least=CASES)
    for attempt in range(AGAIN):
        sections = sorted({section for section, _ in wrong})
        if sections:
            wrong = asked(h2spec, host, port, directory / f"again-{attempt}.xml", *sections)
    return [f"{section}: {reason}" for section, reason in wrong]


def asked(
    h2spec: Path, host: str, port: int, report: Path, *sections: str, at_least: int = 1
) -> list[tuple[str, str]]:
    """Put the cases of those sections, or else all; return section and reason of each failure."""
    arguments = ["--host", host, "--port", str(port), "--path", PATH, "--timeout", "5"]
    done = subprocess.run(
        [h2spec, *sections, *arguments, "--junit-report", report],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    cases = list(ET.parse(report).iter("testcase"))
    assert len(cases) >= at_least, done.stdout + done.stderr
    wrong = [each for each in cases if any(e.tag in {"failure", "error", "skipped"} for e in each)]
    return [(str(each.get("package")), _reason(each)) for each in wrong]


def _reason(case: ET.Element) -> str:
    return f"{case.get('classname')}: " + " ".join("".join(case.itertext()).split())


def test_inbound_speaks_http2_as_specified(open_mesh: Mesh, h2spec: Path, tmp_path: Path) -> None:
    identity = fetched(open_mesh, "bookstore/web", tmp_path)
    with tunnel(open_mesh.instance("catalog-1").inbound, identity, "h2") as port:
        assert failures(h2spec, "127.0.0.1", port, tmp_path) == []


def test_outbound_speaks_http2_as_specified(open_mesh: Mesh, h2spec: Path, tmp_path: Path) -> None:
    assert failures(h2spec, open_mesh.instance("web-1").address, CLIENT_PORT, tmp_path) == []
