"""What every Casbin engine accepts and nobody means is an error here, with a code and a remedy."""

from __future__ import annotations

import pytest

from garrison.authz import (
    DEFAULT_MODEL,
    AuthorizationRefusedError,
    AuthorizationSources,
    SourceFile,
    compile_authorization,
)
from tests.authz.sources import (
    POLICY,
    PRINCIPALS,
    SERVICES,
    TRUST_DOMAIN,
    compiled,
    model_of,
    refusal,
)

GOOD = "p, allow, bookstore/web, bookstore/orders, GET, /a"

LINES = [
    # What a reader of the file would not see.
    ("p, alow, bookstore/web, bookstore/orders, GET, /a", "policy-effect", 4),
    ("p, , bookstore/web, bookstore/orders, GET, /a", "policy-effect", 4),
    ("q, allow, bookstore/web, bookstore/orders, GET, /a", "policy-kind", 1),
    ("p2, allow, bookstore/web, bookstore/orders, GET, /a", "policy-kind", 1),
    ("g3, bookstore/web, shop", "policy-kind", 1),
    (f"{GOOD} # why", "policy-trailing-comment", 52),
    ("p, allow, bookstore/web, bookstore/orders, GET", "policy-fields", 1),
    (f"{GOOD}, more", "policy-fields", 1),
    ("g, bookstore/web, shop, more", "policy-fields", 1),
    ('p, allow, "bookstore/web", bookstore/orders, GET, /a', "policy-quotes", 11),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a)", "policy-brackets", 1),
    ("p, allow, bookstore/web, bookstore/orders, GET, (/a", "policy-brackets", 1),
    ("p, allow, bookstore/web, bookstore/orders, GET, ([/a)]", "policy-brackets", 1),
    ("p, allow, bookstore/web, bookstore/orders, GET, /é", "policy-characters", 1),
    ("p, allow, bookstore/web, bookstore/orders, GET, /\u200ba", "policy-characters", 1),
    # Who.
    ("p, allow, *, bookstore/orders, GET, /a", "principal-any", 11),
    ("p, allow, book*, bookstore/orders, GET, /a", "principal-pattern", 11),
    ("p, allow, */web, bookstore/orders, GET, /a", "principal-pattern", 11),
    ("p, allow, bookstore/web/x, bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, /web, bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, bookstore/.., bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, spiffe://a/ns/b/sa/c, bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, book.store/web, bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, partner//shop/web, bookstore/orders, GET, /a", "principal-malformed", 11),
    ("p, allow, bookstore.example//a/b, bookstore/orders, GET, /a", "principal-domain", 11),
    ("p, allow, bookstore.example//a/*, bookstore/orders, GET, /a", "principal-domain", 11),
    ("p, allow, shopfrnt, bookstore/orders, GET, /a", "role-unknown", 11),
    ("p, allow, , bookstore/orders, GET, /a", "role-unknown", 11),
    ("g, shop, bookstore/web", "role-principal", 10),
    ("g, bookstore/web, unauthenticated", "role-malformed", 19),
    ("g, bookstore/web, shop*", "role-malformed", 19),
    ("g, *, everybody", "principal-any", 4),
    ("g, shopfrnt, shop", "role-unknown", 4),
    ("g, bookstore*, shop", "principal-pattern", 4),
    # Methods.
    ("p, allow, bookstore/web, bookstore/orders, FETCH, /a", "method-unknown", 44),
    ("p, allow, bookstore/web, bookstore/orders, get, /a", "method-unknown", 44),
    ("p, allow, bookstore/web, bookstore/orders, OTHER, /a", "method-unknown", 44),
    ("p, allow, bookstore/web, bookstore/orders, *, /a", "method-unknown", 44),
    ("g2, read, GET", "method-group", 11),
    ("g2, FETCH, mine", "method-unknown", 5),
    ("g2, POST, read", "method-group-shipped", 11),
    ("g2, P*, mine", "role-pattern", 1),
    # Paths.
    ("p, allow, bookstore/web, bookstore/orders, GET, /a.b", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /charges*", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a+b", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /(a)", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a/{id}", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a/:id.x", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /**", "path-metacharacter", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, a", "path-unreachable", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, ", "path-unreachable", 48),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a//b", "path-unreachable", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a/../b", "path-metacharacter", 49),
    (r"p, allow, bookstore/web, bookstore/orders, GET, /a/\.\./b", "path-unreachable", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /a b", "path-unreachable", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /%2fb", "path-unreachable", 49),
    ("p, allow, bookstore/web, bookstore/orders, GET, /%61", "path-unreachable", 49),
    (r"p, allow, bookstore/web, bookstore/orders, GET, /a\?b", "path-unreachable", 49),
    # Where.
    ("p, allow, bookstore/web, book*store, GET, /a", "pattern-star", 26),
]


@pytest.mark.parametrize(("line", "code", "column"), LINES)
def test_hazard_in_a_line_is_refused(line: str, code: str, column: int) -> None:
    found = refusal(f"{GOOD}\n{line}\n")
    place = (found.file, found.line, found.column)
    assert (found.code, *place) == (code, "authz/a.csv", 2, column)
    assert found.reason
    assert found.remedy


ACCEPTED = [
    "  # a comment, by itself",
    "p,allow,bookstore/web,bookstore/orders,GET,/a",
    "\tp, allow, bookstore/web, bookstore/*, any, /*\r",
    "p, allow, unauthenticated, bookstore/orders, GET, /health",
    "p, allow, partner.example//shop/web, bookstore/orders, GET, /a",
    "p, allow, partner.example//shop/*, bookstore/orders, GET, /a",
    "g, bookstore/w*, shop",
    "g, unauthenticated, guests",
    "g2, GET, mine",
    "g2, read, mine",
    r"p, allow, bookstore/web, bookstore/orders, GET, /robots\.txt",
    "p, allow, bookstore/web, bookstore/orders, GET, /a/:id/*",
    "p, allow, bookstore/web, bookstore/orders, GET, *",
    "p, allow, bookstore/web, bookstore/orders, GET, /%C3%A9;v=1",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_line_beside_a_hazard_is_accepted(line: str) -> None:
    assert compiled(f"{GOOD}\n{line}\n").compilation.lines


@pytest.mark.parametrize("policy", ["", "\n# nothing yet\n", "g, bookstore/web, shopfront\n"])
def test_empty_policy_is_refused(policy: str) -> None:
    """Casbin would ask `r.src != p.src` once with empty columns, and allow."""
    assert refusal(policy).code == "policy-empty"


def test_no_files_at_all_are_an_empty_policy() -> None:
    sources = AuthorizationSources(DEFAULT_MODEL, ())
    with pytest.raises(AuthorizationRefusedError, match="policy-empty"):
        compile_authorization(sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)


def test_every_mistake_is_reported_at_once() -> None:
    text = "\n".join(line for line, _, _ in LINES)
    with pytest.raises(AuthorizationRefusedError) as refused:
        compiled(f"{GOOD}\n{text}")
    assert {each.code for each in refused.value.diagnostics} >= {
        "policy-effect",
        "policy-kind",
        "policy-fields",
    }


MODELS = [
    (
        "e = some(where (p.eft == allow))",
        "e = !some(where (p.eft == deny))",
        "effect-default-allow",
    ),
    ("e = some(where (p.eft == allow))", "e = priority(p.eft) || deny", "effect-unsupported"),
    (
        "e = some(where (p.eft == allow))",
        "e = some(where (p.eft==allow)) && !some(where (p.eft==deny))",
        "effect-unsupported",
    ),
    ("r = src, dst", "r = sub, dst", "request-field"),
    ("p = src, dst", "p = priority, dst", "model-priority"),
    ("p = src, dst", "p = src, src", "model-field"),
    ("p = src, dst", "p = src, d st", "model-field"),
    ("g = _, _", "g = _, _, _, _", "model-role"),
    ("g = _, _", "g = _, _, (_, _)", "model-role"),
    ("g = _, _", "h = _, _", "model-key"),
    ("g = _, _", "g2 = _, _", "model-duplicate"),
    ("[matchers]", "[matcher]", "model-section"),
    ("[matchers]", "[matchers] # mine", "model-syntax"),
    ("m = ", "m2 = ", "model-key"),
    ("m = r.src == p.src", "m = r.src == p.src # why", "model-trailing-comment"),
    ("m = r.src == p.src", "m = r.src == p.src \\", "model-syntax"),
    ("m = r.src == p.src", "m = r.src == p.src \\\n# why\n && r.dst == p.dst", "model-syntax"),
    ("m = r.src == p.src", "m", "model-syntax"),
    ("m = r.src == p.src", "m = r.src == 'é'", "model-characters"),
    ("m = r.src == p.src", "m = " + " " * 30_000, "model-size"),
]


@pytest.mark.parametrize(("old", "new", "code"), MODELS)
def test_hazard_in_a_model_is_refused(old: str, new: str, code: str) -> None:
    good = model_of("r.src == p.src", "src, dst")
    assert compiled("p, bookstore/web, a", good)
    assert old in good.text
    bad = SourceFile(good.path, good.text.replace(old, new, 1))
    with pytest.raises(AuthorizationRefusedError) as refused:
        compiled("p, bookstore/web, a", bad)
    assert code in {each.code for each in refused.value.diagnostics}
    assert all(each.file == good.path for each in refused.value.diagnostics)


def test_denying_line_under_an_effect_that_ignores_it_is_refused() -> None:
    model = model_of("r.src == p.src", "eft, src")
    assert refusal("p, deny, bookstore/web", model).code == "line-deny-ignored"


def test_link_of_a_relation_that_nothing_asks_is_refused() -> None:
    model = model_of("r.src == p.src", "src")
    assert refusal("p, bookstore/web\ng, bookstore/web, shop", model).code == "role-unused"


def test_line_that_no_request_can_match_is_refused() -> None:
    model = model_of("r.src == p.src && p.dst == 'x'", "src, dst")
    assert refusal("p, bookstore/web, y", model).code == "line-never"


def test_line_of_no_service_and_no_principal_are_found() -> None:
    rules = compiled(
        f"{POLICY}p, allow, bookstore/web, bookstore/oders, GET, /a\n"
        "p, allow, bookstore/wbe, bookstore/orders, GET, /a\n"
        "p, allow, partner.example//a/b, bookstore/orders, GET, /a\n"
    )
    assert [(each.code, each.line) for each in rules.findings] == [
        ("line-without-destination", 6),
        ("line-without-principal", 7),
    ]


def test_order_and_number_of_files_mean_nothing() -> None:
    lines = POLICY.splitlines()
    files = tuple(SourceFile(f"authz/{len(lines) - at}.csv", line) for at, line in enumerate(lines))
    sources = AuthorizationSources(DEFAULT_MODEL, files)
    rules = compile_authorization(sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)
    for service in SERVICES:
        one, other = compiled().rules(service), rules.rules(service)
        assert sorted(map(str, one.allow.policies.values())) == sorted(
            map(str, other.allow.policies.values())
        )
        assert sorted(map(str, one.deny.policies.values())) == sorted(
            map(str, other.deny.policies.values())
        )
