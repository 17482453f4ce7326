"""Follow the trust bundle of our trust domain: SDS (delta) from the CA, over mutual TLS.

What cannot be a bundle is refused with the reason, and the last good one stays. The stream is
opened anew with each new SVID, since the CA ends streams whose certificate has expired.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
import structlog
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from spiffe import X509Svid

from garrison.identity.backoff import Backoff
from garrison.identity.certificate_client import CA_SERVER_NAME, CaUnavailableError
from garrison.identity.credentials import Credentials, certificate_pair
from garrison.identity.errors import GarrisonError
from garrison.identity.trust import BundleRejectedError, Trust
from garrison.xds.resource import type_url_of
from garrison.xds.service import SECRETS

SECRET = type_url_of(secret_pb2.Secret)
_METHOD = f"/{SECRETS.service}/{SECRETS.delta}"
_INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
_OPTIONS = (
    ("grpc.ssl_target_name_override", CA_SERVER_NAME),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

log = structlog.get_logger()


class BundleClient:
    """Keeps a `Trust` current for as long as it follows."""

    def __init__(self, address: str, node_id: str, credentials: Credentials, trust: Trust) -> None:
        self._address = address
        self._node_id = node_id
        self._credentials = credentials
        self._trust = trust
        self._version: str | None = None  # of the bundle that was taken
        self._backoff = Backoff()
        self.arrived = asyncio.Event()  # once the first bundle is here

    async def follow(self) -> NoReturn:
        """Receive each bundle; ends by cancellation only."""
        while True:
            svid = await self._credentials.newer_than(None)
            try:
                await self._until_renewed(svid)
            except* (grpc.aio.AioRpcError, GarrisonError) as errors:
                delay = self._backoff.next_delay()
                log.warning(
                    "no trust bundles from the ca",
                    address=self._address,
                    reason=str(_innermost(errors)),
                    retry_seconds=round(delay.total_seconds(), 1),
                )
                await asyncio.sleep(delay.total_seconds())

    async def _until_renewed(self, svid: X509Svid) -> None:
        async with asyncio.TaskGroup() as tasks:
            stream = tasks.create_task(self._stream(svid))
            renewal = tasks.create_task(self._credentials.newer_than(svid))
            await asyncio.wait({stream, renewal}, return_when=asyncio.FIRST_COMPLETED)
            stream.cancel()
            renewal.cancel()

    async def _stream(self, svid: X509Svid) -> None:
        key, chain = certificate_pair(svid)
        secured = grpc.ssl_channel_credentials(self._trust.roots, key, chain)
        async with grpc.aio.secure_channel(self._address, secured, _OPTIONS) as channel:
            method: Any = channel.stream_stream(
                _METHOD,
                request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
                response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
            )
            call = method()
            name = f"spiffe://{svid.spiffe_id.trust_domain}"
            await call.write(self._subscription(name))
            async for response in call:
                await call.write(self._answer(name, response))
                self._backoff.succeeded()
        raise CaUnavailableError("the stream of bundles has ended")

    def _subscription(self, name: str) -> discovery_pb2.DeltaDiscoveryRequest:
        held = {name: self._version} if self._version else {}
        return discovery_pb2.DeltaDiscoveryRequest(
            node={"id": self._node_id, "user_agent_name": "garrison"},
            type_url=SECRET,
            resource_names_subscribe=[name],
            initial_resource_versions=held,
        )

    def _answer(
        self, name: str, response: discovery_pb2.DeltaDiscoveryResponse
    ) -> discovery_pb2.DeltaDiscoveryRequest:
        """Take the bundle and return the ACK, or the NACK with its reason."""
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, response_nonce=response.nonce)
        try:
            self._take(name, response)
        except BundleRejectedError as error:
            log.warning("trust bundle refused", reason=str(error), name=name)
            answer.error_detail.code = _INVALID_ARGUMENT
            answer.error_detail.message = str(error)
        return answer

    def _take(self, name: str, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        if name in response.removed_resources:
            raise BundleRejectedError(f"{name}: our own trust domain's bundle cannot go")
        for each in response.resources:
            if each.name != name:
                raise BundleRejectedError(f"{each.name}: was not asked for")
            self._trust.replace(_roots(each))
            self._version = each.version
            self.arrived.set()
            log.info("trust bundle taken", name=name, bundle=response.system_version_info)


def _roots(resource: discovery_pb2.Resource) -> bytes:
    secret = secret_pb2.Secret()
    try:
        is_secret = resource.resource.Unpack(secret)
    except DecodeError as error:
        raise BundleRejectedError(f"{resource.name}: not a Secret") from error
    roots: bytes = secret.validation_context.trusted_ca.inline_bytes
    if not is_secret or secret.name != resource.name or not roots:
        raise BundleRejectedError(f"{resource.name}: no validation_context.trusted_ca.inline_bytes")
    return roots


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
