"""The ground that parts stand on: a real CA and policy server, and SVIDs as files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from garrison.deploy.demo.network import random_block
from garrison.deploy.demo.stage import Options, Stage, open_stage
from garrison.identity.certificate_client import CaAccess, CertificateClient
from garrison.identity.trust import Trust
from tests.bench.repository import write_repository
from tests.fakes.certificates import Pair

SVID_SECONDS = 7200


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Open a mesh of the measured repository, on a network of its own."""
    with tempfile.TemporaryDirectory(prefix="garrison-bench-") as directory:
        options = Options(
            first_network=random_block(),
            svid_seconds=SVID_SECONDS,
            example=write_repository(Path(directory) / "repository"),
        )
        async with open_stage(options) as opened:
            yield opened


async def identity(opened: Stage, name: str) -> Path:
    """Have the CA sign for NAMESPACE/ACCOUNT; return the directory of svid.pem and the like."""
    places = opened.places
    access = CaAccess(
        address=places.ca,
        roots=places.roots,
        token=places.token(name),
        svid_seconds=SVID_SECONDS,
    )
    svid = await CertificateClient(access, Trust(places.roots)).create()
    pem = serialization.Encoding.PEM
    chain = b"".join(certificate.public_bytes(pem) for certificate in svid.cert_chain)
    key = svid.private_key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    directory = places.directory / "identities" / name.replace("/", ".")
    return Pair(key, chain).write(directory, places.roots.read_bytes())
