"""Whether an address can be listened on, told by the name of the setting that has it."""

import socket

from garrison.identity.addresses import split_address
from garrison.identity.errors import RejectedError


class PortUnavailableError(RejectedError):
    """An address cannot be listened on."""

    def __init__(self, address: str, setting: str, reason: str | None) -> None:
        """Tell which address, why, and where it can be changed."""
        remedy = f"choose another address by `{setting}`"
        super().__init__(f"{address}: cannot be listened on: {reason}; {remedy}")


def check_free(address: str, setting: str) -> None:
    """Raise `PortUnavailableError` if `address` could not be listened on now.

    For gRPC, which says only that it failed, and for ports that are opened long after the start.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortUnavailableError(address, setting, error.strerror) from error
