"""A CA that can be told to misbehave: what a client meets is decided per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from garrison.identity import istio_ca_pb2
from garrison.identity.bundle_client import SECRET
from garrison.identity.certificate_client import CA_SERVER_NAME
from garrison.identity.peer import TlsPeer, peer_of
from garrison.identity.spiffe_id import parse_trust_domain
from garrison.xds.client import Acknowledged, Client, Refused
from garrison.xds.resource import Resource, View
from garrison.xds.server import DiscoveryServer
from garrison.xds.service import SECRETS, Service, TypeRule
from garrison.xds.session import Discovery
from tests.fakes.certificates import Leaf, Root

Request = istio_ca_pb2.IstioCertificateRequest
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class FakeAuthority:
    """Issues `leaf` to whoever asks, unless `refusal` says otherwise; serves `bundle`."""

    root: Root = field(default_factory=Root)
    leaf: Leaf = field(default_factory=Leaf)
    refusal: tuple[grpc.StatusCode, str] | None = None
    trailing: tuple[tuple[str, str], ...] = ()
    other_key: bool = False
    bundle: bytes = b""
    sequence: int = 1
    tokens: list[str] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    answers: list[Acknowledged | Refused] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    served: DiscoveryServer | None = None

    async def create(self, request: Request, context: Context) -> Any:  # noqa: ANN401
        metadata = dict(context.invocation_metadata() or ())
        self.tokens.append(str(metadata["authorization"]))
        self.seconds.append(request.validity_duration)
        if self.refusal:
            await context.abort(*self.refusal, self.trailing)
        key = x509.load_pem_x509_csr(request.csr.encode()).public_key()
        if self.other_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        leaf = self.root.sign(key, self.leaf).public_bytes(Encoding.PEM).decode()
        return istio_ca_pb2.IstioCertificateResponse(cert_chain=[leaf, self.root.pem.decode()])

    def publish(self, bundle: bytes) -> None:
        """Replace the bundle on all streams."""
        self.bundle = bundle
        self.sequence += 1
        assert self.served
        self.served.changed()

    def view(self, _client: Client) -> View:
        name = f"spiffe://{self.root.trust_domain}"
        secret = secret_pb2.Secret(name=name)
        secret.validation_context.trusted_ca.inline_bytes = self.bundle
        return View.of(str(self.sequence), {SECRET: [Resource.of(name, secret)]})

    def connected(self, client: Client) -> None:
        self.clients.append(client)

    def acknowledged(self, _client: Client, event: Acknowledged) -> None:
        self.answers.append(event)

    def refused(self, _client: Client, event: Refused) -> None:
        self.answers.append(event)

    def settled(self, client: Client, label: str) -> None:
        """Nothing hangs on it."""

    def disconnected(self, client: Client) -> None:
        self.clients.remove(client)


@asynccontextmanager
async def running(authority: FakeAuthority) -> AsyncIterator[tuple[str, str]]:
    """Serve; yields the addresses of the certificate service and of the bundles."""
    trust_domain = parse_trust_domain(authority.root.trust_domain)

    def identify(context: Context) -> TlsPeer:
        return peer_of(context, trust_domain)

    service = Service(SECRETS, (TypeRule(SECRET),))
    authority.served = DiscoveryServer(Discovery(service, authority.view, authority, identify))
    create = grpc.unary_unary_rpc_method_handler(
        authority.create,
        Request.FromString,
        istio_ca_pb2.IstioCertificateResponse.SerializeToString,
    )
    name = "istio.v1.auth.IstioCertificateService"
    issuing = grpc.method_handlers_generic_handler(name, {"CreateCertificate": create})
    async with (
        _server(authority, issuing, is_mutual=False) as address,
        _server(authority, authority.served.handler(), is_mutual=True) as bundle_address,
    ):
        yield address, bundle_address


@asynccontextmanager
async def _server(
    authority: FakeAuthority, handler: grpc.GenericRpcHandler, *, is_mutual: bool
) -> AsyncIterator[str]:
    name = f"spiffe://{authority.root.trust_domain}/ns/garrison/sa/ca"
    pair = authority.root.pair(Leaf(uris=(name,), dns=(CA_SERVER_NAME,)))
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.chain)], authority.root.pem, require_client_auth=is_mutual
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
