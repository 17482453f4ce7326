"""What a matcher may say, and what is refused with its place."""

from __future__ import annotations

import pytest

from garrison.authz import Request
from garrison.authz.oracle import Oracle
from tests.authz.sources import compiled, model_of, refusal

LINE = "p, bookstore/web, bookstore/orders, GET, /a"
REQUEST = Request("bookstore/web", "bookstore/orders", "GET", "/a")

ACCEPTED = [
    "r.src == p.src",
    "(r.src == p.src)",
    "r.src==p.src && r.path==p.path",
    "!(r.src != p.src)",
    "!!(r.src == p.src)",
    "(r.src == p.src)&&(r.path == p.path)",
    'r.method in ("GET", "HEAD")',
    "r.method in (p.method, 'HEAD') || r.path == '/b'",
    "'GET' == r.method",
    "p.src == 'bookstore/web' && r.src == p.src",
    "!keyMatch(r.path, '/b*')",
    "!g(r.src, 'bookstore/cart')",
    "r.headers['x-tenant'] == ''",
    "r.headers['x-tenant'] != 'gold'",
    "regexMatch(r.path, '^/[a-c]$')",
    "ipMatch(r.ip, '127.0.0.0/8')",
    "keyMatch5(r.path, '/{id}') && keyMatch3(r.path, '/{id}')",
    "globMatch(r.path, '/?')",
    "g2(r.method, 'read')",
    "keyMatch2('/x/1', '/x/:id') && r.path == p.path",
]


@pytest.mark.parametrize("matcher", ACCEPTED)
def test_accepted_matcher_means_what_casbin_means(matcher: str) -> None:
    rules = compiled(LINE, model_of(matcher))
    assert rules.explain(REQUEST).allowed
    assert Oracle.whole(rules.compilation).allows(REQUEST)


REFUSED = [
    ("r.src = p.src", "matcher-operator", 11),
    ("r.src == p.src &&", "matcher-syntax", 22),
    ("r.src == p.src p.dst", "matcher-syntax", 20),
    ("(r.src == p.src", "matcher-syntax", 20),
    ("r.src == 'open", "matcher-syntax", 14),
    ("r.src == p.src && r.sub == p.dst", "matcher-name", 23),
    ("r.src == p.owner", "matcher-name", 14),
    ("r2.src == p.src", "matcher-name", 5),
    ("src == p.src", "matcher-name", 5),
    ("true", "matcher-name", 5),
    ("r.src", "matcher-truth", 5),
    ("r.src && r.src == p.src", "matcher-truth", 5),
    ("(r.src == p.src) == 'a'", "matcher-truth", 22),
    ("keyMatch(r.path, p.path) == 'a'", "matcher-truth", 30),
    ("!r.src == p.src", "matcher-negation", 6),
    ("!r.src in ('a/a', 'b/b')", "matcher-negation", 6),
    ("!!r.src != p.src", "matcher-negation", 7),
    ("r.src == p.src == p.dst", "matcher-chain", 20),
    ("r.path < p.path", "matcher-ordering", 12),
    ("r.path >= 'a'", "matcher-ordering", 12),
    ("r.path + 'a' == p.path", "matcher-arithmetic", 12),
    ("r.path =~ p.path", "matcher-operator", 12),
    ("r.src == 1", "matcher-type", 14),
    ("1 == 1", "matcher-type", 5),
    ("r.method in 'GETPOST'", "matcher-in", 17),
    ("r.method in ('GET')", "matcher-in", 17),
    ("'x' in r.headers", "matcher-in", 12),
    ("r.src == p.src&&r.dst == p.dst", "matcher-spacing", 19),
    ("r.src == p.src ||r.dst == p.dst", "matcher-spacing", 20),
    ("r.src == 'a&&b'", "matcher-string", 14),
    ("r.src == 'a!'", "matcher-string", 14),
    ("r.path == '/r.x'", "matcher-string", 15),
    (r"regexMatch(r.path, '/a\.b')", "matcher-string", 24),
    ("owns(r.src, p.src)", "matcher-function", 5),
    ("keyMatch4(r.path, p.path)", "matcher-function", 5),
    ("timeMatch(p.src, p.dst)", "matcher-function", 5),
    ("g3(r.src, p.src)", "matcher-function", 5),
    ("keyMatch(r.path)", "matcher-arguments", 5),
    ("g(r.src, p.src, r.dst)", "matcher-arguments", 5),
    ("keyMatch(p.path, r.path)", "matcher-request-pattern", 22),
    ("g(p.src, r.src)", "matcher-request-pattern", 14),
    ("keyMatch(r.path, r.src)", "matcher-request-pattern", 22),
    ("r.path == r.method", "matcher-two-fields", 12),
    ("regexMatch(r.src, p.src)", "matcher-kind", 16),
    ("keyMatch2(r.src, p.src)", "matcher-kind", 15),
    ("r.ip == '127.0.0.1'", "matcher-kind", 5),
    ("keyMatch(r.ip, '10.*')", "matcher-kind", 14),
    ("ipMatch(r.path, p.path)", "matcher-kind", 13),
    ("globMatch(r.headers['x-a'], 'a')", "matcher-kind", 15),
    ("r.headers == 'a'", "matcher-header", 5),
    ("r.headers['X-A'] == 'a'", "matcher-header", 5),
    ("r.headers[p.path] == 'a'", "matcher-header", 5),
    ("r.headers['x-forwarded-client-cert'] == 'a'", "matcher-header", 5),
    ("r.headers[':path'] == '/a'", "matcher-header", 5),
    ("r.headers['host'] == 'a'", "matcher-header", 5),
    ("eval( p.path )", "matcher-eval", 5),
    ("eval('r.src == p.src')", "matcher-string", 10),
    ("(" * 40 + "r.src == p.src" + ")" * 40, "matcher-nesting", 35),
    (" && ".join(["r.src == p.src"] * 300), "matcher-size", 5),
    ("ipMatch(r.ip, 'here')", "ip-address", 19),
    ("regexMatch(r.path, '(')", "regex-syntax", 24),
    ("regexMatch(r.path, '(?=a)')", "regex-unsupported", 24),
    ("regexMatch(r.path, '(?P<a>b)(?P=a)')", "regex-unsupported", 24),
    ("regexMatch(r.path, '(?i)a')", "regex-unsupported", 24),
    ("regexMatch(r.path, '(?i:a)')", "regex-unsupported", 24),
    ("regexMatch(r.path, '(?>a)')", "regex-unsupported", 24),
    ("regexMatch(r.path, 'a++')", "regex-unsupported", 24),
    ("regexMatch(r.path, '[[a]')", "regex-unsupported", 24),
    ("regexMatch(r.path, 'a{2000}')", "regex-size", 24),
    ("regexMatch(r.path, '((a{100}){100}){100}')", "regex-size", 24),
    ("globMatch(r.path, '/[ab]')", "glob-unsupported", 23),
    ("globMatch(r.path, '/{a,b}')", "glob-unsupported", 23),
    ("globMatch(r.path, '/a**')", "glob-unsupported", 23),
    ("globMatch(r.path, '*/a')", "glob-unsupported", 23),
    ("globMatch(r.path, '/a/**/**')", "glob-unsupported", 23),
]


@pytest.mark.parametrize(("matcher", "code", "column"), REFUSED)
def test_refused_matcher_names_its_place(matcher: str, code: str, column: int) -> None:
    found = refusal(LINE, model_of(matcher))
    assert (found.code, found.file, found.line, found.column) == (
        code,
        "authz/model.conf",
        2,
        column,
    )
    assert found.reason
    assert found.remedy


def test_continued_matcher_keeps_its_places() -> None:
    matcher = "r.src == p.src && \\\n    r.dst == p.dst && \\\n  r.oops == 'a'"
    found = refusal(LINE, model_of(matcher))
    assert (found.code, found.line, found.column) == ("matcher-name", 4, 3)


def test_rule_from_the_policy_is_compiled() -> None:
    model = model_of("r.dst == p.dst && eval(p.rule)", "dst, rule")
    line = "p, bookstore/orders, r.method == 'GET' && keyMatch2(r.path, '/a/:id')"
    rules = compiled(line, model)
    assert rules.explain(Request("a/a", "bookstore/orders", "GET", "/a/7")).allowed
    assert not rules.explain(Request("a/a", "bookstore/orders", "GET", "/b/7")).allowed


@pytest.mark.parametrize(
    ("rule", "code", "column"),
    [
        ("r.method == p.oops", "matcher-name", 34),
        ("eval(p.dst)", "matcher-eval", 22),
        ("r.method == 'GET' && owns(r.src, 'a')", "matcher-function", 43),
        ("r.method == 'FETCH'", "method-unknown", 34),
    ],
)
def test_bad_rule_from_the_policy_is_refused_where_it_stands(
    rule: str, code: str, column: int
) -> None:
    model = model_of("r.dst == p.dst && eval(p.rule)", "dst, rule")
    found = refusal(f"p, bookstore/orders, {rule}", model)
    assert (found.code, found.file, found.line, found.column) == (code, "authz/a.csv", 1, column)


def test_line_with_too_many_alternatives_is_refused() -> None:
    either = "(r.path == '/a' || r.headers['x-{}'] == 'b')"
    matcher = " && ".join(either.replace("{}", str(number)) for number in range(9))
    assert refusal(LINE, model_of(matcher)).code == "line-alternatives"
    fewer = " && ".join(either.replace("{}", str(number)) for number in range(8))
    assert compiled(LINE, model_of(fewer)).explain(REQUEST).allowed
