"""A whole CA on loopback, its token issuer, and callers of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509

from garrison.ca import ca_server
from garrison.ca.ca_server import Running
from garrison.ca.entries import EntriesAtCommit
from garrison.ca.keys import KeyType, write_file
from garrison.ca.settings import CaSettings, LimitSettings, OidcSettings, SvidSettings
from garrison.ca.state import StateDirectory
from garrison.identity.errors import GarrisonError
from garrison.identity.istio_ca_pb2 import IstioCertificateRequest
from garrison.identity.istio_ca_pb2_grpc import IstioCertificateServiceStub
from garrison.identity.registration import RegistrationEntry, parse_selector
from garrison.identity.spiffe_id import parse_spiffe_id
from tests.ca.authorities import PASSPHRASE, TRUST_DOMAIN, make_csr
from tests.identity.tokens import AUDIENCE, ISSUER, SUBJECT, TokenIssuer

POLICY = parse_spiffe_id("spiffe://example.org/ns/garrison/sa/policy-server")
POLICY_SUBJECT = "system:serviceaccount:garrison:policy-server"
TWICE = "system:serviceaccount:shop:twice"
_OVERRIDE = (("grpc.ssl_target_name_override", "ca.garrison"),)


def entry(path: str, subject: str, *more: str, dns_names: Sequence[str] = ()) -> RegistrationEntry:
    selectors = (f"local:sub:{subject}", f"local:iss:{ISSUER}", *more)
    spiffe_id = parse_spiffe_id(f"spiffe://example.org{path}")
    parsed = frozenset(map(parse_selector, selectors))
    return RegistrationEntry(spiffe_id, parsed, None, tuple(dns_names))


ENTRIES = (
    entry("/ns/shop/sa/web", SUBJECT),
    entry(POLICY.path, POLICY_SUBJECT, dns_names=["policy.garrison"]),
    entry("/ns/shop/sa/one", TWICE),
    replace(
        entry("/ns/shop/sa/two", TWICE), selectors=frozenset({parse_selector(f"local:sub:{TWICE}")})
    ),
)


class Repository:
    """An `EntrySource` whose commits the test makes."""

    def __init__(self, *entries: RegistrationEntry) -> None:
        self.current: EntriesAtCommit | GarrisonError = EntriesAtCommit("1" * 40, entries)

    async def next_entries(self, known_commit: str | None) -> EntriesAtCommit:
        while True:
            if isinstance(self.current, GarrisonError):
                raise self.current
            if self.current.commit != known_commit:
                return self.current
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Mesh:
    """A running CA and what a caller of it has."""

    running: Running
    roots: bytes
    issuer: TokenIssuer
    repository: Repository

    def token(self, subject: str = SUBJECT, **claims: object) -> str:
        now = int(datetime.now(UTC).timestamp())
        return self.issuer.token(**{"sub": subject, "iat": now, "exp": now + 600, **claims})

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        address = f"127.0.0.1:{self.running.certificates}"
        credentials = grpc.ssl_channel_credentials(self.roots)
        async with grpc.aio.secure_channel(address, credentials, _OVERRIDE) as channel:
            yield channel

    async def ask(
        self,
        token: str | None = None,
        csr: str | None = None,
        seconds: int = 0,
        metadata: Sequence[tuple[str, str]] | None = None,
    ) -> list[str]:
        """Ask for a certificate; the answer is its chain."""
        request = IstioCertificateRequest(csr=csr or make_csr(), validity_duration=seconds)
        bearer = (("authorization", f"Bearer {token or self.token()}"),)
        async with self.channel() as channel:
            response = await IstioCertificateServiceStub(channel).CreateCertificate(
                request, metadata=bearer if metadata is None else metadata, timeout=10
            )
        return list(response.cert_chain)


def make_settings(directory: Path, **changes: object) -> CaSettings:
    """Make state and passphrase in `directory`, and settings of a CA on any ports."""
    if not (directory / "state").exists():
        StateDirectory(directory / "state").create(TRUST_DOMAIN, KeyType.P256, PASSPHRASE)
        write_file(directory / "passphrase", PASSPHRASE.secret)
    oidc = OidcSettings(
        name="local",
        kind="oidc",
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks_file=directory / "jwks.json",
        algorithms=("ES256",),
    )
    settings = CaSettings(
        trust_domain=TRUST_DOMAIN.name,
        state=directory / "state",
        passphrase_file=directory / "passphrase",
        repository="unused",
        poll_seconds=0.05,
        listen="127.0.0.1:0",
        bundle_listen="127.0.0.1:0",
        admin_listen="127.0.0.1:0",
        svid=SvidSettings(),
        limits=LimitSettings(),
        attestors=(oidc,),
    )
    return settings.model_copy(update=changes)


@asynccontextmanager
async def meshed(
    directory: Path, repository: Repository | None = None, **changes: object
) -> AsyncIterator[Mesh]:
    """Run a CA that knows `ENTRIES` (or those of `repository`) while the block runs."""
    issuer = TokenIssuer()
    (directory / "jwks.json").write_bytes(issuer.jwks())
    settings = make_settings(directory, **changes)
    repository = repository or Repository(*ENTRIES)
    roots = (directory / "state" / "roots.pem").read_bytes()
    async with asyncio.timeout(60), ca_server.running(settings, repository) as running:
        mesh = Mesh(running, roots, issuer, repository)
        if isinstance(repository.current, EntriesAtCommit):
            commit = repository.current.commit
            await until(lambda: running.status.entries.commit == commit)
        yield mesh


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110  # it is told to nobody
            await asyncio.sleep(0.01)


def leaf(chain: Sequence[str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain[0].encode())


def life(chain: Sequence[str]) -> timedelta:
    return leaf(chain).not_valid_after_utc - datetime.now(UTC)
