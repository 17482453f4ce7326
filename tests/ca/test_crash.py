"""`kill -9` of `garrison ca serve` under load: every certificate that somebody got is on record."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509

from garrison.ca.audit import verify
from garrison.ca.keys import KeyType, Passphrase, write_file
from garrison.ca.state import StateDirectory
from garrison.identity.credentials import utc_now
from garrison.identity.istio_ca_pb2 import IstioCertificateRequest
from garrison.identity.istio_ca_pb2_grpc import IstioCertificateServiceStub
from garrison.identity.spiffe_id import parse_trust_domain
from tests.ca.authorities import make_csr
from tests.identity.tokens import AUDIENCE, ISSUER, TokenIssuer
from tests.policies import git_trees
from tests.policies.bookstore import example_texts
from tests.policies.policy_mesh import free_host

SECONDS = 90.0  # a limit for what hangs
SUBJECT = "system:serviceaccount:bookstore:web"
CALLERS = 8
FEW = 40  # certificates, before it dies
SETTINGS = """\
trust_domain = "bookstore.example"
state = "state"
passphrase_file = "passphrase"
listen = "HOST:15012"
bundle_listen = "HOST:15013"
admin_listen = "HOST:15014"
repository = "policy.git"
poll_seconds = 0.1

[[attestors]]
name = "local"
kind = "oidc"
issuer = "ISSUER"
audience = "AUDIENCE"
jwks_file = "jwks.json"
algorithms = ["ES256"]
"""
PASS = b"correct horse battery staple"


def make(directory: Path, host: str, issuer: TokenIssuer) -> Path:
    StateDirectory(directory / "state").create(
        parse_trust_domain("bookstore.example"), KeyType.P256, Passphrase(PASS)
    )
    write_file(directory / "passphrase", PASS)
    (directory / "jwks.json").write_bytes(issuer.jwks())
    with git_trees.bare(directory / "policy.git") as repo:
        git_trees.commit(repo, git_trees.nested(example_texts()))
    text = SETTINGS.replace("HOST", host).replace("ISSUER", ISSUER).replace("AUDIENCE", AUDIENCE)
    (directory / "ca.toml").write_text(text)
    return directory / "ca.toml"


@contextlib.contextmanager
def serving(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "garrison.deploy", "ca", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


async def ask_until_it_dies(
    process: subprocess.Popen[bytes], host: str, roots: bytes, token: str
) -> list[str]:
    """Ask with several callers, and kill the CA in the middle; return the serials that came."""
    released: list[str] = []
    override = (("grpc.ssl_target_name_override", "ca.garrison"),)
    metadata = (("authorization", f"Bearer {token}"),)
    request = IstioCertificateRequest(csr=make_csr())

    async def ask(stub: IstioCertificateServiceStub) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                response = await stub.CreateCertificate(request, metadata=metadata, timeout=20)
                leaf = x509.load_pem_x509_certificate(response.cert_chain[0].encode())
                released.append(f"{leaf.serial_number:x}")
                if len(released) == FEW:
                    process.send_signal(signal.SIGKILL)

    credentials = grpc.ssl_channel_credentials(roots)
    async with grpc.aio.secure_channel(f"{host}:15012", credentials, override) as channel:
        stub = IstioCertificateServiceStub(channel)
        await first_answer(stub, request, metadata)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(ask(stub))
    return released


async def first_answer(
    stub: IstioCertificateServiceStub,
    request: IstioCertificateRequest,
    metadata: tuple[tuple[str, str]],
) -> None:
    """Wait until the CA is up and has read its entries."""
    while True:
        try:
            await stub.CreateCertificate(
                request, metadata=metadata, timeout=20, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017
            await asyncio.sleep(0.05)
        else:
            return


def test_every_certificate_that_was_handed_out_is_on_record(tmp_path: Path) -> None:
    issuer, host = TokenIssuer(), free_host()
    config = make(tmp_path, host, issuer)
    now = int(datetime.now(UTC).timestamp())
    token = issuer.token(sub=SUBJECT, iat=now, exp=now + 3600)
    roots = (tmp_path / "state" / "roots.pem").read_bytes()
    for _ in range(2):  # the second starts from what the first left
        with serving(config) as process:
            asyncio.run(bounded(process, host, roots, token, tmp_path))
            assert process.wait(SECONDS) == -signal.SIGKILL


async def bounded(
    process: subprocess.Popen[bytes], host: str, roots: bytes, token: str, directory: Path
) -> None:
    async with asyncio.timeout(SECONDS):
        released = await ask_until_it_dies(process, host, roots, token)
    assert len(released) >= FEW
    with contextlib.closing(StateDirectory(directory / "state").open_store(utc_now)) as store:
        rows = list(store.audit_rows())
    assert verify(rows).sequence == len(rows)
    prepared = "".join(row.details for row in rows if row.kind == "issuance prepared")
    signed = "".join(row.details for row in rows if row.kind == "issuance signed")
    assert all(serial in prepared and serial in signed for serial in released)
