"""`garrison proxy`: a mistake is one message and exit status 2; else it becomes the sidecar."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-c", "from garrison.deploy.cli import main; main()", "proxy"]


def launch(*arguments: str, executable: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GARRISON_PROXY": str(executable)}
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(stat.S_IRWXU)
    return path


def test_it_becomes_the_executable(tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.touch()
    echo = script(tmp_path / "garrison-proxy", 'echo "$@"; exit 7')
    launched = launch("--config", str(config), executable=echo)
    assert launched.stdout == f"run --config {config}\n"
    assert launched.returncode == 7


def test_a_missing_executable_is_told(tmp_path: Path) -> None:
    config = tmp_path / "proxy.toml"
    config.touch()
    launched = launch("--config", str(config), executable=tmp_path / "absent")
    assert launched.returncode == 2
    assert "cannot be run: build it, or unset it" in launched.stderr
    assert "Traceback" not in launched.stderr


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    echo = script(tmp_path / "garrison-proxy", "exit 0")
    launched = launch("--config", str(tmp_path / "absent.toml"), executable=echo)
    assert launched.returncode == 2
    assert "does not exist" in launched.stderr
    assert launch(executable=echo).returncode == 2
