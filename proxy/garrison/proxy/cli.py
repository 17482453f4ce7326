"""`garrison proxy`: becomes the sidecar."""

from __future__ import annotations

import os
from pathlib import Path

import click

from garrison.proxy.errors import ExecutableMissingError
from garrison.proxy.executable import find_executable


@click.command("proxy")
@click.option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The sidecar's settings (TOML).",
)
def proxy(config: Path) -> None:
    """Run the sidecar beside a service, until SIGTERM."""
    executable = str(find_executable())
    try:
        os.execv(executable, [executable, "run", "--config", str(config)])  # noqa: S606  # no shell is the point
    except OSError as error:
        text = f"{executable}: cannot be run: {error.strerror}: run `make build`"
        raise ExecutableMissingError(text) from error
