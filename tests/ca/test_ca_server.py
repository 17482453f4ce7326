"""The CA over the wire: who gets a certificate, who does not, and what each is told."""

import asyncio
import json
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import aiohttp
import grpc
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from garrison.ca import ca_server
from garrison.ca.audit import Kind, verify
from garrison.ca.entries import EntriesAtCommit
from garrison.ca.settings import LimitSettings, SvidSettings
from garrison.ca.state import StateDirectory
from garrison.identity.errors import UnavailableError
from garrison.identity.istio_ca_pb2 import IstioCertificateRequest
from garrison.identity.istio_ca_pb2_grpc import IstioCertificateServiceStub
from garrison.identity.listening import PortUnavailableError
from garrison.identity.peer import spiffe_id_of
from tests.ca.authorities import WEB, make_csr, open_ca
from tests.ca.running import (
    ENTRIES,
    POLICY,
    POLICY_SUBJECT,
    TWICE,
    Mesh,
    Repository,
    entry,
    leaf,
    life,
    make_settings,
    meshed,
    until,
)
from tests.documents import documented_metrics, exposed_metrics
from tests.identity.tokens import SUBJECT, TokenIssuer

Answer = TypeVar("Answer")
Code = grpc.StatusCode


def with_mesh(
    directory: Path, use: Callable[[Mesh], Awaitable[Answer]], **changes: object
) -> Answer:
    async def run() -> Answer:
        async with meshed(directory, **changes) as mesh:  # type: ignore[arg-type]  # settings
            return await use(mesh)

    return asyncio.run(run())


async def refused(asked: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await asked
    return refusal.value


def test_a_token_gets_the_identity_that_its_entry_names(tmp_path: Path) -> None:
    chain = with_mesh(tmp_path, lambda mesh: mesh.ask())
    issuing, root = (x509.load_pem_x509_certificate(pem.encode()) for pem in chain[1:])
    assert spiffe_id_of(leaf(chain)) == WEB
    leaf(chain).verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    assert (tmp_path / "state" / "roots.pem").read_text() == chain[2]
    assert timedelta(hours=5, minutes=59) < life(chain) <= timedelta(hours=6)


def test_an_entry_brings_its_dns_names(tmp_path: Path) -> None:
    chain = with_mesh(tmp_path, lambda mesh: mesh.ask(mesh.token(POLICY_SUBJECT)))
    names = leaf(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["policy.garrison"]
    assert spiffe_id_of(leaf(chain)) == POLICY


def test_bad_tokens_are_unauthenticated_and_not_told_why(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> list[tuple[grpc.StatusCode, str | None]]:
        good = mesh.token()
        head, body, signature = good.split(".")
        bad = [
            mesh.token(aud="other"),
            mesh.token(exp=1, iat=0),
            mesh.token(nbf=4_000_000_000, exp=4_000_000_001),
            mesh.token(exp=None),
            mesh.token(iss="https://other.example"),
            TokenIssuer(kid=mesh.issuer.kid).token(),
            f"eyJhbGciOiJub25lIn0.{body}.",
            f"{head}.{body}.{signature[:-4]}AAAA",
            "x",
        ]
        refusals = [await refused(mesh.ask(token)) for token in bad]
        unusual: tuple[list[tuple[str, str]], ...] = (
            [],
            [("authorization", good)],
            [("authorization", f"Basic {good}")],
            [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")],
        )
        refusals += [await refused(mesh.ask(metadata=metadata)) for metadata in unusual]
        assert await mesh.ask(metadata=[("authorization", f"bearer {good}")])
        return [(each.code(), each.details()) for each in refusals]

    told = with_mesh(tmp_path, use)
    assert set(told) == {(Code.UNAUTHENTICATED, "the bearer token is not accepted")}
    assert len(told) == 13


def test_who_has_no_entry_or_two_is_denied(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> list[grpc.aio.AioRpcError]:
        subjects = ("system:serviceaccount:shop:nobody", TWICE)
        with structlog.testing.capture_logs() as logs:
            refusals = [await refused(mesh.ask(mesh.token(subject))) for subject in subjects]
        reasons = [str(log["reason"]) for log in logs if log["event"] == "certificate refused"]
        assert "local:sub:system:serviceaccount:shop:nobody" in reasons[0]
        assert "2 entries" in reasons[1]
        return refusals

    for refusal in with_mesh(tmp_path, use):
        assert refusal.code() is Code.PERMISSION_DENIED
        assert "shop" not in (refusal.details() or "")


def test_a_bad_csr_is_an_invalid_argument(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> list[grpc.aio.AioRpcError]:
        csrs = (
            "x",
            make_csr(ec.generate_private_key(ec.SECP224R1())),
            make_csr(rsa.generate_private_key(65537, 1024)),
        )
        refusals = [await refused(mesh.ask(csr=csr)) for csr in csrs]
        refusals.append(await refused(mesh.ask(seconds=-1)))
        refusals.append(await refused(mesh.ask(seconds=-(2**63))))
        return refusals

    assert {each.code() for each in with_mesh(tmp_path, use)} == {Code.INVALID_ARGUMENT}


def test_a_csr_for_somebody_else_gets_ones_own_identity(tmp_path: Path) -> None:
    wanted = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(POLICY))])
    csr = make_csr(None, "root", (wanted, x509.BasicConstraints(ca=True, path_length=None)))
    chain = with_mesh(tmp_path, lambda mesh: mesh.ask(csr=csr))
    assert spiffe_id_of(leaf(chain)) == WEB


def test_an_over_long_life_is_clamped(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> list[timedelta]:
        return [life(await mesh.ask(seconds=seconds)) for seconds in (2**63 - 1, 172_800, 20)]

    longest, longer, short = with_mesh(tmp_path, use)
    assert timedelta(hours=23) < longer <= timedelta(hours=24)
    assert timedelta(hours=23) < longest <= timedelta(hours=24)
    assert short <= timedelta(seconds=20)


def test_an_oversized_request_is_refused(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> grpc.StatusCode:
        return (await refused(mesh.ask(csr="x" * 1_000_000))).code()

    assert with_mesh(tmp_path, use) is Code.RESOURCE_EXHAUSTED


def test_an_identity_has_a_quota_of_its_own(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> None:
        for _ in range(3):
            await mesh.ask()
        refusal = await refused(mesh.ask())
        assert refusal.code() is Code.RESOURCE_EXHAUSTED
        trailing = dict(refusal.trailing_metadata() or ())
        assert 1 <= int(trailing["retry-after-seconds"]) <= 10
        assert await mesh.ask(mesh.token(POLICY_SUBJECT))

    limits = LimitSettings(identity_per_second=0.1, identity_burst=3)
    with_mesh(tmp_path, use, limits=limits)


def test_entries_follow_the_repository_and_outlive_it(tmp_path: Path) -> None:
    repository = Repository(*ENTRIES)

    async def use(mesh: Mesh) -> None:
        assert await mesh.ask()
        repository.current = EntriesAtCommit("2" * 40, ENTRIES[1:])
        await until(lambda: mesh.running.status.entries.commit == "2" * 40)
        assert (await refused(mesh.ask())).code() is Code.PERMISSION_DENIED
        foreign = entry("/ns/shop/sa/web", SUBJECT)
        repository.current = EntriesAtCommit("3" * 40, (foreign, foreign))
        await until(lambda: mesh.running.status.entries.problem is not None)
        assert mesh.running.status.entries.commit == "2" * 40
        repository.current = UnavailableError("the repository is away")
        await until(lambda: "away" in str(mesh.running.status.entries.problem))
        assert await mesh.ask(mesh.token(POLICY_SUBJECT))

    async def again(mesh: Mesh) -> None:
        assert mesh.running.status.entries.commit == "2" * 40
        assert await mesh.ask(mesh.token(POLICY_SUBJECT))

    with_mesh(tmp_path, use, repository=repository)
    with_mesh(tmp_path, again, repository=repository)


def test_without_keys_of_the_issuer_one_may_come_again(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> grpc.aio.AioRpcError:
        return await refused(mesh.ask())

    issuer = (
        make_settings(tmp_path)
        .attestors[0]
        .model_copy(update={"jwks_file": tmp_path / "absent.json"})
    )
    refusal = with_mesh(tmp_path, use, attestors=(issuer,))
    assert refusal.code() is Code.UNAVAILABLE
    assert dict(refusal.trailing_metadata() or ())["retry-after-seconds"] == "2"


def test_the_cas_own_certificate_is_an_svid_that_is_renewed(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> None:
        first = await served_certificate(mesh.running.certificates, mesh.roots)
        assert first.serial_number == served_serial(mesh)
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["ca.garrison", "localhost"]
        assert str(spiffe_id_of(first)) == "spiffe://example.org/ns/garrison/sa/ca"
        serial = first.serial_number
        await until(lambda: served_serial(mesh) != serial)
        second = await served_certificate(mesh.running.certificates, mesh.roots)
        assert second.serial_number == served_serial(mesh)
        assert await mesh.ask()

    with_mesh(tmp_path, use, svid=SvidSettings(default_seconds=6, max_seconds=6))


def test_every_certificate_has_its_row(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> set[int]:
        tokens = [mesh.token(subject) for subject in (SUBJECT, POLICY_SUBJECT) * 4]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(mesh.ask(token)) for token in tokens]
        return {leaf(task.result()).serial_number for task in asked}

    serials = with_mesh(tmp_path, use)
    ca = open_ca(StateDirectory(tmp_path / "state"))
    rows = list(ca.store.audit_rows())
    ca.store.close()
    assert verify(rows).sequence == len(rows)
    signed = {json.loads(row.details)["serial"] for row in rows if row.kind == Kind.SIGNED.value}
    assert {f"{serial:x}" for serial in serials} <= signed
    assert len(signed) == 9  # the CA's own as well


def test_neither_token_nor_csr_is_logged(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> None:
        token, csr = mesh.token(), make_csr()
        expired = mesh.token(exp=1, iat=0)
        with structlog.testing.capture_logs() as logs:
            await mesh.ask(token, csr)
            await refused(mesh.ask(expired, csr))
        told = json.dumps(logs, default=str)
        assert "certificate issued" in told
        assert "certificate refused" in told
        secrets = [*token.split("."), *expired.split("."), csr.splitlines()[1]]
        assert not [secret for secret in secrets[1:] if secret in told]

    with_mesh(tmp_path, use)


def test_plain_connections_and_strangers_are_not_served(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> None:
        for port in (mesh.running.certificates, mesh.running.bundles):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = IstioCertificateServiceStub(channel)
                request = IstioCertificateRequest(csr="x")
                refusal = await refused(stub.CreateCertificate(request, timeout=5))
                assert refusal.code() is Code.UNAVAILABLE

    with_mesh(tmp_path, use)


def test_what_operators_see(tmp_path: Path) -> None:
    async def use(mesh: Mesh) -> None:
        await mesh.ask()
        await refused(mesh.ask(mesh.token(aud="other")))
        base = f"http://127.0.0.1:{mesh.running.admin}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/status") as response:
                status = await response.json()
            async with session.get(f"{base}/metrics") as response:
                metrics = await response.text()
            async with session.get(f"{base}/ready") as response:
                assert (response.status, (await response.json())["ready"]) == (200, True)
            async with session.get(f"{base}/live") as response:
                assert response.status == 200
            async with session.get(f"{base}/status", headers={"Host": "evil.example"}) as response:
                assert response.status == 403
        assert status["trust_domain"] == "example.org"
        assert status["entries"] == {"commit": "1" * 40, "count": 4, "problem": None}
        assert status["issuing_key"]["expires_in_seconds"] > 300 * 86400
        assert status["svids"]["live"] == 2
        identities = [each["spiffe_id"] for each in status["svids"]["identities"]]
        assert identities == ["spiffe://example.org/ns/garrison/sa/ca", str(WEB)]
        assert status["bundle"]["sequence"] == 1
        assert status["requests"]["issued"] == 1
        assert status["attestors"][0]["keys_age_seconds"] == 0
        assert 'garrison_ca_requests_total{outcome="issued"} 1.0' in metrics
        assert 'garrison_ca_requests_total{outcome="unauthenticated"} 1.0' in metrics
        assert "garrison_ca_issuing_key_expiry_timestamp_seconds 1." in metrics
        assert "garrison_ca_live_svids 2.0" in metrics
        assert exposed_metrics(metrics) == documented_metrics("ca/README.md")

    with_mesh(tmp_path, use)


@pytest.mark.parametrize("port", ["listen", "bundle_listen", "admin_listen"])
def test_a_port_in_use_is_told(tmp_path: Path, port: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = make_settings(tmp_path, **{port: address})

        async def run() -> None:
            async with ca_server.running(settings, Repository()):
                raise AssertionError("it must not run")

        with pytest.raises(ExceptionGroup) as failed:
            asyncio.run(run())
    assert failed.group_contains(PortUnavailableError, match=f"{address}.*`{port}`")


def test_node_as_a_second_tls_stack_accepts_the_ca(tmp_path: Path) -> None:
    program = """
const tls = require("tls"), fs = require("fs");
const socket = tls.connect({host: "127.0.0.1", port: Number(process.argv[2]),
  ca: fs.readFileSync(process.argv[3]), servername: "ca.garrison", ALPNProtocols: ["h2"]}, () => {
  const names = socket.getPeerCertificate().subjectaltname;
  console.log(JSON.stringify([socket.authorized, socket.getProtocol(), names]));
  socket.end();
});
socket.on("error", (error) => { console.log(JSON.stringify([false, String(error), ""])); });
"""

    async def use(mesh: Mesh) -> list[object]:
        roots = str(tmp_path / "state" / "roots.pem")
        process = await asyncio.create_subprocess_exec(
            "node",
            "-e",
            program,
            "--",
            "_",
            str(mesh.running.certificates),
            roots,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        found: list[object] = json.loads(out)
        return found

    authorized, protocol, names = with_mesh(tmp_path, use)
    assert (authorized, protocol) == (True, "TLSv1.3")
    assert "spiffe://example.org/ns/garrison/sa/ca" in str(names)


def served_serial(mesh: Mesh) -> int:
    svid = mesh.running.status.credentials.svid
    assert svid
    return svid.leaf.serial_number


async def served_certificate(port: int, roots: bytes) -> x509.Certificate:
    context = ssl.create_default_context(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="ca.garrison"
    )
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    reader.feed_eof()
    return x509.load_der_x509_certificate(der)
