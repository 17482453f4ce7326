"""Where another spelling of a path could hide it from a line, and where it cannot."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.authz.patterns import key_match, key_match2, key_match3
from garrison.authz.regular import regex_match
from garrison.authz.schema import CANONICAL_SPELLING, is_canonical
from garrison.authz.sources import Place
from garrison.authz.spelling import MISSPELT_RULE, spelling_matters
from tests.authz.sources import compiled

HERE = Place("authz/a.csv", 1)
PLAIN = ("*", "/*", "/books/*", "/books/:id", "/v:n/x", "/a\\.b", "/books/*/40", "/:a/x/:b/*")
SPELT = ("/@admin", "/a;b", "/caf%C3%A9", "/books/*x", "/:id/a=b")

pieces = st.sampled_from(("a", "40", "B\\.c", "~", ":x", "v:n", "*", "@", "x;y", "%C3%A9", "c3"))
patterns = st.lists(pieces, min_size=1, max_size=4).map(lambda found: "/" + "/".join(found))
names = st.text("a40vBc3.~@;=!%", min_size=1, max_size=5).filter(
    lambda text: is_canonical(f"/{text}")
)
paths = st.lists(st.one_of(names, st.just("%C3%A9"), st.just("40")), min_size=1, max_size=4).map(
    lambda found: "/" + "/".join(found)
)


def misspelt(path: str, random: Random) -> str:
    """Spell a canonical path as Envoy may see it: with needless escapes, or in lower case."""

    def other(found: re.Match[str]) -> str:
        text = found[0]
        escape = text if text[0] == "%" else f"%{ord(text):02X}"
        return random.choice((text, escape, escape.lower()))

    return re.sub(r"%[0-9A-F]{2}|[!$&'()*+,;=:@]", other, path)


@given(patterns, paths, st.randoms(use_true_random=False))
def test_spelling_that_does_not_matter_changes_nothing(
    pattern: str, path: str, random: Random
) -> None:
    prefix = path[: random.randint(1, len(path))]
    for predicate in (key_match2(pattern, HERE), key_match(f"{prefix}*", HERE)):
        if not spelling_matters(predicate):
            assert predicate.holds(path) == predicate.holds(misspelt(path, random))


@pytest.mark.parametrize("pattern", PLAIN)
def test_plain_pattern_finds_every_spelling(pattern: str) -> None:
    assert not spelling_matters(key_match2(pattern, HERE))


@pytest.mark.parametrize("pattern", SPELT)
def test_spelling_matters_to_what_can_be_written_otherwise(pattern: str) -> None:
    assert spelling_matters(key_match2(pattern, HERE))


def test_spelling_matters_to_expressions_and_to_parts_of_segments() -> None:
    assert spelling_matters(regex_match("^/[^@]+$", HERE))
    assert spelling_matters(key_match3("/{a}40", HERE))  # which matches /%40, but not /@
    assert spelling_matters(key_match("/a/@*", HERE))


@given(paths)
def test_canonical_paths_are_of_the_canonical_spelling(path: str) -> None:
    assert re.fullmatch(CANONICAL_SPELLING, path)


@pytest.mark.parametrize(
    "path", ["/%40", "/%3b", "/%c3%a9", "/a[b]", "/%zz", "/%7E", "/a%2Fb", "/a b"]
)
def test_other_spellings_are_not(path: str) -> None:
    assert not re.fullmatch(CANONICAL_SPELLING, path)


def test_spelling_is_asked_for_only_where_it_matters() -> None:
    policy = "p, allow, bookstore/web, bookstore/catalog, GET, /books/*\n"
    rules = compiled(policy).rules("bookstore/catalog")
    assert not rules.deny.policies
    spelt = policy + "p, deny, bookstore/web, bookstore/catalog, GET, /books/@admin\n"
    rules = compiled(spelt).rules("bookstore/catalog")
    assert set(rules.deny.policies) == {"authz/a.csv:2", MISSPELT_RULE}
    assert not compiled(spelt).rules("bookstore/orders").deny.policies
