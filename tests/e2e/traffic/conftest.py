"""The lab, shared by all tests of traffic: each says first which policies are in force."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.mesh import Mesh
from tests.e2e.traffic.lab import Lab, open_lab


@pytest.fixture(scope="session")
def session_lab(mesh: Mesh) -> Iterator[Lab]:
    """The lab in the shared mesh."""
    with open_lab(mesh) as running:
        yield running


@pytest.fixture
def lab(session_lab: Lab) -> Lab:
    """The lab, its instances well and fast."""
    for echo in session_lab.echoes.values():
        echo.status, echo.delay, echo.seen = 200, 0.0, 0
    for parrot in session_lab.parrots.values():
        parrot.remaining.clear()
        parrot.patience.clear()
    return session_lab
