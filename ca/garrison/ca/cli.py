"""`garrison ca init | serve | status`.

Where entries come from is for whoever mounts these commands: `command` takes a maker of sources, so
that the CA knows nothing of how a repository is read.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # not for --help
    from garrison.ca.entries import EntrySource
    from garrison.ca.settings import CaSettings

ConfigFile = click.Path(exists=True, dir_okay=False, path_type=Path)
_config = click.option("--config", type=ConfigFile, help="The CA's settings (TOML).")


def command(source_of: Callable[[CaSettings], EntrySource]) -> click.Group:
    """Return the commands of a CA whose entries come from `source_of` its settings."""

    @click.group()
    def ca() -> None:
        """Run the certificate authority."""

    @ca.command()
    @click.option("--config", type=ConfigFile, required=True, help="The CA's settings (TOML).")
    def serve(config: Path) -> None:
        """Issue SVIDs and serve the trust bundle, until SIGTERM."""
        from garrison.ca import ca_server  # noqa: PLC0415, not for --help
        from garrison.ca.settings import PREFIX, CaSettings  # noqa: PLC0415
        from garrison.identity.settings import load_settings  # noqa: PLC0415

        settings = load_settings(CaSettings, config, PREFIX, os.environ)
        asyncio.run(ca_server.serve(settings, source_of(settings)))

    ca.add_command(init)
    ca.add_command(status)
    return ca


@click.command()
@_config
@click.option("--trust-domain", help="As in `bookstore.example`.")
@click.option("--state", help="The directory to make.")
@click.option("--passphrase-file", help="What encrypts the keys: a file closed to others.")
@click.option(
    "--key-type",
    type=click.Choice(["p256", "p384"]),
    default="p256",
    show_default=True,
    help="The curve of root and issuing key.",
)
def init(config: Path | None, key_type: str, **given: str | None) -> None:
    """Make a trust domain: root, issuing key, trust bundle and an empty store.

    Nothing is ever overwritten. What --config says, the options override.
    """
    from garrison.ca.initialization import initialize  # noqa: PLC0415, not for --help

    click.echo(initialize(config, given, key_type))


@click.command()
@_config
@click.option("--url", help="The admin address of a running CA.  [default: http://127.0.0.1:15014]")
@click.option(
    "--state",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Read this state directory instead of asking a running CA.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(config: Path | None, url: str | None, state: Path | None, *, as_json: bool) -> int:
    """Say how the CA is: its certificates' expiry, who has SVIDs, whether the audit log holds.

    A state directory is read without the passphrase, and its audit log is verified from the start.
    Exit status: 0 if certificates can be issued; 1 if not; 2 if that cannot be told.
    """
    from garrison.ca import inspection  # noqa: PLC0415, not for --help

    found = inspection.inspect(inspection.Subject.of(config, url, state, os.environ))
    click.echo(json.dumps(found, indent=2) if as_json else inspection.describe(found))
    return 0 if found["ready"] else 1
