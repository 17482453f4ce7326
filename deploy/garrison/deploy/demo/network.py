"""A network of loopback addresses that one demo has for itself.

All of 127.0.0.0/8 is this machine, so every instance can have an address of its own without root. A
listening socket on the network's first address reserves it: a second demo meets it, and the kernel
gives it back however the first one ends.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network

from garrison.identity.errors import RejectedError, UnavailableError

DEFAULT = IPv4Network("127.0.20.0/24")
LOOPBACK = IPv4Network("127.0.0.0/8")
RESERVATION_PORT = 15999
ATTEMPTS = 20
_ADDRESS = re.compile(r"\b127\.[0-9]{1,3}\.[0-9]{1,3}\.([0-9]{1,3})\b")


@dataclass(frozen=True, slots=True)
class Network:
    """A /24 of loopback, reserved."""

    block: IPv4Network

    def host(self, number: int) -> str:
        """Return the address of that number: 2 is 127.0.20.2."""
        return str(self.block[number])

    def move(self, text: str) -> str:
        """Return a text with its loopback addresses in this network; last numbers stay.

        >>> Network(IPv4Network("127.7.7.0/24")).move("address: 127.0.20.15")
        'address: 127.7.7.15'
        """
        return _ADDRESS.sub(lambda found: self.host(int(found[1])), text)


def parse_network(text: str) -> IPv4Network:
    """Parse `127.x.y.0/24`; raise `RejectedError` for anything else."""
    try:
        block = ip_network(text)
    except ValueError as error:
        raise RejectedError(f"--network {text}: {error}; wanted is 127.X.Y.0/24") from error
    if not isinstance(block, IPv4Network) or block.prefixlen != DEFAULT.prefixlen:
        raise RejectedError(f"--network {text}: not a /24 of IPv4; wanted is 127.X.Y.0/24")
    if not block.subnet_of(LOOPBACK):
        raise RejectedError(f"--network {text}: not loopback; wanted is 127.X.Y.0/24")
    return block


@contextlib.contextmanager
def reserved(wanted: IPv4Network | None, first: IPv4Network = DEFAULT) -> Iterator[Network]:
    """Reserve `wanted`; or, if None, `first` or else whichever is free."""
    with contextlib.closing(_reserve(wanted) if wanted else _reserve_any(first)) as held:
        address = IPv4Address(held.getsockname()[0])
        yield Network(IPv4Network((int(address) & ~0xFF, DEFAULT.prefixlen)))


def random_block() -> IPv4Network:
    """Return some block of loopback outside the low ones, which people use by hand."""
    return IPv4Network(f"127.{random.randint(64, 250)}.{random.randint(0, 255)}.0/24")  # noqa: S311


def _reserve(block: IPv4Network) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind((str(block[1]), RESERVATION_PORT))
        held.listen(1)
    except OSError as error:
        held.close()
        raise UnavailableError(
            f"the network {block} is in use ({error.strerror}), perhaps by another demo: "
            "end that one, or choose another with --network 127.X.Y.0/24"
        ) from error
    return held


def _reserve_any(first: IPv4Network) -> socket.socket:
    for block in [first, *(random_block() for _ in range(ATTEMPTS))]:
        with contextlib.suppress(UnavailableError):
            return _reserve(block)
    raise UnavailableError("no free network of 127.0.0.0/8 was found: is loopback up?")
