"""One stream's input and output around its state machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from garrison.xds.accounts import Place
from garrison.xds.client import Acknowledged, Client, Observer, Peer, Refused, StreamRefusedError
from garrison.xds.resource import View
from garrison.xds.service import Limits, Service
from garrison.xds.stream import Outgoing, Stream

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[bytes, bytes]

_CLOCK_CHECK_SECONDS = 60.0  # a wait is on the monotonic clock; the wall clock may jump meanwhile


class Variant(Protocol):
    """What the modules `delta` and `state_of_the_world` both are."""

    @property
    def WHOLE_STATE(self) -> bool:  # noqa: N802 - a module's constant
        """Whether each response carries everything."""

    def parse(self, data: bytes) -> Any:  # noqa: ANN401 - the variant's own request type
        """Parse a request."""

    def on_request(self, stream: Stream, request: Any) -> Acknowledged | Refused | None:  # noqa: ANN401
        """Take a request."""

    def encode(self, outgoing: Outgoing) -> bytes:
        """Encode a response."""


def utc_now() -> datetime:
    """Return the wall clock's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is served, and to whom it is told.

    view_of: what a client is to have now; may raise `StreamRefusedError`. It is called at each
        change and must be cheap; while nothing has changed it should return the same object.
    identify: the proved peer of a call; raises `StreamRefusedError`.
    """

    service: Service
    view_of: Callable[[Client], View]
    observer: Observer
    identify: Callable[[Context], Peer]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], datetime] = utc_now


class Session:
    """A stream from its first request to its end."""

    def __init__(
        self, discovery: Discovery, variant: Variant, context: Context, place: Place
    ) -> None:
        self._discovery = discovery
        self._place = place
        self._variant = variant
        self._context = context
        self._stream = Stream(discovery.service, discovery.limits, whole_state=variant.WHOLE_STATE)
        self._wake = asyncio.Event()
        self._is_over = False
        self._settled_label: str | None = None

    def wake(self) -> None:
        """Look again what the client is to have."""
        self._wake.set()

    async def first_request(self) -> Any:  # noqa: ANN401 - the variant's own request type
        """Return the request that names the node; raises `StreamRefusedError` if none comes."""
        try:
            async with asyncio.timeout(self._discovery.limits.first_request_seconds):
                request = await self._read()
        except TimeoutError:
            text = "no request was sent on this stream"
            raise StreamRefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None
        if request is None:
            raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, "the stream was empty")
        return request

    def begin(self, client: Client, first: Any) -> None:  # noqa: ANN401
        """Take the first request; raises `StreamRefusedError` if it asks for too much."""
        self._stream.view = self._discovery.view_of(client)
        self._take(client, first)

    async def run(self, client: Client) -> None:
        """Serve until the client ends the stream; raises `StreamRefusedError` when we do."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(client))
            tasks.create_task(self._send(client))

    async def _receive(self, client: Client) -> None:
        while self._take(client, await self._read()):  # which keeps no request while it waits
            pass
        self._is_over = True
        self._wake.set()

    async def _read(self) -> Any:  # noqa: ANN401
        data = await self._context.read()
        if not isinstance(data, bytes):  # grpc.aio.EOF
            return None
        try:
            return self._variant.parse(data)
        except DecodeError:
            text = "the request is not a discovery request"
            raise StreamRefusedError(grpc.StatusCode.INVALID_ARGUMENT, text) from None

    def _take(self, client: Client, request: Any) -> bool:  # noqa: ANN401
        """Take a request; False for None, the stream's end."""
        if request is None:
            return False
        match self._variant.on_request(self._stream, request):
            case Acknowledged() as event:
                self._discovery.observer.acknowledged(client, event)
            case Refused() as event:
                self._discovery.observer.refused(client, event)
            case None:
                pass
        self._place.hold(client.own_bytes + self._stream.own_bytes)
        self._wake.set()
        return True

    async def _send(self, client: Client) -> None:
        while not self._is_over:
            self._wake.clear()
            view = self._discovery.view_of(client)
            while (outgoing := self._stream.next_response(view)) is not None:
                await self._write(self._variant.encode(outgoing))
            self._tell_if_settled(client, view)
            await self._wait(client)

    async def _write(self, response: bytes) -> None:
        try:
            async with asyncio.timeout(self._discovery.limits.write_seconds):
                await self._context.write(response)
        except TimeoutError:
            text = "responses are not read"
            raise StreamRefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, text) from None

    def _tell_if_settled(self, client: Client, view: View) -> None:
        if view.label != self._settled_label and self._stream.is_settled(view):
            self._settled_label = view.label
            self._discovery.observer.settled(client, view.label)

    async def _wait(self, client: Client) -> None:
        """Wait for something to do; raises `StreamRefusedError` when the certificate expires."""
        while not self._wake.is_set():
            left = (client.certificate_expires_at - self._discovery.clock()).total_seconds()
            if left <= 0:
                text = "the certificate of this connection has expired: connect with a new one"
                raise StreamRefusedError(grpc.StatusCode.UNAUTHENTICATED, text)
            try:
                async with asyncio.timeout(min(left, _CLOCK_CHECK_SECONDS)):
                    await self._wake.wait()
            except TimeoutError:
                continue
