"""Patterns and regular expressions mean exactly what pycasbin's functions mean by them."""

from __future__ import annotations

import re
from itertools import product

import pytest
from casbin.util import builtin_operators as casbin
from hypothesis import given
from hypothesis import strategies as st

from garrison.authz.errors import RefusedError
from garrison.authz.globs import glob_match
from garrison.authz.patterns import key_match, key_match2, key_match3, key_match5
from garrison.authz.regular import regex_match
from garrison.authz.schema import is_canonical
from garrison.authz.sources import Place

HERE = Place("a.csv", 1)

SEGMENTS = ["a", "b1", ".a", "a.b", "b-a", "%C3%A9", "x"]
PATHS = ["/"] + [
    "/" + "/".join(each) + end
    for length in (1, 2, 3)
    for each in product(SEGMENTS, repeat=length)
    for end in ("", "/")
    if length < 3 or len({*each}) > 1
]

segments = st.text("ab1.-~;=", min_size=1, max_size=4).filter(lambda text: is_canonical(f"/{text}"))
paths = st.lists(segments, max_size=4).map(lambda each: "/" + "/".join(each))


def test_paths_here_are_canonical() -> None:
    assert all(map(is_canonical, PATHS))


@pytest.mark.parametrize("path", ["", "a", "//", "/a//b", "/.", "/a/..", "/..;x/a", "/a?b", "/a#b"])
def test_path_that_no_proxy_forwards_is_not_canonical(path: str) -> None:
    assert not is_canonical(path)


@pytest.mark.parametrize(
    "path", ["/%2f", "/%2F", "/%5C", "/%00", "/%7F", "/%61", "/%40", "/a%3Bb", "/a b", "/é", "/%"]
)
def test_misspelt_path_is_not_canonical(path: str) -> None:
    assert not is_canonical(path)


@pytest.mark.parametrize("pattern", ["/a", "/a/*", "/a*", "*", "/", ""])
def test_key_match_is_casbins(pattern: str) -> None:
    compiled = key_match(pattern, HERE)
    assert [compiled.holds(path) for path in PATHS] == [
        casbin.key_match(path, pattern) for path in PATHS
    ]


TEMPLATES = [
    "/a/{}",
    "/{}/*",
    "/{}",
    "/a/{}/b1",
    "/a{}",
    "/*",
    "/*/x",
    "/a/*b1",
    "/a/*/{}",
    "/a\\.b/{}",
]


@pytest.mark.parametrize("template", [*TEMPLATES, "*"])
def test_key_match2_is_casbins(template: str) -> None:
    pattern = template.replace("{}", ":id")
    compiled = key_match2(pattern, HERE)
    assert [compiled.holds(path) for path in PATHS] == [
        casbin.key_match2(path, pattern) for path in PATHS
    ]


@pytest.mark.parametrize("template", [*TEMPLATES, "/{}-{}", "/{}x"])
def test_key_match3_is_casbins(template: str) -> None:
    pattern = template.replace("{}", "{id}")
    compiled = key_match3(pattern, HERE)
    assert [compiled.holds(path) for path in PATHS] == [
        casbin.key_match3(path, pattern) for path in PATHS
    ]


@pytest.mark.parametrize("template", [*TEMPLATES, "/{}x"])
def test_key_match5_is_casbins(template: str) -> None:
    pattern = template.replace("{}", "{id}")
    compiled = key_match5(pattern, HERE)
    assert [compiled.holds(path) for path in PATHS] == [
        casbin.key_match5(path, pattern) for path in PATHS
    ]


def test_key_match5_with_two_parameters_in_a_segment_is_refused() -> None:
    with pytest.raises(RefusedError, match="path-metacharacter"):
        key_match5("/{a}-{b}", HERE)
    assert casbin.key_match5("/ab", "/{a}-{b}")  # as one parameter up to the last brace


@given(paths, st.lists(st.sampled_from(["a", ":b", "*", "b1", "*a", "a:b", "\\."]), max_size=4))
def test_any_key_match2_is_casbins(path: str, parts: list[str]) -> None:
    pattern = "/" + "/".join(parts)
    assert key_match2(pattern, HERE).holds(path) == casbin.key_match2(path, pattern)


GLOB_SEGMENTS = [
    "a",
    "*",
    "?",
    "**",
    "*a",
    "a*",
    "?*",
    "*?",
    ".*",
    "*.b",
    "?.?",
    "*-*",
    "b?",
    "*1*",
]
GLOBS = [
    "/" + "/".join(each) + end
    for length in (1, 2, 3)
    for each in product(GLOB_SEGMENTS, repeat=length)
    for end in ("", "/")
    if (length < 3 or (each[1] == "**" and end == "")) and "/**/**" not in "/" + "/".join(each)
]


@pytest.mark.parametrize("part", range(4))
def test_glob_match_is_casbins(part: int) -> None:
    some = PATHS[:: len(PATHS) // 60]
    for pattern in GLOBS[part::4]:
        compiled = glob_match(pattern, HERE)
        assert [compiled.holds(path) for path in some] == [
            casbin.glob_match(path, pattern) for path in some
        ], pattern


REGEXES = [
    "/a", "^/a$", "/a|/b1", "(/a|/b1)$", "/[a-c]+/x", "/[^/]+$", "^/(?:a/)*x", "/a{1,2}", "/.{2}$",
    "/a?b?", "/(?P<name>a)", "/\\w+$", "/\\d", "\\D+$", "/\\W", "/[\\w.]+$", "/[^\\w]+", "\\S+", "",
    "$", "^", "/a$|^/x", "a^", "/[]a]", "/[-a]+$", "/[a\\]]", "/[.]a", "/\\.a", "/(a|b1|x)/(a|x)$",
    "/.*/x", "/.*?x$", "(/[a-z]+)+$", "/a+?/", "\\A/a\\Z", "/[&~^]", "/x{0}a", "/(){2}a", "/[^^]a",
]  # fmt: skip


@pytest.mark.parametrize("regex", REGEXES)
def test_regex_match_is_casbins(regex: str) -> None:
    compiled = regex_match(regex, HERE)
    assert [compiled.holds(path) for path in PATHS] == [
        casbin.regex_match(path, regex) for path in PATHS
    ]


atoms = st.sampled_from(
    ["a", "b", "1", ".", "/", "[ab]", "[^a]", "\\d", "\\w", "-", "\\.", "~", "^", "$"]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0,1}", "*?"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@given(expressions, paths)
def test_any_regex_match_is_casbins(regex: str, path: str) -> None:
    assert regex_match(regex, HERE).holds(path) == (re.match(regex, path) is not None)


@given(expressions)
def test_samples_of_a_regex_often_match_and_are_short(regex: str) -> None:
    compiled = regex_match(regex, HERE)
    assert len(compiled.samples) == 2
    assert all(len(sample) < 200 for sample in compiled.samples)
