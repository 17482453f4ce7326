"""The programs that a measurement needs: ours, the load, and the peers that are installed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from garrison.identity.errors import UnavailableError
from tests.e2e.envoy import envoy_executable

PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light"}  # of Debian
SYSTEM_BINARIES = "/usr/sbin:/usr/local/sbin"  # not in everybody's PATH


class ProgramMissingError(UnavailableError):
    """A program is not there; the text says how to have it."""


def load_program() -> Path:
    """Find the load (proxy/examples/load), which cargo builds as an example."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", "proxy/target"))
    named = os.environ.get("GARRISON_LOAD")
    for file in (
        [Path(named)] if named else [target / p / "examples" / "load" for p in ("release", "debug")]
    ):
        if file.is_file():
            return file
    raise ProgramMissingError(
        "the load is not built: run `cargo build --release --example load` in proxy/, "
        "or name it by GARRISON_LOAD"
    )


@dataclass(frozen=True)
class Peers:
    """Where each peer's program is; absent ones are not measured."""

    found: dict[str, Path]

    @property
    def missing(self) -> dict[str, str]:
        """What would bring the peers that are not there."""
        absent = {
            name: f"apt-get install {PACKAGES[name]}" for name in PACKAGES if name not in self.found
        }
        return absent if "envoy" in self.found else absent | {"envoy": "make .venv/peers/.locked"}


def find_peers() -> Peers:
    """Look for the peers' programs."""
    found = {}
    if envoy_executable().is_file():
        found["envoy"] = envoy_executable().absolute()
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_BINARIES}"
    for name in PACKAGES:
        if program := shutil.which(name, path=path):
            found[name] = Path(program)
    return Peers(found)
