"""Where the sidecars of a pair listen, and what they have in common.

client application → entrance (in the clear) → client's sidecar → mutual TLS → door of the
server's sidecar → application (in the clear). HTTP and gRPC have an entrance and a door each, as
services do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from garrison.deploy.demo.processes import Program

H1, H2 = "http/1.1", "h2"


@dataclass(frozen=True, slots=True)
class Identities:
    """Directories of svid.pem, key.pem and roots.pem."""

    client: Path
    server: Path


@dataclass(frozen=True, slots=True)
class Applications:
    """host:port of what stands behind."""

    http: str
    grpc: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Addresses of one pair that is not ours."""

    client: str  # hosts
    server: str

    @property
    def entrance(self) -> str:
        return f"{self.client}:15001"

    @property
    def grpc_entrance(self) -> str:
        return f"{self.client}:15002"

    @property
    def door(self) -> str:
        return f"{self.server}:15006"

    @property
    def grpc_door(self) -> str:
        return f"{self.server}:15007"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a peer's configuration is made from."""

    name: str  # envoy
    program: Path
    protocol: str  # between the two
    ports: Ports
    identities: Identities
    applications: Applications
    directory: Path  # for its files


@dataclass(frozen=True, slots=True)
class Kind:
    """A peer: how it is set up, and what it can."""

    name: str
    protocols: tuple[str, ...]
    programs: Callable[[Plan], tuple[Program, Program]]  # of the client's side, of the server's
    authorizes: bool  # by method and path


@dataclass(frozen=True, slots=True)
class Pair:
    """Two running sidecars."""

    name: str
    protocol: str
    entrance: str
    grpc_entrance: str
    door: str
    clients: tuple[int, ...]  # process ids
    servers: tuple[int, ...]  # that of HTTP, then that of gRPC; often the same
    authorizes: bool
    processes: tuple[str, ...]  # names

    @property
    def all(self) -> set[int]:
        return {*self.clients, *self.servers}
