"""A plain port that leads through mutual TLS, for judges that cannot show a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

CONNECT_SECONDS = 10
IDLE_SECONDS = 60
PIECE_BYTES = 65_536


@contextlib.contextmanager
def tunnel(address: str, identity: Path, protocol: str) -> Iterator[int]:
    """Carry what comes to a port of 127.0.0.1 to `address`, as that identity, until the block ends.

    `identity` is a directory with svid.pem, key.pem and roots.pem; `protocol` is spoken by ALPN.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # an SVID names no host; who answers is not what is judged
    context.load_verify_locations(identity / "roots.pem")
    context.load_cert_chain(identity / "svid.pem", identity / "key.pem")
    context.set_alpn_protocols([protocol])
    opened: Future[int] = Future()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
                await _carry(reader, writer, address, context)

        server = await asyncio.start_server(carry, "127.0.0.1", 0)
        async with server:
            opened.set_result(server.sockets[0].getsockname()[1])
            await end.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="tunnel")
    thread.start()
    try:
        yield opened.result(CONNECT_SECONDS)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(CONNECT_SECONDS)


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    address: str,
    context: ssl.SSLContext,
) -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(CONNECT_SECONDS):
        inner, outer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        async with asyncio.timeout(IDLE_SECONDS), asyncio.TaskGroup() as both:
            there = both.create_task(_copy(reader, outer))
            await _copy(inner, writer)  # all that came back is passed on before the end
            there.cancel()
    finally:
        outer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await source.read(PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
    sink.close()
