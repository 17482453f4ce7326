"""Paths and expressions that every proxy reads alike, and the nearest that they do not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.policies.resources.expressions import check_header_name, check_path, check_regex


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/", "/a/b.c", "/~a", "/a;v=1", "/a%20b", "/%C3%A9", "/a:b@c", "/..a"]
)
def test_paths_that_a_request_can_have(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "a", "*", "/a//b", "//", "/a/../b", "/.", "/a/.", "/a?b", "/a#b", "/a b", "/a\\b",
        "/é", "/%40", "/a%3B",
        "/%2f", "/%2F", "/%5C", "/%00", "/%41", "/%7E", "/%c3%a9", "/%zz", "/%",
        "/" + "a" * 1024,
    ],
)  # fmt: skip
def test_paths_that_no_canonical_request_has(path: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_path(path)


@pytest.mark.parametrize(
    "pattern",
    ["/a", "/[0-9]+", "/(?:a|b)*", r"/\d{2,3}", r"/[^/\]]+", "/a{0,100}", r"/\.", "[a-z-]"],
)
def test_expressions_that_are_read_alike(pattern: str) -> None:
    assert check_regex(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "", "(", "a**", "(?=a)", "(?!a)", "(?<a>b)", "(?P<a>b)", "(?i)a", r"(a)\1", r"\Z", r"\bA",
        "a++", "a*+", "a{2}+", "a{101}", "a{1,1000}", "[[a]]", "[a&&b]", "[a--b]", "[]a]", "é",
        "a" * 513,
    ],
)  # fmt: skip
def test_expressions_that_are_not(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_regex(pattern)


@given(st.text(alphabet="ab()[]{}?*+|\\^$.-&~0159,:<=!Pi", max_size=16))
def test_what_is_accepted_compiles_and_junk_is_only_refused(pattern: str) -> None:
    try:
        check_regex(pattern)
    except ValueError:
        return
    re.compile(pattern)


@pytest.mark.parametrize("name", ["X-Canary", "accept", "x.y"])
def test_header_names(name: str) -> None:
    assert check_header_name(name) == name.lower()


@pytest.mark.parametrize("name", ["", "x_y", ":path", "Host", "content-length", "a b", "é", "a\n"])
def test_header_names_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_header_name(name)
