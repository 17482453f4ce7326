"""The policy server: one repository, one snapshot, and the streams that carry it.

Nothing is served before there is an SVID, a trust bundle and a whole snapshot; from then on the
last good of each stays. Whose configuration a client gets is the SPIFFE ID in its certificate; its
node says only where it listens and which dialect it speaks.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

import grpc
import structlog
from spiffe import TrustDomain

from garrison.identity.bundle_client import BundleClient
from garrison.identity.certificate_client import CertificateClient, read_token
from garrison.identity.credentials import Credentials, server_credentials, utc_now
from garrison.identity.listening import PortUnavailableError, check_free
from garrison.identity.peer import TlsPeer, peer_of
from garrison.identity.spiffe_id import parse_spiffe_id
from garrison.identity.trust import Trust
from garrison.policies import admin_server
from garrison.policies.binding import Binding
from garrison.policies.convergence import Census, as_json, kind_of
from garrison.policies.diagnostics import Diagnostic, Place
from garrison.policies.encoded import MARKER
from garrison.policies.errors import (
    BindingRejectedError,
    CommitRefusedError,
)
from garrison.policies.last_good import LastGood
from garrison.policies.policy_settings import PolicySettings
from garrison.policies.publication import CommitSource, OutcomeKind, Publication
from garrison.policies.snapshot import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES, Snapshot
from garrison.xds.client import Client, StreamRefusedError
from garrison.xds.resource import View
from garrison.xds.server import DiscoveryServer, server_options
from garrison.xds.service import AGGREGATED, Limits, Service, TypeRule
from garrison.xds.session import Discovery

if TYPE_CHECKING:
    from garrison.xds.session import Context

ADS = Service(
    AGGREGATED,
    (
        TypeRule(CLUSTER, wildcard_if_unnamed=True),
        TypeRule(ENDPOINTS, warms=CLUSTER),
        TypeRule(LISTENER, wildcard_if_unnamed=True),
        TypeRule(ROUTES),
        TypeRule(EXTENSION, last=frozenset({MARKER})),
    ),
)
_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # almost all are of a snapshot, and stay
_STOP_SECONDS = 0.5  # for streams to end when the server goes

log = structlog.get_logger()


class PolicyServer:
    """One process's parts, and what is told of them."""

    def __init__(
        self,
        settings: PolicySettings,
        source: CommitSource,
        compile_commit: Callable[[str], Snapshot],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Wire the parts; nothing runs yet.

        Raises `TokenUnreadableError` or `BundleRejectedError` for unfit files of `[ca]`.
        """
        read_token(settings.ca.token)
        self._settings = settings
        self._compile_commit = compile_commit
        self._clock = clock
        self._trust = Trust(settings.ca.roots)
        _ = self._trust.roots
        self._credentials = Credentials(CertificateClient(settings.ca, self._trust).create, clock)
        self._bundles = BundleClient(
            settings.ca.bundle_address, settings.node_id, self._credentials, self._trust
        )
        self.census = Census(clock)
        last_good = LastGood(settings.state, settings.repository, settings.branch)
        self.publication = Publication(source, self._prepare, self._announce, last_good, clock)
        self._limits = Limits()
        self._discovery = DiscoveryServer(
            Discovery(ADS, self._view_of, self.census, self._identify, self._limits, clock)
        )
        self._look = asyncio.Event()
        self._is_serving = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`; raises `PortUnavailableError` if a port cannot be had."""
        check_free(self._settings.listen, "listen")
        async with (
            admin_server.serving(self, self._settings.admin_listen),
            asyncio.TaskGroup() as tasks,
        ):
            parts = [
                tasks.create_task(part)
                for part in (
                    self._credentials.keep_renewed(),
                    self._bundles.follow(),
                    self._poll(),
                    self._serve_streams(),
                )
            ]
            await stop.wait()
            for part in parts:
                part.cancel()

    def look_now(self) -> None:
        """Look at the repository without waiting for the next poll."""
        self._look.set()

    # -- What the admin port tells ---------------------------------------------------------------

    @property
    def commit(self) -> str | None:
        """The commit that is served."""
        return self.publication.commit

    def lacking(self) -> list[str]:
        """Return what keeps this server from serving; nothing if it is ready."""
        svid = self._credentials.svid
        lacks = []
        if svid is None:
            lacks.append("no svid yet")
        elif svid.leaf.not_valid_after_utc <= self._clock():
            lacks.append("the svid has expired")
        if not self._trust.is_from_ca:
            lacks.append("no trust bundle yet")
        if self.publication.current is None:
            lacks.append("no good commit yet")
        if not self._is_serving:
            lacks.append("not listening")
        return lacks

    def svid_expires_at(self) -> datetime | None:
        """Return when our own SVID expires."""
        svid = self._credentials.svid
        return svid.leaf.not_valid_after_utc if svid else None

    def status(self) -> Mapping[str, object]:
        """Return the form of `/status` (docs/seams.md, "Status")."""
        published, refusal = self.publication.current, self.publication.refusal
        checked = published and published.snapshot.checked
        svid = self._credentials.svid
        return {
            "commit": self.commit,
            "published_at": published and published.at.isoformat(),
            "checked": checked and checked.as_json(),
            "repository": self._settings.repository,
            "branch": self._settings.branch,
            "ready": not self.lacking(),
            "lacking": self.lacking(),
            "converged": self.commit is not None and not self.census.laggards(self.commit),
            "refused": refusal and refusal.as_json(),
            "unavailable": self.publication.trouble,
            "svid": svid
            and {
                "spiffe_id": str(svid.spiffe_id),
                "expires_at": svid.leaf.not_valid_after_utc.isoformat(),
            },
            "clients": [as_json(each, self.commit) for each in self.census.standings],
            "gone": [each.as_json() for each in self.census.gone],
        }

    async def refresh(self) -> OutcomeKind:
        """Look at the repository now."""
        return await self.publication.refresh()

    # -- What runs -------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            self._look.clear()
            await self.publication.refresh()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_seconds):
                    await self._look.wait()

    async def _serve_streams(self) -> None:
        svid = await self._credentials.newer_than(None)
        await self._bundles.arrived.wait()
        await self._first_commit_of(svid.spiffe_id.trust_domain)
        server = grpc.aio.server(options=server_options(self._limits))
        server.add_generic_rpc_handlers((self._discovery.handler(),))
        try:
            server.add_secure_port(
                self._settings.listen, server_credentials(self._credentials, self._trust)
            )
        except RuntimeError as error:
            raise PortUnavailableError(self._settings.listen, "listen", str(error)) from error
        await server.start()
        self._is_serving = True
        log.info("policy server ready", listen=self._settings.listen, commit=self.commit)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(_STOP_SECONDS)

    async def _first_commit_of(self, own: TrustDomain) -> None:
        """Wait for one; what came before we knew our own trust domain may be of another."""
        while True:
            await self.publication.first.wait()
            if published := self.publication.current:
                refused = _refused_for(published.snapshot, own)
                if refused is None:
                    await self.publication.confirm()
                    return
                self.publication.withdraw(refused)

    # -- What the streams ask --------------------------------------------------------------------

    def _identify(self, context: Context) -> TlsPeer:
        svid = self._credentials.svid
        if svid is None:
            raise StreamRefusedError(grpc.StatusCode.UNAVAILABLE, "the server has no identity yet")
        return peer_of(context, svid.spiffe_id.trust_domain)

    def _view_of(self, client: Client) -> View:
        published = self.publication.current
        if published is None:
            raise StreamRefusedError(grpc.StatusCode.UNAVAILABLE, "there is no good commit yet")
        return _view(published.snapshot, client)

    def _prepare(self, commit: str) -> Snapshot:
        """Compile a commit, and the views of all who are here, so that the loop only swaps."""
        snapshot = self._compile_commit(commit)
        svid = self._credentials.svid
        refused = svid and _refused_for(snapshot, svid.spiffe_id.trust_domain)
        if refused:
            raise refused
        for standing in self.census.standings:
            with suppress(StreamRefusedError):
                _view(snapshot, standing.client)
        return snapshot

    def _announce(self, _snapshot: Snapshot) -> None:
        self._discovery.changed()


async def serve(server: PolicyServer) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP looks at the repository at once."""
    _make_room()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, server.look_now)
    await server.run(stop)


def _make_room() -> None:
    """Let this process hold many streams: as many files as it may, and few looks for garbage."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def _view(snapshot: Snapshot, client: Client) -> View:
    try:
        binding = Binding.of_metadata(client.metadata)
    except BindingRejectedError as error:
        raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    return snapshot.view_for(parse_spiffe_id(client.spiffe_id), binding, kind_of(client))


def _refused_for(snapshot: Snapshot, own: TrustDomain) -> CommitRefusedError | None:
    """Refuse a commit whose identities are not ours to serve."""
    said = snapshot.mesh.trust_domain
    if said == own:
        return None
    finding = Diagnostic(
        Place("(kind Mesh)", field="spec.trustDomain"),
        "mesh/trust-domain",
        f"the repository's Mesh is of {said}, but the CA's trust domain is {own}",
        "restore the trust domain, or serve this repository with another CA",
    )
    return CommitRefusedError(snapshot.commit, (finding,), 1)
