"""Meshes for tests with the real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, running_mesh

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker do all that loads the machine, one after another, with one shared mesh."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("machine"))


@pytest.fixture(scope="session")
def mesh() -> Iterator[Mesh]:
    """A mesh shared by tests that leave it as they found it."""
    with running_mesh() as running:
        yield running


@pytest.fixture
def own_mesh() -> Iterator[Mesh]:
    """A mesh that a test may break."""
    with running_mesh() as running:
        yield running
