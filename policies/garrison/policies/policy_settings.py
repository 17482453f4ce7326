"""Settings of `garrison policy serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from garrison.identity.addresses import ListenAddress, LoopbackAddress, RepositoryLocation
from garrison.identity.certificate_client import CaAccess
from garrison.identity.settings import LocalPath, Settings, load_settings

PREFIX = "GARRISON_POLICY_"


class PolicySettings(Settings):
    """What the policy server is told.

    repository: path or URL of the git repository that is the mesh.
    branch: the branch that is enforced.
    listen: where sidecars connect (gRPC, mutual TLS).
    admin_listen: status, metrics and refresh (HTTP, loopback only).
    poll_seconds: how often the repository is looked at; SIGHUP and `POST /refresh` do it at once.
    state: the directory that remembers which commit was published last, for a restart while the
        newest one is bad; by default a folder of the user's ($XDG_STATE_HOME).
    node_id: the name of this instance at the CA.
    ca: where the CA is, and by what this server is known to it.
    """

    repository: RepositoryLocation
    branch: str = "main"
    listen: ListenAddress = "127.0.0.1:15010"
    admin_listen: LoopbackAddress = "127.0.0.1:15011"
    poll_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 2.0
    state: LocalPath | None = None
    node_id: str = "policy-server"
    ca: CaAccess


def settings_of(
    file: Path | None, given: Mapping[str, str | None], environment: Mapping[str, str]
) -> PolicySettings:
    """Read the settings' file, with the environment over it and the command line over both.

    Raises `SettingsError`.
    """
    over = {PREFIX + name.upper(): text for name, text in given.items() if text is not None}
    settings = load_settings(PolicySettings, file, PREFIX, {**environment, **over})
    if settings.state is not None:
        return settings
    home = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return settings.model_copy(update={"state": Path(home) / "garrison" / "policy"})
