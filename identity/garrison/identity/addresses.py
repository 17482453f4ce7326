"""Settings that several processes have: where to listen, and which repository is the mesh."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo


def split_address(text: str) -> tuple[str, int]:
    """Split a checked `IP:PORT`.

    >>> split_address("[::1]:15012")
    ('::1', 15012)
    """
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _listen_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError(f"IP:PORT is wanted, not {text!r}")
    return text


def _loopback_address(text: str) -> str:
    host, _ = split_address(_listen_address(text))
    if not ip_address(host).is_loopback:
        raise ValueError(f"a loopback address is wanted, not {host}: this port asks nobody's name")
    return text


def _repository(text: str, info: ValidationInfo) -> str:
    if "://" in text:
        return text
    directory: Path = (info.context or {}).get("directory", Path())
    return str(directory / Path(text).expanduser())


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
LoopbackAddress = Annotated[str, AfterValidator(_loopback_address)]
RepositoryLocation = Annotated[str, AfterValidator(_repository)]  # a path (absolute now) or a URL
