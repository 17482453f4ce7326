"""Where a node itself listens: the only thing of a node's metadata that its configuration follows.

It proves nothing and grants nothing (docs/seams.md, "Configuration files"): whose configuration a
node gets is its certificate's SPIFFE ID alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from garrison.policies.errors import BindingRejectedError

_MAX_PORT = 65535


class Address(NamedTuple):
    """An IP address, as its own text, and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Binding:
    """Addresses of a node; None where it makes no such listener."""

    inbound: Address | None = None
    application: Address | None = None
    outbound: Address | None = None

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, object]) -> Binding:
        """Read `Node.metadata`; keys of others are left alone.

        Raises `BindingRejectedError`.
        """
        keys = ("inbound", "application", "outbound")
        return cls(**{key: _parse(key, metadata[key]) for key in keys if key in metadata})


def _parse(key: str, value: object) -> Address:
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if not address or not colon or not (port.isascii() and port.isdecimal() and len(port) <= 5):  # noqa: PLR2004 -- digits of 65535
        raise BindingRejectedError(f"node metadata {key}: IP:PORT is wanted, not {value!r:.100}")
    if not 0 < int(port) <= _MAX_PORT:
        raise BindingRejectedError(f"node metadata {key}: a port from 1 to {_MAX_PORT} is wanted")
    return Address(str(address), int(port))
