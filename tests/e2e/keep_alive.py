"""Clients that keep their HTTP/1.1 connections to a sidecar, and what became of their requests."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from garrison.deploy.demo.instances import Instance

SECONDS = 60
AWAY = "the sidecar is away"


@dataclass
class Load:
    """`outcomes`: how often an answer was had, by status, or what else there was instead."""

    outcomes: Counter[str] = field(default_factory=Counter)
    done: threading.Event = field(default_factory=threading.Event)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: str) -> None:
        with self._counting:
            self.outcomes[outcome] += 1

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    def failures(self) -> dict[str, int]:
        """Return what was neither an answer nor a sidecar that takes no more connections."""
        return {what: n for what, n in self.outcomes.items() if what not in {"200", AWAY}}


@dataclass
class Client:
    """One connection through a sidecar's forward proxy, opened again when it was closed."""

    caller: Instance
    _connection: http.client.HTTPConnection | None = None

    def get(self, url: str) -> str:
        """Return the status, `AWAY`, or what broke.

        A kept connection that is closed without a byte of an answer was idle to its server: the
        request is sent once more on a new one, as RFC 9112 §9.3.1 lets every client do.
        """
        try:
            is_kept = self._connection is not None
            try:
                return self._try(url)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()
                if not is_kept:
                    raise
                return self._try(url)
        except ConnectionRefusedError:
            return AWAY
        except (OSError, http.client.HTTPException) as error:
            return repr(error)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None

    def _try(self, url: str) -> str:
        if self._connection is None:
            host, _, port = self.caller.outbound.rpartition(":")
            connection = http.client.HTTPConnection(host, int(port), timeout=SECONDS)
            connection.connect()  # only what is open is kept
            self._connection = connection
        self._connection.request("GET", url)
        response = self._connection.getresponse()
        response.read()
        if response.will_close:
            self.close()
        return str(response.status)


def get(caller: Instance, url: str) -> str:
    """Ask once, on a connection of its own."""
    with contextlib.closing(Client(caller)) as client:
        return client.get(url)


@contextlib.contextmanager
def load(caller: Instance, url: str, clients: int = 4) -> Iterator[Load]:
    """Call without a pause while the block runs, each client on a connection that it keeps."""
    made = Load()

    def work() -> None:
        with contextlib.closing(Client(caller)) as client:
            while not made.done.is_set() and not made.outcomes[AWAY]:
                made.add(client.get(url))

    threads = [threading.Thread(target=work, name="load") for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.done.set()
        for thread in threads:
            thread.join(SECONDS)
