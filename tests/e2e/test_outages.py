"""Parts of the mesh go away, by force, and come back: what goes on meanwhile, what mends itself."""

from __future__ import annotations

import time

import pytest

from tests.e2e.mesh import Mesh, running_mesh

BOOK = "http://catalog.bookstore/books/7"


def assert_served(mesh: Mesh, times: int = 10) -> None:
    assert {mesh.call("web-1", BOOK).status for _ in range(times)} == {200}


def shift(mesh: Mesh, weight: int) -> dict[str, str | None]:
    route = mesh.stage.policies.read("routes/catalog.yaml")
    v1 = f"name: catalog-v1, weight: {weight}"
    return {"routes/catalog.yaml": route.replace("name: catalog-v1, weight: 90", v1)}


def test_the_mesh_serves_while_the_policy_server_is_away(own_mesh: Mesh) -> None:
    own_mesh.kill("policy-server")
    assert_served(own_mesh)
    commit = own_mesh.commit(shift(own_mesh, 0))
    own_mesh.start("policy-server")
    own_mesh.until(lambda: own_mesh.run(own_mesh.stage.all_enforce(commit)), 60)
    versions = {own_mesh.call("web-1", BOOK).json()["version"] for _ in range(20)}
    assert versions == {"v2"}


def test_sidecars_recover_when_the_ca_was_away_for_longer_than_a_life() -> None:
    life = 6
    with running_mesh(svid_seconds=life) as mesh:
        assert_served(mesh)
        mesh.kill("ca")
        time.sleep(life + 2)
        assert mesh.call("web-1", BOOK).status == 503, "an expired identity is none"
        mesh.start("ca")
        mesh.until(lambda: mesh.call("web-1", BOOK).status == 200, 30, "no recovery in 30 s")


def test_a_killed_sidecar_comes_back_by_itself(own_mesh: Mesh) -> None:
    own_mesh.kill("web-1.sidecar")
    own_mesh.start("web-1.sidecar")
    assert_served(own_mesh)


def test_a_killed_ca_comes_back_with_its_state(own_mesh: Mesh) -> None:
    roots = own_mesh.stage.places.roots.read_bytes()
    own_mesh.kill("ca")
    own_mesh.start("ca")
    assert own_mesh.stage.places.roots.read_bytes() == roots
    own_mesh.kill("ratings-1.sidecar")
    own_mesh.start("ratings-1.sidecar")
    assert own_mesh.call("web-1", "http://ratings.bookstore/ratings/7").status == 200


def test_a_policy_server_that_restarts_at_a_bad_commit_serves_the_last_good_one(
    own_mesh: Mesh,
) -> None:
    good = own_mesh.commit_and_wait(shift(own_mesh, 0))
    bad = own_mesh.commit({"authz/catalog.csv": "p, permit, x, bookstore/catalog, read, /*\n"})
    own_mesh.until(lambda: (own_mesh.status().get("refused") or {}).get("commit") == bad)
    own_mesh.kill("policy-server")
    own_mesh.kill("web-1.sidecar")
    own_mesh.start("policy-server")
    assert own_mesh.status()["commit"] == good
    assert own_mesh.status()["refused"]["commit"] == bad
    own_mesh.start("web-1.sidecar")
    assert {own_mesh.call("web-1", BOOK).json()["version"] for _ in range(20)} == {"v2"}


@pytest.mark.parametrize("process", ["catalog-1.sidecar", "catalog-1"])
def test_a_killed_instance_is_not_noticed(own_mesh: Mesh, process: str) -> None:
    own_mesh.kill(process)
    assert_served(own_mesh, 30)
    own_mesh.start(process)
    assert_served(own_mesh)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("routes/catalog.yaml", "kind: HTTPRoute\n  metadata: [\n"),
        ("authz/catalog.csv", "p, permit, shopfront, bookstore/catalog, read, /books/*\n"),
        ("authz/model.conf", "[matchers]\nm = exec(r.src)\n"),
        ("services/ratings.yaml", None),
    ],
    ids=["broken yaml", "misspelt effect", "a function in the model", "a service that is needed"],
)
def test_a_bad_commit_changes_nothing(mesh: Mesh, file: str, text: str | None) -> None:
    before = mesh.head()
    bad = mesh.commit({file: text})
    try:
        mesh.until(lambda: (mesh.status().get("refused") or {}).get("commit") == bad)
        refused = mesh.status()["refused"]["diagnostics"]
        assert all(found["file"] and found["reason"] and found["remedy"] for found in refused)
        assert mesh.status()["commit"] == before
        assert_served(mesh)
    finally:
        mesh.reset(before)
