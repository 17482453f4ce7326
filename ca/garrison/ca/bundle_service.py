"""Trust bundles by SDS, state of the world and delta, and who has taken which.

A client is known by its certificate and by the node that it says it is; what it acknowledged is the
evidence on which a rotation will one day move on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from garrison.ca.bundle import TrustBundle
from garrison.identity.peer import peer_of
from garrison.xds.client import Acknowledged, Client, Refused
from garrison.xds.resource import Resource, View, type_url_of
from garrison.xds.server import DiscoveryServer
from garrison.xds.service import SECRETS, Limits, Service, TypeRule
from garrison.xds.session import Discovery

SECRET = type_url_of(secret_pb2.Secret)
SERVICE = Service(SECRETS, (TypeRule(SECRET, anew=True),))
# A client needs one name. Streams are as many as at the policy server: one for each sidecar.
LIMITS = Limits(
    held_bytes=64 * 1024 * 1024,
    held_bytes_of_one_identity=4 * 1024 * 1024,
    names=300,
    request_bytes=64 * 1024,  # Envoy's node alone takes some 30 KiB
)


@dataclass(frozen=True, slots=True)
class Nack:
    """The newest refusal of a client, in its words."""

    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """A connected client, and what it acknowledged."""

    client: Client
    bundle_version: str | None = None
    last_nack: Nack | None = None


class BundleHolders:
    """All connected clients; an `Observer` of the streams."""

    def __init__(self, name: str, clock: Callable[[], datetime]) -> None:
        """Watch the bundle of this name."""
        self._name = name
        self._clock = clock
        self._holders: dict[int, Holder] = {}

    @property
    def all(self) -> tuple[Holder, ...]:
        """Who is connected now."""
        return tuple(self._holders.values())

    def connected(self, client: Client) -> None:
        """Take note of a new stream."""
        self._holders[client.stream] = Holder(client)

    def acknowledged(self, client: Client, event: Acknowledged) -> None:
        """Take note that the client uses this version from now on."""
        if self._name in event.versions:
            version = event.versions[self._name]
            self._change(client, replace(self._holders[client.stream], bundle_version=version))

    def refused(self, client: Client, event: Refused) -> None:
        """Take note of a NACK."""
        nack = Nack(event.reason, self._clock())
        self._change(client, replace(self._holders[client.stream], last_nack=nack))

    def settled(self, client: Client, label: str) -> None:
        """Learn nothing new: an ACK says more."""

    def disconnected(self, client: Client) -> None:
        """Forget a stream."""
        del self._holders[client.stream]

    def _change(self, client: Client, holder: Holder) -> None:
        self._holders[client.stream] = holder


class BundleService:
    """Serves one trust bundle to all of its trust domain."""

    def __init__(self, bundle: TrustBundle, clock: Callable[[], datetime]) -> None:
        """Serve `bundle`."""
        self.bundle = bundle
        name = bundle.trust_domain.as_spiffe_id()
        self._resource = Resource.of(name, _secret(name, bundle.pem))
        view = View.of(str(bundle.sequence), {SECRET: [self._resource]})
        self.holders = BundleHolders(name, clock)
        discovery = Discovery(
            SERVICE,
            view_of=lambda _: view,
            observer=self.holders,
            identify=lambda context: peer_of(context, bundle.trust_domain),
            limits=LIMITS,
            clock=clock,
        )
        self.server = DiscoveryServer(discovery)

    @property
    def version(self) -> str:
        """The version that clients acknowledge."""
        return self._resource.version

    def status(self) -> list[Mapping[str, object]]:
        """Return `clients` of `/status` (docs/seams.md, "Status")."""
        return [self._describe(holder) for holder in self.holders.all]

    def _describe(self, holder: Holder) -> Mapping[str, object]:
        client, nack = holder.client, holder.last_nack
        return {
            "spiffe_id": client.spiffe_id,
            "node": client.node_id,
            "bundle_version": holder.bundle_version,
            "in_sync": holder.bundle_version == self.version,
            "svid_expires_at": client.certificate_expires_at.isoformat(),
            "connected_since": client.connected_at.isoformat(),
            "last_nack": nack and {"reason": nack.reason, "at": nack.at.isoformat()},
        }


def _secret(name: str, pem: bytes) -> secret_pb2.Secret:
    return secret_pb2.Secret(name=name, validation_context={"trusted_ca": {"inline_bytes": pem}})
