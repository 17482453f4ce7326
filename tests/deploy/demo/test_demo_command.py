"""`garrison demo`: what keeps it from starting is told in one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from garrison.deploy import cli
from garrison.deploy.demo.network import random_block, reserved


def test_network_that_is_not_loopback_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--network", "10.0.0.0/24"]) == cli.MISTAKE
    assert capsys.readouterr().err == (
        "garrison: --network 10.0.0.0/24: not loopback; wanted is 127.X.Y.0/24\n"
    )


def test_network_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    block = random_block()
    with reserved(block):
        assert cli.run(["demo", "--network", str(block)]) == cli.MISTAKE
    told = capsys.readouterr().err
    assert told.startswith(f"garrison: the network {block} is in use")
    assert "Traceback" not in told


def test_sidecar_that_is_not_built_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GARRISON_PROXY", str(tmp_path / "absent"))
    assert cli.run(["demo"]) == cli.MISTAKE
    assert "cannot be run: build it" in capsys.readouterr().err
