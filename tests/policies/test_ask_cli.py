"""`garrison check` and `garrison explain`, as people run them."""

import json
from pathlib import Path
from typing import Any

import pytest
from dulwich.refs import Ref
from dulwich.repo import Repo

from garrison.deploy.cli import run
from garrison.policies.sidecar import Sidecar
from tests.policies import git_trees
from tests.policies.bookstore import example_texts

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _executable(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_PROXY", str(sidecar.executable))


def recommit(path: Path, changes: dict[str, str]) -> str:
    with Repo(str(path)) as repo:
        return git_trees.commit(repo, git_trees.nested({**example_texts(), **changes}))


def asked(repository: Path, *more: str, **request: str) -> list[str]:
    """Return the arguments by which web asks catalog for a book, but for `request`."""
    defaults = {
        "from": "bookstore/web",
        "to": "bookstore/catalog",
        "method": "GET",
        "path": "/books/7",
    }
    options = [f"--{name}={value}" for name, value in {**defaults, **request}.items()]
    return ["explain", str(repository), *options, *more]


def explained(captured: Captured, arguments: list[str]) -> tuple[int, dict[str, Any]]:
    status = run([*arguments, "--json"])
    found: dict[str, Any] = json.loads(captured.readouterr().out)
    return status, found


def test_a_good_commit_is_fit(repository: Path, capsys: Captured) -> None:
    assert run(["check", str(repository)]) == 0
    assert "is fit to be served: 7 services" in capsys.readouterr().out
    assert run(["check", str(repository), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)["checked"]
    assert checked["lines"] == checked["of"] > 0
    assert checked["places"] == checked["of_places"] >= checked["of"]
    assert checked["complete"]


def test_a_bad_commit_is_told_with_place_and_remedy(repository: Path, capsys: Captured) -> None:
    text = example_texts()["routes/catalog.yaml"]
    commit = recommit(repository, {"routes/catalog.yaml": text.replace("catalog-v2", "catalog-v3")})
    assert run(["check", str(repository)]) == 2
    captured = capsys.readouterr()
    assert captured.out == (
        "routes/catalog.yaml:20: spec.rules[0].backendRefs[1].name: there is no service "
        "bookstore/catalog-v3 (fix: add it, or correct the name)\n"
    )
    assert captured.err == f"commit {commit[:12]} is refused: 1 finding\n"


def test_a_bad_commit_as_json(repository: Path, capsys: Captured) -> None:
    recommit(repository, {"mesh.yaml": "kind: Mash"})
    assert run(["check", str(repository), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["total"]) == (False, 2)
    assert {each["code"] for each in found["diagnostics"]} == {"mesh/missing", "resource/kind"}
    assert all(each["remedy"] for each in found["diagnostics"])


def test_an_older_commit_can_be_checked(repository: Path, capsys: Captured) -> None:
    with Repo(str(repository)) as repo:
        good = repo.refs[Ref(b"refs/heads/main")].decode()
    recommit(repository, {"mesh.yaml": "kind: Mash"})
    assert run(["check", str(repository), "--commit", good[:8]]) == 0
    assert good[:12] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (
            {"authz/catalog.csv": "p, alow, shopfront, bookstore/catalog, read, /b\n"},
            "authz/catalog.csv:1",
        ),
        ({"authz/x.csv": "p, allow, bookstore/web, bookstore/nothing, GET, /b\n"}, "authz/x.csv:1"),
        ({"authz/x.csv": "p, allow, bookstore/nobody, bookstore/web, GET, /b\n"}, "authz/x.csv:1"),
        ({"authz/model.conf": "[matchers]\n"}, "authz/model.conf"),
    ],
)
def test_findings_of_authorization(
    repository: Path, capsys: Captured, changes: dict[str, str], place: str
) -> None:
    recommit(repository, changes)
    assert run(["check", str(repository), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    assert {each["code"].partition("/")[0] for each in found} == {"authz"}
    assert place in {f"{each['file']}:{each['line']}" for each in found} | {
        each["file"] for each in found
    }


def test_a_line_for_an_opaque_service_names_both_places(repository: Path, capsys: Captured) -> None:
    text = example_texts()["services/ratings.yaml"].replace("protocol: http", "protocol: tcp")
    recommit(repository, {"services/ratings.yaml": text})
    assert run(["check", str(repository)]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("authz/ratings.csv:1: ")
    assert "services/ratings.yaml:8" in line


def test_a_repository_without_a_model(repository: Path, capsys: Captured) -> None:
    with Repo(str(repository)) as repo:
        texts = {path: text for path, text in example_texts().items() if path != "authz/model.conf"}
        git_trees.commit(repo, git_trees.nested(texts))
    assert run(["check", str(repository)]) == 2
    assert "authz/model.conf: there is no model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "{}/nowhere"], "no such directory"),
        (["check", "{}"], "not a git repository"),
        (["check", "{}/policy.git", "--branch", "next"], "no branch 'next'"),
        (["check", "{}/policy.git", "--branch", "../x"], "cannot be the name of a branch"),
        (["check", "{}/policy.git", "--commit", "0123456789"], "no commit"),
        (["check", "http://localhost/x"], "refused"),
        (["check"], "Missing argument"),
        (["check", "{}/policy.git", "--nonsense"], "No such option"),
        (["explain", "{}/policy.git", "--from", "a/b"], "--to, --method, --path"),
        (["explain", "inbound/nothing"], "no code"),
    ],
)
def test_mistakes_are_one_message(
    repository: Path, capsys: Captured, arguments: list[str], says: str
) -> None:
    assert run([each.format(repository.parent) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_an_allowed_request_names_its_line_and_clusters(repository: Path, capsys: Captured) -> None:
    status, found = explained(capsys, asked(repository))
    assert (status, found["allowed"]) == (0, True)
    assert found["rule"] == "authz/catalog.csv:2"
    assert found["text"] == "p, allow, shopfront, bookstore/catalog, read, /books/*"
    assert found["route"] == {
        "name": "bookstore/catalog#books",
        "place": "routes/catalog.yaml:17",
        "clusters": [
            {"name": "bookstore/catalog-v1", "weight": 90},
            {"name": "bookstore/catalog-v2", "weight": 10},
        ],
    }
    assert found["notes"] == []


def test_a_denied_request_names_the_nearest_lines(repository: Path, capsys: Captured) -> None:
    status, found = explained(capsys, asked(repository, method="POST"))
    assert (status, found["allowed"], found["rule"]) == (1, False, None)
    assert found["nearest"][0]["rule"] == "authz/catalog.csv:2"
    assert len(found["nearest"][0]["differs"]) == 1


def test_a_deny_line_decides(repository: Path, capsys: Captured) -> None:
    request = {"from": "ops/admin", "to": "bookstore/payments", "path": "/health"}
    status, found = explained(capsys, asked(repository, **request))
    assert (status, found["rule"]) == (1, "authz/operators.csv:4")


def test_a_service_that_is_out_of_scope_is_noted(repository: Path, capsys: Captured) -> None:
    status, found = explained(capsys, asked(repository, to="bookstore/payments", path="/charges"))
    assert (status, found["allowed"], found["code"]) == (1, False, "outbound/unknown-service")
    assert "is not told of it" in found["notes"][0]


def test_the_path_is_made_canonical_first(repository: Path, capsys: Captured) -> None:
    status, found = explained(capsys, asked(repository, path="/x/..//books/%37?a=/../b"))
    assert (status, found["path"]) == (0, "/books/7")
    status, found = explained(capsys, asked(repository, path="/books/..%2Fadmin"))
    assert (status, found["code"]) == (1, "outbound/bad-path")


def test_a_request_that_no_rule_routes(repository: Path, capsys: Captured) -> None:
    rule = "  rules: [{backendRefs: [{name: orders}], matches: [{method: PUT}]}]"
    text = example_texts()["routes/payments.yaml"].replace("payments", "orders")
    recommit(repository, {"routes/orders.yaml": text.partition("  rules:")[0] + rule + "\n"})
    request = {"to": "bookstore/orders", "path": "/orders/1"}
    status, found = explained(capsys, asked(repository, **request))
    assert (status, found["code"], found["route"]) == (1, "outbound/no-route", None)
    assert found["nearest_routes"] == [
        {
            "name": "bookstore/orders#0",
            "place": "routes/orders.yaml:10",
            "differs": ["method is GET, the rule wants PUT"],
        }
    ]
    assert run(asked(repository, **request)) == 1
    assert "not routed by bookstore/orders#0" in capsys.readouterr().out


def test_headers_choose_the_route(repository: Path, capsys: Captured) -> None:
    text = example_texts()["routes/catalog.yaml"] + (
        "    - name: canary\n"
        "      matches: [{headers: [{name: X-Canary, value: yes}]}]\n"
        "      backendRefs: [{name: catalog-v2}]\n"
    )
    recommit(repository, {"routes/catalog.yaml": text})
    _, found = explained(capsys, asked(repository, "--header", "x-canary=yes"))
    assert found["route"]["name"] == "bookstore/catalog#canary"
    _, found = explained(capsys, asked(repository, "--header", "x-canary=no"))
    assert found["route"]["name"] == "bookstore/catalog#books"


def test_an_identity_that_nobody_can_have_is_noted(repository: Path, capsys: Captured) -> None:
    source = "spiffe://bookstore.example/ns/bookstore/sa/nobody"
    status, found = explained(capsys, asked(repository, **{"from": source}))
    assert status == 1
    assert "no RegistrationEntry" in found["notes"][0]


def test_the_answer_for_people(repository: Path, capsys: Captured) -> None:
    assert run(asked(repository)) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "allow: spiffe://bookstore.example/ns/bookstore/sa/web -> bookstore/catalog GET /books/7"
    )
    assert told[1] == (
        "  at bookstore/catalog: authz/catalog.csv:2: "
        "p, allow, shopfront, bookstore/catalog, read, /books/*"
    )
    assert "    cluster bookstore/catalog-v2: 10 of 100" in told
    assert run(asked(repository, method="POST")) == 1
    assert "no line allows it; the nearest:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "request_",
    [
        {"to": "bookstore/catalogue"},
        {"to": "catalog"},
        {"to": "bookstore/catalog-v1"},
        {"from": "web"},
        {"from": "spiffe://bookstore.example/web"},
        {"from": "spiffe://other.example/ns/bookstore/sa/web"},
        {"from": "spiffe://Bookstore.example/ns/bookstore/sa/web"},
    ],
)
def test_requests_that_cannot_be(
    repository: Path, capsys: Captured, request_: dict[str, str]
) -> None:
    assert run(asked(repository, **request_)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"garrison: --{next(iter(request_))} ")
    assert captured.out == ""


def test_a_broken_repository_explains_nothing(repository: Path, capsys: Captured) -> None:
    recommit(repository, {"mesh.yaml": "kind: Mash"})
    assert run(asked(repository)) == 2
    assert "mesh.yaml:1: kind: the kind 'Mash' is not known" in capsys.readouterr().err


def test_a_code_of_the_mesh_is_explained(capsys: Captured) -> None:
    assert run(["explain", "outbound/no-route"]) == 0
    assert "remedy:" in capsys.readouterr().out
