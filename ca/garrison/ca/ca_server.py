"""The CA as a process: its state opened and checked, its parts wired, its three ports served.

Nothing listens before everything is checked. A part that ends by an error ends the process: what is
left of a CA is worse than none.
"""

import asyncio
import ctypes
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from garrison.ca.bundle import load_bundle
from garrison.ca.bundle_service import LIMITS, BundleService
from garrison.ca.certificate_service import MAX_REQUEST_BYTES, CertificateService
from garrison.ca.entries import EntrySource
from garrison.ca.entries_follower import EntriesFollower
from garrison.ca.issuance import Issuance
from garrison.ca.keys import read_passphrase
from garrison.ca.metrics import exposition
from garrison.ca.outcomes import Tally
from garrison.ca.quota import Quota, Rate
from garrison.ca.serving import OwnIdentity, token_port_credentials
from garrison.ca.settings import CaSettings, OidcSettings
from garrison.ca.state import StateDirectory
from garrison.ca.status import CaStatus, NamedKeys
from garrison.identity import admin_port
from garrison.identity.attestation import Attestor
from garrison.identity.credentials import Credentials, server_credentials, utc_now
from garrison.identity.errors import RejectedError
from garrison.identity.istio_ca_pb2_grpc import add_IstioCertificateServiceServicer_to_server
from garrison.identity.jwks import MAX_JWKS_BYTES, parse_jwks
from garrison.identity.jwks_source import JwksFile, JwksUrl, KeySource
from garrison.identity.listening import PortUnavailableError, check_free
from garrison.identity.oidc import OidcAttestor
from garrison.identity.settings import SettingsError
from garrison.identity.trust import Trust
from garrison.xds.server import server_options

_PR_SET_DUMPABLE = 4  # linux/prctl.h
THREADS = 64  # that issue: most wait for the disk, all for the same transaction
MAX_CONCURRENT_REQUESTS = 2000
STOP = timedelta(seconds=2)  # for what is under way when the CA goes
EXPIRY_WARNING = timedelta(days=30)

Clock = Callable[[], datetime]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Running:
    """Where a running CA listens."""

    certificates: int
    bundles: int
    admin: int
    status: CaStatus


@dataclass(frozen=True, slots=True)
class _Parts:
    certificates: CertificateService
    bundles: BundleService
    entries: EntriesFollower
    credentials: Credentials
    trust: Trust
    status: CaStatus


async def serve(settings: CaSettings, source: EntrySource) -> None:
    """Run until SIGTERM or SIGINT."""
    _forbid_dumps()
    for issuer in settings.attestors:
        if issuer.jwks_file is not None:
            _check_keys(issuer.jwks_file)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, source):
        log.info("ca ready", listen=settings.listen, bundle_listen=settings.bundle_listen)
        await stop.wait()


def _forbid_dumps() -> None:
    """Keep the issuing key out of core dumps, and from who attaches to this process.

    The limit alone does not hold where the kernel pipes cores to a program (core(5)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _check_keys(file: Path) -> None:
    """Tell a mistake at the start; a file that goes or breaks later does not stop the CA."""
    try:
        with file.open("rb") as opened:
            parse_jwks(opened.read(MAX_JWKS_BYTES + 1))
    except OSError as error:
        text = f"jwks_file {file}: cannot be read: {error.strerror}"
        raise SettingsError(f"{text}: name a file with the issuer's keys") from error
    except RejectedError as error:
        raise SettingsError(f"jwks_file {file}: {error}: a JWK Set is wanted") from error


@asynccontextmanager
async def running(
    settings: CaSettings, source: EntrySource, clock: Clock = utc_now
) -> AsyncIterator[Running]:
    """Serve while the block runs.

    Raises `StateRejectedError`, `StoreUnavailableError`, `IssuerUnavailableError` or
    `PortUnavailableError`, before anything is served.
    """
    with (
        ThreadPoolExecutor(THREADS, "issuance") as executor,
        _opened(settings, executor, clock) as parts,
    ):
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(parts.credentials.keep_renewed()),
                tasks.create_task(parts.entries.follow(source)),
                *(tasks.create_task(keys.source.run()) for keys in parts.status.keys),
            ]
            try:
                await parts.credentials.newer_than(None)
                async with _listening(settings, parts) as found:
                    yield found
            finally:
                for task in background:
                    task.cancel()


@contextmanager
def _opened(settings: CaSettings, executor: ThreadPoolExecutor, clock: Clock) -> Iterator[_Parts]:
    state = StateDirectory(settings.state)
    state.check()
    authority = state.open_authority(settings.domain, read_passphrase(settings.passphrase_file))
    lifetimes = settings.svid.lifetimes
    authority.validity(clock(), lifetimes.default)
    if authority.not_after - clock() < EXPIRY_WARNING:
        log.warning("the issuing certificate or root expires", at=authority.not_after.isoformat())
    store = state.open_store(clock)
    try:
        bundle = load_bundle(settings.domain, state.roots, authority.root, store)
        trust = Trust(state.roots)
        trust.replace(bundle.pem)
        issuance = Issuance(authority, store, lifetimes, clock)
        credentials = Credentials(OwnIdentity(issuance, lifetimes, executor).create, clock)
        entries = EntriesFollower(settings.domain, store, timedelta(seconds=settings.poll_seconds))
        attestors, keys = _attestors(settings, clock)
        bundles, tally = BundleService(bundle, clock), Tally()
        certificates = CertificateService(
            attestors, entries, _quota(settings), issuance, tally, executor
        )
        status = CaStatus(authority, credentials, bundles, entries, keys, store, tally, clock)
        yield _Parts(certificates, bundles, entries, credentials, trust, status)
    finally:
        store.close()


def _attestors(settings: CaSettings, clock: Clock) -> tuple[list[Attestor], list[NamedKeys]]:
    attestors: list[Attestor] = []
    named = []
    for each in settings.attestors:
        source = _key_source(each)
        attestors.append(OidcAttestor(each.name, each.accepted, source, clock))
        named.append(NamedKeys(each.name, each.issuer, source))
    return attestors, named


def _key_source(settings: OidcSettings) -> KeySource:
    if settings.jwks_file is not None:
        return JwksFile(settings.jwks_file, time.monotonic)
    return JwksUrl(settings.jwks_url or "", time.monotonic)


def _quota(settings: CaSettings) -> Quota:
    limits = settings.limits
    overall = Rate(limits.per_second, limits.burst)
    each = Rate(limits.identity_per_second, limits.identity_burst)
    return Quota(overall, each, time.monotonic)


@asynccontextmanager
async def _listening(settings: CaSettings, parts: _Parts) -> AsyncIterator[Running]:
    certificates = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),  # or two CAs share a port silently
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 300_000),
        ),
        maximum_concurrent_rpcs=MAX_CONCURRENT_REQUESTS,
    )
    add_IstioCertificateServiceServicer_to_server(parts.certificates, certificates)
    bundles = grpc.aio.server(options=server_options(LIMITS))
    bundles.add_generic_rpc_handlers((parts.bundles.server.handler(),))
    credentials = parts.credentials
    open_to_tokens = token_port_credentials(credentials)
    open_to_svids = server_credentials(credentials, parts.trust)
    ports = (
        _add_port(certificates, settings.listen, "listen", open_to_tokens),
        _add_port(bundles, settings.bundle_listen, "bundle_listen", open_to_svids),
    )
    async with admin_port.serving(settings.admin_listen, _routes(parts.status)) as admin:
        try:
            await certificates.start()
            await bundles.start()
            yield Running(*ports, admin, parts.status)
        finally:
            await certificates.stop(STOP.total_seconds())
            await bundles.stop(0)


def _add_port(
    server: grpc.aio.Server, address: str, setting: str, credentials: grpc.ServerCredentials
) -> int:
    check_free(address, setting)
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortUnavailableError(address, setting, str(error)) from error


def _routes(status: CaStatus) -> list[web.RouteDef]:
    async def whole(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(status.as_json))

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(exposition, status)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        *admin_port.health_routes(status.lacking),
        web.get("/status", whole),
        web.get("/metrics", metrics),
    ]
