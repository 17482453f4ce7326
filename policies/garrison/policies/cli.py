"""The commands of the policies: `garrison policy serve`, `garrison status`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from garrison.identity.errors import UnavailableError
from garrison.policies.parts import Parts

if TYPE_CHECKING:
    from garrison.policies.status import MeshStatus

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def policy() -> None:
    """Run the policy server."""


@policy.command()
@click.option("--repo", "repository", help="Path or URL of the git repository that is the mesh.")
@click.option("--branch", help="The branch that is enforced.  [default: main]")
@click.option("--config", type=_FILE, help="The policy server's settings (TOML).")
@click.option("--listen", help="IP:PORT for sidecars.  [default: 127.0.0.1:15010]")
@click.option("--admin-listen", help="IP:PORT for operators.  [default: 127.0.0.1:15011]")
@click.pass_obj
def serve(parts: Parts, /, config: Path | None, **given: str | None) -> None:
    """Serve each commit of a repository to the sidecars, until SIGTERM."""
    from garrison.policies import policy_server  # noqa: PLC0415  # not for --help
    from garrison.policies.acceptance import Acceptance  # noqa: PLC0415
    from garrison.policies.policy_settings import settings_of  # noqa: PLC0415
    from garrison.policies.preparation import prepare  # noqa: PLC0415
    from garrison.policies.repository import name_repository  # noqa: PLC0415
    from garrison.policies.sidecar import Sidecar  # noqa: PLC0415

    if repository := given.get("repository"):
        given["repository"] = _absolute(repository)
    settings = settings_of(config, given, os.environ)
    source = name_repository(settings.repository, settings.branch)
    with contextlib.suppress(UnavailableError):  # it may come back; what was fetched is here
        source.refresh()
        source.head()
    acceptance = Acceptance(Sidecar(parts.find_executable()))
    server = policy_server.PolicyServer(
        settings, source, lambda commit: prepare(source, commit, acceptance)
    )
    asyncio.run(policy_server.serve(server))


def _absolute(location: str) -> str:
    """Make a path of the command line independent of where the settings' file is."""
    return location if "://" in location else str(Path(location).expanduser().absolute())


def _commit(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _COMMIT.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no commit: 7 to 40 hexadecimal digits are wanted")
    return value


@click.command()
@click.option("--policy", default="http://127.0.0.1:15011", help="The policy server's admin URL.")
@click.option("--ca", default="http://127.0.0.1:15014", help="The CA's admin URL.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--wait",
    metavar="COMMIT",
    callback=_commit,
    help="Wait until every proxy enforces this commit.",
)
@click.option(
    "--timeout", default=60.0, type=click.FloatRange(min=0), help="Seconds to wait.  [default: 60]"
)
def status(policy: str, ca: str, wait: str | None, timeout: float, *, as_json: bool) -> int:
    """Say which proxies enforce which commit, and which do not.

    Exit status: 0 when every proxy enforces the commit that is served (or that is waited for); 1
    when not, or not in time; 2 when a server cannot be asked.
    """
    from garrison.policies import status as asked  # noqa: PLC0415  # not for --help
    from garrison.policies import status_table  # noqa: PLC0415

    found = asyncio.run(asked.waited_for(policy, ca, wait, timeout))
    status_table.show(found, as_json=as_json)
    if wait and not found.enforces(wait) and not found.refuses(wait):
        text = f"garrison: {wait} is not enforced by every proxy after {timeout:g} s"
        click.echo(text, err=True)
    return _exit_status(found, wait)


def _exit_status(found: MeshStatus, wait: str | None) -> int:
    if wait is not None:
        return 0 if found.enforces(wait) else 1
    if found.ca_trouble:
        return 2
    return 0 if found.is_converged else 1
