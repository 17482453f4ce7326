"""The folder in which mistakes are made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from spiffe import TrustDomain

from garrison.ca.keys import KeyType, read_passphrase, write_file
from garrison.ca.state import StateDirectory
from garrison.deploy.demo.network import random_block
from tests.identity.tokens import TokenIssuer
from tests.mistakes.place import SETTINGS, Place
from tests.policies import git_trees
from tests.policies.bookstore import example_texts


@pytest.fixture(scope="session")
def well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it should be."""
    folder = tmp_path_factory.mktemp("well")
    for name, text in SETTINGS.items():
        (folder / name).write_text(text)
    for name in ("passphrase", "other-passphrase"):
        write_file(folder / name, f"{name} that is long enough\n".encode())
    write_file(folder / "token", b"token")
    (folder / "jwks.json").write_bytes(TokenIssuer().jwks())
    (folder / "folder").mkdir()
    secret = read_passphrase(folder / "passphrase")
    StateDirectory(folder / "state").create(TrustDomain("bookstore.example"), KeyType.P256, secret)
    with git_trees.bare(folder / "policy.git") as repo:
        git_trees.commit(repo, git_trees.nested(example_texts()))
    git_trees.bare(folder / "empty.git").close()
    return folder


@pytest.fixture
def place(well: Path, tmp_path: Path) -> Place:
    """A copy of it, to make a mistake in."""
    made = Place(tmp_path / "place", str(random_block()[7]))
    shutil.copytree(well, made.folder)
    for name in SETTINGS:
        file = made.folder / name
        file.write_text(file.read_text().replace("HOST", made.host))
    return made
