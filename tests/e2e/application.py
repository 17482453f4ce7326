"""An application that the test itself is, in the place of one of the stage's."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.mesh import Mesh

HELD = "held"
HOLD_SECONDS = 60


@dataclass
class Application:
    """Notes what it is asked. A request whose path ends in `held` waits for `release`."""

    instance: str
    seen: list[Mapping[str, str]] = field(default_factory=list)
    """The headers of each request, by names in lower case, and its `:path`."""
    release: threading.Event = field(default_factory=threading.Event)

    def held(self) -> int:
        """Count the requests that came to be held."""
        return sum(each[":path"].endswith(HELD) for each in self.seen)


@contextlib.contextmanager
def standing_in(mesh: Mesh, instance: str) -> Iterator[Application]:
    """Take the place of an instance's application until the block ends."""
    application = Application(instance)
    host, _, port = mesh.instance(instance).application.rpartition(":")
    mesh.kill(instance)
    with _Server((host, int(port)), _handler(application)) as server:
        threading.Thread(target=server.serve_forever, name="application").start()
        try:
            yield application
        finally:
            application.release.set()
            server.shutdown()
            server.hang_up()
    mesh.start(instance)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # the sidecar keeps its connections
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401  # its parent's
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close the connections that the sidecar keeps, so that it asks nothing of us again."""
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):  # it ended just now
                connection.shutdown(socket.SHUT_RDWR)


def _handler(application: Application) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # http.server's name
            headers = {name.lower(): value for name, value in self.headers.items()}
            application.seen.append({**headers, ":path": self.path})
            if self.path.endswith(HELD):
                application.release.wait(HOLD_SECONDS)
            body = json.dumps({"instance": application.instance, "version": "v1"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

    return Handler
