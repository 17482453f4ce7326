"""The sidecar judges a commit before it is published."""

import stat
import sys
from pathlib import Path

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.rbac.v3.rbac_pb2 import RBAC

from garrison.authz import Compiled, Rules
from garrison.policies.acceptance import BINDING, Acceptance, identities_of
from garrison.policies.compilation import compile_commit
from garrison.policies.compile import clusters
from garrison.policies.errors import CommitRefusedError, SidecarFailedError
from garrison.policies.resources.fields import Name
from garrison.policies.sidecar import Sidecar
from garrison.policies.snapshot import Snapshot
from garrison.xds.resource import Resource
from tests.policies.bookstore import example_with

BOOKSTORE = compile_commit(example_with({}))


def script(path: Path, text: str) -> Sidecar:
    """Make an executable that does not behave."""
    file = path / "garrison-proxy"
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(stat.S_IRWXU)
    return Sidecar(file)


ANSWERS = """\
#!{python}
import sys

while length := sys.stdin.buffer.readline():
    assert len(sys.stdin.buffer.read(int(length))) == int(length)
    print('{{"refused": [{refused}]}}')
    with open("{asked}", "a") as asked:
        asked.write("x")
sys.exit({status})
"""


def answering(path: Path, refused: str = "") -> Sidecar:
    """Make an executable that refuses the same of each client, and notes that it was asked."""
    file = path / "garrison-proxy"
    status = 1 if refused else 0
    asked = path / "asked"
    text = ANSWERS.format(python=sys.executable, refused=refused, asked=asked, status=status)
    file.write_text(text, encoding="utf-8")
    file.chmod(stat.S_IRWXU)
    return Sidecar(file)


def test_every_identity_of_the_example_is_accepted(sidecar: Sidecar) -> None:
    Acceptance(sidecar).check(BOOKSTORE)
    names = [str(identity).rpartition("/")[2] for identity in identities_of(BOOKSTORE)]
    assert names == ["catalog", "orders", "payments", "ratings", "web", "admin"]


def response_with(cluster: Cluster) -> bytes:
    """Serialize what admin gets, with another cluster of the same name in its place."""
    view = BOOKSTORE.view_for(identities_of(BOOKSTORE)[-1], BINDING, "garrison-proxy")
    found = [dict(by_name) for by_name in view.resources.values()]
    found[0][cluster.name] = Resource.of(cluster.name, cluster)
    return b"".join(each.state_head + each.body for by_name in found for each in by_name.values())


def test_the_sidecar_names_what_it_refuses(sidecar: Sidecar) -> None:
    service = BOOKSTORE.mesh.services[Name("bookstore", "orders")]
    cluster = clusters.of_service(service, BOOKSTORE.mesh.trust_domain)
    good = response_with(cluster)
    assert sidecar.refusals([good]) == [()]
    cluster.alt_stat_name = "x"
    before, (refusal,), after = sidecar.refusals([good, response_with(cluster), good])
    assert before == after == ()
    assert refusal.name == "bookstore/orders"
    assert "alt_stat_name" in refusal.error


def test_what_is_refused_refuses_the_commit(tmp_path: Path) -> None:
    line = '{"type": "a/envoy.config.cluster.v3.Cluster", "name": "b/o", "error": "Cluster.x"}'
    acceptance = Acceptance(answering(tmp_path, line))
    with pytest.raises(CommitRefusedError) as raised:
        acceptance.check(BOOKSTORE)
    assert raised.value.total == len(identities_of(BOOKSTORE))
    (first, *_) = raised.value.diagnostics
    assert (first.code, first.place.field) == ("compiled/refused", "Cluster b/o")


class _Permissive(Compiled):
    """A compiler that lost what denies."""

    def rules(self, destination: str) -> Rules:
        return Rules(RBAC(action=RBAC.DENY), super().rules(destination).allow)


def test_rules_that_casbin_disagrees_with_are_refused_by_name(tmp_path: Path) -> None:
    right = BOOKSTORE.authorization
    wrong = _Permissive(
        right.compilation, "bookstore.example", right.destinations, sorted(right.principals.names)
    )
    snapshot = Snapshot.of(BOOKSTORE.commit, BOOKSTORE.mesh, wrong)
    acceptance = Acceptance(answering(tmp_path))
    coverage = acceptance.check(BOOKSTORE)
    assert coverage.is_complete
    assert coverage.lines == coverage.lines_reached > 0
    assert acceptance.check(BOOKSTORE) is coverage
    with pytest.raises(CommitRefusedError) as raised:
        Acceptance(answering(tmp_path)).check(snapshot)
    (finding,) = raised.value.diagnostics
    assert finding.code == "authz/casbin-disagrees"
    assert str(finding.place).startswith("authz/")


def test_what_was_accepted_is_not_asked_again(tmp_path: Path) -> None:
    acceptance = Acceptance(answering(tmp_path))
    acceptance.check(BOOKSTORE)
    asked = len((tmp_path / "asked").read_text())
    assert asked == len(identities_of(BOOKSTORE))
    files = example_with({"authz/extra.csv": "p, allow, bookstore/web, bookstore/web, GET, /x\n"})
    acceptance.check(compile_commit(files))
    assert len((tmp_path / "asked").read_text()) == asked + 1


@pytest.mark.parametrize(
    "text",
    [
        "exit 2",
        "cat >/dev/null; echo no; exit 0",
        "cat >/dev/null; exit 1",
        "cat >/dev/null",
        """cat >/dev/null; echo '{"refused": []}'""",
        "kill -9 $$",
    ],
)
def test_an_executable_that_does_not_answer_accepts_nothing(tmp_path: Path, text: str) -> None:
    with pytest.raises(SidecarFailedError):
        Acceptance(script(tmp_path, text)).check(BOOKSTORE)


def test_an_executable_that_is_not_there_accepts_nothing(tmp_path: Path) -> None:
    with pytest.raises(SidecarFailedError, match="cannot be run"):
        Acceptance(Sidecar(tmp_path / "nowhere")).check(BOOKSTORE)
