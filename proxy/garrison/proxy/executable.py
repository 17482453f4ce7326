"""Finds the sidecar's executable.

The distribution's own list of files knows it; the directory of scripts would be another
environment's where one is laid over the other. `GARRISON_PROXY` names another, such as a fresh
`cargo build`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from garrison.proxy.errors import ExecutableMissingError

NAME = "garrison-proxy"
VARIABLE = "GARRISON_PROXY"


def find_executable(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the path of garrison-proxy; raise `ExecutableMissingError` if there is none."""
    named = environment.get(VARIABLE)
    if named:
        return _runnable(Path(named), f"{VARIABLE}={named}: cannot be run: build it, or unset it")
    try:
        shipped = [file for file in files("garrison") or () if file.name == NAME]
    except PackageNotFoundError:
        shipped = []
    if not shipped:
        raise ExecutableMissingError("garrison-proxy is not built: run `make build`")
    found = Path(str(shipped[0].locate())).resolve()
    return _runnable(found, f"{found}: cannot be run: run `make build`")


def _runnable(executable: Path, otherwise: str) -> Path:
    if not (executable.is_file() and os.access(executable, os.X_OK)):
        raise ExecutableMissingError(otherwise)
    return executable
