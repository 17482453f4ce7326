"""The executable is found, or its absence told."""

from __future__ import annotations

from pathlib import Path

import pytest

from garrison.proxy.errors import ExecutableMissingError
from garrison.proxy.executable import VARIABLE, find_executable


def test_variable_names_the_executable(tmp_path: Path) -> None:
    built = tmp_path / "garrison-proxy"
    built.touch(mode=0o755)
    assert find_executable({VARIABLE: str(built)}) == built


def test_variable_that_names_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecutableMissingError, match="cannot be run"):
        find_executable({VARIABLE: str(tmp_path / "absent")})
    unrunnable = tmp_path / "garrison-proxy"
    unrunnable.touch(mode=0o644)
    with pytest.raises(ExecutableMissingError, match="cannot be run"):
        find_executable({VARIABLE: str(unrunnable)})
