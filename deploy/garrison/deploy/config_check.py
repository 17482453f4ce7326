"""`garrison config check`: what a settings file comes to, read as its own process would read it.

The CA's and the policy server's settings are read by the types that they start with, the sidecar's
by the sidecar. Secrets are paths in all three: the paths are shown, never what is in them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from garrison.ca.settings import PREFIX as CA_PREFIX
from garrison.ca.settings import CaSettings
from garrison.deploy.parts import SidecarParts
from garrison.identity.errors import RejectedError
from garrison.identity.settings import Settings, load_settings, read_toml
from garrison.policies.policy_settings import PREFIX as POLICY_PREFIX
from garrison.policies.policy_settings import PolicySettings

SIDECAR_SECONDS = 30
CHILD = "garrison-proxy: "  # how the sidecar's own messages begin
TABLES = {
    "ca": frozenset(CaSettings.model_fields),
    "policy": frozenset(PolicySettings.model_fields),
    "proxy": frozenset(
        {
            "trust_domain", "workers", "drain_seconds", "access_log",
            "node", "ca", "policy", "inbound", "outbound", "admin",
        }
    ),
}  # fmt: skip
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")  # RFC 3986 §3.2.1


class SettingsFileRejectedError(RejectedError):
    """A settings file is not one of the kind that was asked for, or of none that can be told."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its path, such as `ca.roots`; its value; and who says so."""

    setting: str
    value: Any
    source: str  # file, environment, default, command line

    def __str__(self) -> str:
        """Write a line of TOML."""
        if self.value is None:
            return f"# {self.setting} is not set"
        return f"{self.setting} = {json.dumps(self.value, ensure_ascii=False)}"


@click.group()
def config() -> None:
    """Look at settings files."""


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(list(TABLES)),
    help="Whose settings they are, where the file does not show it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, kind: str | None, *, as_json: bool) -> None:
    """Print every setting that would apply, and whether FILE, the environment or nobody says so.

    FILE is read as the CA, the policy server or the sidecar would read it. Exit status 0: it can
    be used; 2: not, and why is told.
    """
    kind = kind or _guess(file)
    found = list(_READERS[kind](file))
    if as_json:
        click.echo(json.dumps({"kind": kind, "settings": [asdict(each) for each in found]}))
        return
    click.echo(f"# {file}: settings of {_WHOSE[kind]}")
    width = max(len(str(each)) for each in found if each.value is not None)
    for each in found:
        click.echo(f"{each!s:{width}}  # {each.source}" if each.value is not None else str(each))


def _guess(file: Path) -> str:
    """Return the one kind that knows most of the tables and keys at the top of the file."""
    top = read_toml(file).keys()
    unknown = {kind: len(top - names) for kind, names in TABLES.items()}
    fewest = [kind for kind, count in unknown.items() if count == min(unknown.values())]
    if len(fewest) != 1:
        told = f"{file}: could be the settings of {' or '.join(_WHOSE[kind] for kind in fewest)}"
        raise SettingsFileRejectedError(f"{told}: say which with --kind")
    return fewest[0]


def _ca(file: Path) -> Iterator[Setting]:
    settings = load_settings(CaSettings, file, CA_PREFIX, os.environ)
    return _told(settings, file, CA_PREFIX)


def _policy(file: Path) -> Iterator[Setting]:
    """Read the policy server's file, which may leave the repository to the command line."""
    environment = dict(os.environ)
    variable = f"{POLICY_PREFIX}REPOSITORY"
    is_left_out = "repository" not in read_toml(file) and variable not in environment
    if is_left_out:
        environment[variable] = "."
    settings = load_settings(PolicySettings, file, POLICY_PREFIX, environment)
    for each in _told(settings, file, POLICY_PREFIX):
        if is_left_out and each.setting == "repository":
            yield Setting(f"{each.setting} (give it with --repo)", None, "command line")
        else:
            yield each


def _proxy(file: Path) -> Iterator[Setting]:
    command = [str(SidecarParts().find_executable()), "settings", "--config", str(file)]
    done = subprocess.run(  # noqa: S603  # our own executable
        command, capture_output=True, check=False, text=True, timeout=SIDECAR_SECONDS
    )
    if done.returncode:
        raise SettingsFileRejectedError(done.stderr.strip().removeprefix(CHILD))
    for line in done.stdout.splitlines():
        told = json.loads(line)
        yield Setting(told["setting"], told["value"], told["from"])


_READERS = {"ca": _ca, "policy": _policy, "proxy": _proxy}
_WHOSE = {"ca": "the CA", "policy": "the policy server", "proxy": "a sidecar"}


def _told(settings: Settings, file: Path, prefix: str) -> Iterator[Setting]:
    given = read_toml(file)
    for path, value in _leaves((), settings):
        source = "default"
        if _is_given(given, path):
            source = "file"
        variable = prefix + "__".join(path).upper()
        if variable in os.environ:
            source = f"environment ({variable})"
        yield Setting(".".join(path), _shown(value), source)


def _leaves(path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, BaseModel):
        inner: Iterable[tuple[str, object]] = iter(value)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        inner = ((str(number), each) for number, each in enumerate(value))
    else:
        yield path, value
        return
    for name, each in inner:
        yield from _leaves((*path, name), each)


def _is_given(given: object, path: tuple[str, ...]) -> bool:
    for name in path:
        if isinstance(given, Mapping) and name in given:
            given = given[name]
        elif isinstance(given, list) and name.isdecimal():
            given = given[int(name)]
        else:
            return False
    return True


def _shown(value: object) -> object:
    """Return a value as JSON has it, without the credentials that a URL may carry."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str):
        return _CREDENTIALS.sub("[redacted]@", value)
    return list(value) if isinstance(value, tuple) else value
