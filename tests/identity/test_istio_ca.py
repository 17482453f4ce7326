"""The generated files are what the proto generates, and speak Istio's wire format."""

import subprocess
import sys
from pathlib import Path

import pytest

from garrison.identity.istio_ca_pb2 import IstioCertificateRequest, IstioCertificateResponse

ROOT = Path(__file__).parents[2]
PROTO = "garrison/identity/istio_ca.proto"
GENERATED = ("istio_ca_pb2.py", "istio_ca_pb2.pyi", "istio_ca_pb2_grpc.py")


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("generated")
    flags = [f"--{kind}={target}" for kind in ("python_out", "grpc_python_out", "pyi_out")]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        str(ROOT / "identity"),
        *flags,
        PROTO,
    ]
    subprocess.run(command, check=True, timeout=60)
    return target / "garrison" / "identity"


@pytest.mark.parametrize("name", GENERATED)
def test_generating_again_gives_the_same_file(regenerated: Path, name: str) -> None:
    kept = ROOT / "identity" / "garrison" / "identity" / name
    assert (regenerated / name).read_text() == kept.read_text()


def test_a_request_has_istios_field_numbers() -> None:
    request = IstioCertificateRequest(csr="x", validity_duration=60, metadata={"a": "b"})
    assert [(field.number, field.name) for field, _ in request.ListFields()] == [
        (1, "csr"),
        (3, "validity_duration"),
        (4, "metadata"),
    ]
    assert IstioCertificateRequest(csr="x", validity_duration=60).SerializeToString() == (
        b"\x0a\x01x\x18\x3c"
    )


def test_a_response_has_istios_field_numbers() -> None:
    assert IstioCertificateResponse(cert_chain=["a", "b"]).SerializeToString() == (
        b"\x0a\x01a\x0a\x01b"
    )
