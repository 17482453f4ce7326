"""What the CA signs, asked as sidecars ask it: `make bench ONLY=ca`."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from garrison.deploy.demo.stage import Stage
from garrison.identity.certificate_client import CA_SERVER_NAME
from garrison.identity.istio_ca_pb2 import IstioCertificateRequest
from tests.bench import ground
from tests.bench.cost import cpu_of, resident_mb
from tests.bench.figures import OURS, Effort, Figures
from tests.bench.load import run_load
from tests.bench.repository import CALLER

CALLERS = 32  # connections, each with one request at a time, as sidecars have
METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
UNLIMITED = """
[limits]
per_second = 1000000.0
burst = 1000000
identity_per_second = 1000000.0
identity_burst = 1000000
"""


async def measure(effort: Effort, say: Callable[[str], None]) -> Figures:
    """Ask for SVIDs in a closed loop; each answer must have a chain."""
    async with ground.stage() as stage:
        return await measure_on(stage, effort, say)


async def measure_on(stage: Stage, effort: Effort, say: Callable[[str], None]) -> Figures:
    """Do so on a stage whose CA may be restarted."""
    figures = Figures()
    await _lift_limits(stage)
    client = await ground.identity(stage, CALLER)
    message = stage.places.directory / "request.bin"
    message.write_bytes(_request())
    say("svids_per_second")
    ca = stage.processes["ca"].pid
    for _ in range(effort.rounds):
        before = cpu_of([ca])
        outcome = await run_load(
            "grpc",
            effort.seconds,
            target=stage.places.ca,
            host=CA_SERVER_NAME,
            path=METHOD,
            message=message,
            token=stage.places.token(CALLER),
            connections=CALLERS,
            streams=1,
            identity=client,
            name=CA_SERVER_NAME,
        )
        cost = (cpu_of([ca]) - before).total
        figures.add("svids_per_second", OURS, outcome.answers / outcome.seconds)
        figures.add("cpu_us_per_svid", OURS, cost / outcome.answers * 1e6)
        figures.add("svid_p50_us", OURS, outcome.p50_us)
        figures.add("svid_p99_us", OURS, outcome.p99_us)
    figures.add("rss_mb", OURS, resident_mb(ca))
    return figures


async def _lift_limits(stage: Stage) -> None:
    """Start the CA again, without the quotas that keep one caller from having all of it."""
    settings = stage.places.settings("ca")
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text + UNLIMITED, encoding="utf-8")
    await stage.processes["ca"].end()
    await stage.start_ca()


def _request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return IstioCertificateRequest(csr=pem, validity_duration=3600).SerializeToString()
