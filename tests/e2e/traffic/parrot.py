"""A gRPC application by grpcio, without generated code: messages are bytes as they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

SERVICE = "lab.Parrot"
HANG_SECONDS = 30
NO_PROXY = ("grpc.enable_http_proxy", 0)


@dataclass(slots=True)
class Parrot:
    """One instance. Every answer names it in the trailers."""

    name: str
    remaining: list[float] = field(default_factory=list)  # the deadlines that it was told
    patience: threading.Event = field(default_factory=threading.Event)

    def say(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Repeat one message; `wait` is answered when `patience` ends."""
        context.set_trailing_metadata((("x-parrot", self.name),))
        self.remaining.append(context.time_remaining())
        if request == b"wait":
            self.patience.wait(HANG_SECONDS)
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no feathers")
        return request

    def converse(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Repeat each message as it comes."""
        context.set_trailing_metadata((("x-parrot", self.name),))
        context.send_initial_metadata((("x-begun", "yes"),))
        yield from requests


def _handlers(parrot: Parrot) -> grpc.GenericRpcHandler:
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Say": grpc.unary_unary_rpc_method_handler(parrot.say),
        "Swear": grpc.unary_unary_rpc_method_handler(parrot.say),
        "Converse": grpc.stream_stream_rpc_method_handler(parrot.converse),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


@contextlib.contextmanager
def running_parrot(name: str, listen: str) -> Iterator[Parrot]:
    """Serve at an address until the block ends."""
    parrot = Parrot(name)
    with ThreadPoolExecutor(16, thread_name_prefix=name) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((_handlers(parrot),))
        assert server.add_insecure_port(listen)
        server.start()
        try:
            yield parrot
        finally:
            parrot.patience.set()
            server.stop(None).wait(HANG_SECONDS)


@dataclass(frozen=True, slots=True)
class Caller:
    """A stub for the parrots."""

    channel: grpc.Channel

    def method(self, name: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return a unary method."""
        return self.channel.unary_unary(f"/{SERVICE}/{name}")

    def converse(self) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
        """Return the method that streams both ways."""
        return self.channel.stream_stream(f"/{SERVICE}/Converse")


@contextlib.contextmanager
def caller(address: str, authority: str | None = None) -> Iterator[Caller]:
    """Speak HTTP/2 in the clear, by prior knowledge, to an address."""
    options: list[tuple[str, str | int]] = [NO_PROXY]
    if authority is not None:
        options.append(("grpc.default_authority", authority))
    with grpc.insecure_channel(f"ipv4:{address}", options=options) as channel:
        yield Caller(channel)


def code_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str | None]:
    """Return the status and message with which a call fails."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call was answered")
