"""The gRPC side of an xDS service: admits streams, wakes them, and ends them with a status.

Requests and responses pass gRPC as bytes: parsing is the variant's, and a response is joined from
bytes that all streams share.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import grpc
import structlog

from garrison.xds import delta, state_of_the_world
from garrison.xds.accounts import Accounts
from garrison.xds.client import Client, Peer, StreamRefusedError
from garrison.xds.service import Limits
from garrison.xds.session import Discovery, Session, Variant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from envoy.config.core.v3 import base_pb2

    from garrison.xds.session import Context

log = structlog.get_logger()


def server_options(limits: Limits) -> Sequence[tuple[str, int]]:
    """Return the options for `grpc.aio.server` under which many long streams stay healthy."""
    return (
        ("grpc.so_reuseport", 0),  # or two servers share a port silently
        ("grpc.max_receive_message_length", limits.request_bytes),
        ("grpc.max_concurrent_streams", 100),
        ("grpc.server.max_pending_requests", limits.streams),
        ("grpc.server.max_pending_requests_hard_limit", 2 * limits.streams),
        ("grpc.keepalive_time_ms", 30_000),  # finds half-open connections
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
    )


class DiscoveryServer:
    """Serves one xDS service, both variants, on a `grpc.aio` server that `handler` is added to."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._sessions: dict[int, Session] = {}
        self._accounts = Accounts(discovery.limits)
        self._numbers = itertools.count(1)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what `grpc.aio.Server.add_generic_rpc_handlers` takes."""
        method = self._discovery.service.method
        handlers = {
            method.delta: self._method(delta),
            method.state_of_the_world: self._method(state_of_the_world),
        }
        return grpc.method_handlers_generic_handler(method.service, handlers)

    def changed(self) -> None:
        """Have every stream look again what its client is to have; call it on the event loop."""
        for session in self._sessions.values():
            session.wake()

    def _method(self, variant: Variant) -> grpc.RpcMethodHandler[Any, Any]:
        async def serve(_: object, context: Context) -> None:
            try:
                await self._serve(variant, context)
            except* StreamRefusedError as refusals:
                await _abort(refusals, context)
            except* Exception:
                log.exception("xds stream failed")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, variant: Variant, context: Context) -> None:
        peer = self._discovery.identify(context)
        with self._accounts.place_for(peer.spiffe_id) as place:
            session = Session(self._discovery, variant, context, place)
            first = await session.first_request()
            client = self._client(peer, first.node)
            self._sessions[client.stream] = session
            self._discovery.observer.connected(client)
            try:
                session.begin(client, first)
                del first  # it may be large, and a stream lives for hours
                await session.run(client)
            finally:
                del self._sessions[client.stream]
                self._discovery.observer.disconnected(client)

    def _client(self, peer: Peer, node: base_pb2.Node) -> Client:
        limits = self._discovery.limits
        return Client(
            stream=next(self._numbers),
            spiffe_id=peer.spiffe_id,
            certificate_expires_at=peer.expires_at,
            node_id=_text("id", node.id, limits),
            user_agent=_text("user_agent_name", node.user_agent_name, limits),
            metadata=_metadata(node, limits),
            connected_at=self._discovery.clock(),
        )


def _text(field: str, value: str, limits: Limits) -> str:
    if len(value) > limits.node_field_characters or not value.isprintable():
        text = (
            f"node.{field}: more than {limits.node_field_characters} characters, or not printable"
        )
        raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
    return value


def _metadata(node: base_pb2.Node, limits: Limits) -> dict[str, str]:
    fields = node.metadata.fields
    if len(fields) > limits.metadata_fields:
        text = f"node.metadata: more than {limits.metadata_fields} fields"
        raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)
    return {
        _text("metadata", key, limits): _text(f"metadata.{key}", value.string_value, limits)
        for key, value in fields.items()
        if value.HasField("string_value")
    }


async def _abort(refusals: ExceptionGroup[StreamRefusedError], context: Context) -> None:
    first: BaseException = refusals
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, StreamRefusedError):
        await context.abort(first.code, str(first))
