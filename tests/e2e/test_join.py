"""The README's way to join a service of one's own, command for command."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.mesh import Mesh

NAME = "bookstore.reviews"


@contextlib.contextmanager
def program(*command: str) -> Iterator[None]:
    """Run a program until the block ends."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            yield
        finally:
            running.terminate()
            running.wait(20)


def push(clone: Path) -> None:
    """Do what a person does in the clone."""
    for words in ("add -A", "commit --quiet -m joins", "push --quiet"):
        subprocess.run(["git", *words.split()], cwd=clone, check=True)


def test_service_joins_by_a_commit_and_a_settings_file(own_mesh: Mesh, tmp_path: Path) -> None:
    demo = own_mesh.stage.places.directory
    address = own_mesh.stage.places.network.host(61)
    (tmp_path / "hello.txt").write_text("hello")
    subprocess.run(["cp", "-r", f"{demo}/join/policies/.", f"{demo}/policies"], check=True)
    push(demo / "policies")
    serve = ("http.server", "--bind", address, "--directory", str(tmp_path), "8080")
    garrison = (sys.executable, "-m", "garrison.deploy")
    with (
        program(sys.executable, "-m", *serve),
        program(*garrison, "proxy", "--config", str(demo / "join" / "sidecar.toml")),
    ):
        url = "http://reviews.bookstore/hello.txt"
        own_mesh.until(lambda: own_mesh.call("web-1", url).status == 200, 30)
        assert own_mesh.call("web-1", url).body == b"hello"
        assert own_mesh.call("ratings-1", url).status != 200
        nodes = {client["node"] for client in own_mesh.status()["clients"]}
        assert "reviews-1" in nodes


def test_readme_shows_the_settings_file_that_is_used() -> None:
    root = Path(__file__).parent.parent.parent
    shown = (root / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    used = (root / "deploy" / "examples" / "join" / "sidecar.toml").read_text()

    def settings(text: str) -> list[str]:
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]

    assert settings(shown) == settings(used)
