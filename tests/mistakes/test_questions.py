"""Mistakes in what is asked: `check`, `explain`, `status`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.mistakes.place import NOBODY, Place, assert_told, refusal

REQUEST = {
    "--from": "bookstore/web",
    "--to": "bookstore/catalog",
    "--method": "GET",
    "--path": "/",
}


def words_of(request: Mapping[str, str]) -> list[str]:
    return [word for option in request.items() for word in option]


REPOSITORIES = [
    (("folder",), ("folder", "not a git repository", "give")),
    (("token",), ("token", "not a git repository", "give")),
    (("empty.git",), ("empty.git", "empty", "commit policy files")),
    (("policy.git", "--branch", "absent"), ("absent", "there are: main")),
    (("policy.git", "--commit", "deadbeef"), ("deadbeef", "git log")),
    (("git://127.0.0.1/x",), ("git://", "refused", "give a path")),
    ((f"https://{NOBODY}/x.git",), (NOBODY, "cannot be fetched")),
]


@pytest.mark.parametrize(
    ("words", "told"),
    [((), ("REPO", "--help")), (("absent",), ("absent", "no such directory")), *REPOSITORIES],
)
def test_check(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    (place.folder / "garrison" / "repositories").mkdir(parents=True)  # what is left there is seen
    said = refusal(place, "check", *words, XDG_CACHE_HOME=str(place.folder))
    assert_told(said, place, *told)


@pytest.mark.parametrize(("words", "told"), REPOSITORIES)
def test_explain_of_a_repository_that_is_none(
    place: Place, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    (place.folder / "garrison" / "repositories").mkdir(parents=True)
    asked = words_of(REQUEST)
    said = refusal(place, "explain", *words, *asked, XDG_CACHE_HOME=str(place.folder))
    assert_told(said, place, *told)


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("registration/bookstore.yaml", "a: [\n"),
        ("authz/model.conf", "nonsense\n"),
        ("authz/catalog.csv", 'p, "unclosed\n'),
    ],
)
def test_broken_policy_is_told_with_its_line(place: Place, path: str, more: str) -> None:
    place.commit(path, more)
    for told in (
        refusal(place, "check", "policy.git"),
        refusal(place, "explain", "policy.git", *words_of(REQUEST)),
    ):
        assert f"{path}:" in told
        assert "(fix: " in told


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"--from": "web"}, ("'web'", "NAMESPACE/ACCOUNT")),
        ({"--from": "non sense/web"}, ("non sense",)),
        ({"--from": "spiffe://B"}, ("spiffe://B",)),
        ({"--to": "bookstore/absent"}, ("bookstore/absent", "bookstore/catalog")),
        ({"--header": "foo"}, ("--header", "foo", "NAME=VALUE is wanted")),
    ],
)
def test_explain(place: Place, over: Mapping[str, str], told: tuple[str, ...]) -> None:
    asked = words_of({**REQUEST, **over})
    assert_told(refusal(place, "explain", "policy.git", *asked), place, *told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("inbound/bogus",), ("inbound/bogus", "no code of the mesh", "such as")),
        (("policy.git",), ("--to, --method, --path",)),
        (("policy.git", "--from", "bookstore/web"), ("--to, --method, --path",)),
    ],
)
def test_explain_without_a_whole_question(
    place: Place, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    assert_told(refusal(place, "explain", *words), place, *told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", f"http://{NOBODY}"), (NOBODY, "no status", "admin URL")),
        (("--policy", "nonsense"), ("nonsense", "no status", "admin URL")),
        (("--policy", f"http://{NOBODY}", "--json"), (NOBODY, "no status")),
        (
            ("--policy", f"http://{NOBODY}", "--wait", "deadbeef", "--timeout", "0.2"),
            (NOBODY, "no status"),
        ),
        (("--wait", "newest"), ("newest", "hexadecimal digits are wanted")),
        (("--wait", "deadbeef", "--timeout", "long"), ("--timeout", "long")),
        (("--wait", "deadbeef", "--timeout", "-1"), ("--timeout", "-1")),
    ],
)
def test_status(place: Place, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert_told(refusal(place, "status", *words), place, *told)
