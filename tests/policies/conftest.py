"""What the tests of the policies share."""

from pathlib import Path

import pytest

from garrison.policies.sidecar import Sidecar
from garrison.proxy.errors import ExecutableMissingError
from garrison.proxy.executable import find_executable
from tests.policies import git_trees
from tests.policies.bookstore import example_texts


@pytest.fixture(scope="session")
def sidecar() -> Sidecar:
    """The sidecar's executable, which `make test` builds."""
    try:
        return Sidecar(find_executable())
    except ExecutableMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of the example."""
    path = tmp_path / "policy.git"
    with git_trees.bare(path) as repo:
        git_trees.commit(repo, git_trees.nested(example_texts()))
    return path
