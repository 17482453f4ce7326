"""The ports of CA and policy server speak TLS 1.3 and nothing older, as OpenSSL sees them."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.mesh import Mesh

SECONDS = 60.0  # a limit for a hang


def negotiated(address: str, version: str) -> str:
    """Shake hands by one version; return the protocol and suite, which are none if it failed."""
    command = ("openssl", "s_client", "-connect", address, version, "-alpn", "h2")
    done = subprocess.run(command, input=b"", capture_output=True, timeout=SECONDS, check=False)
    lines = done.stdout.decode("latin-1").splitlines()
    return next(line for line in lines if "Cipher is" in line)


@pytest.mark.parametrize("port", ["ca", "bundles", "policy"])
def test_tls_before_1_3_is_refused(mesh: Mesh, port: str) -> None:
    address: str = getattr(mesh.stage.places, port)
    assert negotiated(address, "-tls1_3").startswith("New, TLSv1.3, Cipher is TLS_")
    assert negotiated(address, "-tls1_2").endswith("Cipher is (NONE)")
