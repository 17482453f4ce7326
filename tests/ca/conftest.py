"""A CA that many tests share, and a fresh one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ca.authorities import CaInDirectory, make_ca


@pytest.fixture(scope="session")
def shared_ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaInDirectory]:
    made = make_ca(tmp_path_factory.mktemp("ca"))
    yield made
    made.store.close()


@pytest.fixture
def fresh_ca(tmp_path: Path) -> Iterator[CaInDirectory]:
    made = make_ca(tmp_path)
    yield made
    made.store.close()
