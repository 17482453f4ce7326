"""Settings of `garrison policy serve`."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from garrison.identity.certificate_client import CaAccess
from garrison.identity.settings import Settings, load_settings

PREFIX = "GARRISON_POLICY_"


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
        is_port = port.isascii() and port.isdecimal() and int(port) < 1 << 16
    except ValueError:
        is_port = False
    if not colon or not is_port:
        raise ValueError(f"IP:PORT is wanted, not {text!r}")
    return text


def _loopback_address(text: str) -> str:
    host, _ = split_address(_address(text))
    if not ip_address(host).is_loopback:
        raise ValueError(f"a loopback address is wanted, not {host}: this port asks nobody's name")
    return text


def _location(text: str, info: ValidationInfo) -> str:
    """Make a path relative to the settings' file; leave a URL as it is."""
    if "://" in text:
        return text
    directory: Path = (info.context or {}).get("directory", Path())
    return str(directory / Path(text).expanduser())


def split_address(text: str) -> tuple[str, int]:
    """Split a checked `IP:PORT`."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


class PolicySettings(Settings):
    """What the policy server is told.

    repository: path or URL of the git repository that is the mesh.
    branch: the branch that is enforced.
    listen: where sidecars connect (gRPC, mutual TLS).
    admin_listen: status, metrics and refresh (HTTP, loopback only).
    poll_seconds: how often the repository is looked at; SIGHUP and `POST /refresh` do it at once.
    node_id: the name of this instance at the CA.
    ca: where the CA is, and by what this server is known to it.
    """

    repository: Annotated[str, AfterValidator(_location)]
    branch: str = "main"
    listen: Annotated[str, AfterValidator(_address)] = "127.0.0.1:15010"
    admin_listen: Annotated[str, AfterValidator(_loopback_address)] = "127.0.0.1:15011"
    poll_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 2.0
    node_id: str = "policy-server"
    ca: CaAccess


def settings_of(
    file: Path | None, given: Mapping[str, str | None], environment: Mapping[str, str]
) -> PolicySettings:
    """Read the settings' file, with the environment over it and the command line over both.

    Raises `SettingsError`.
    """
    over = {PREFIX + name.upper(): text for name, text in given.items() if text is not None}
    return load_settings(PolicySettings, file, PREFIX, {**environment, **over})
