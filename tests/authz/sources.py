"""Small sources to vary one thing in."""

from __future__ import annotations

import pytest

from garrison.authz import (
    DEFAULT_MODEL,
    AuthorizationRefusedError,
    AuthorizationSources,
    Compiled,
    Diagnostic,
    SourceFile,
    compile_authorization,
)

TRUST_DOMAIN = "bookstore.example"
SERVICES = ("bookstore/catalog", "bookstore/orders", "payments/ledger")
PRINCIPALS = ("bookstore/cart", "bookstore/web", "monitoring/prometheus", "ops/admin")

POLICY = """\
g, bookstore/web,        shopfront
p, allow, shopfront,          bookstore/catalog,   read,  /books/*
p, allow, bookstore/cart,     bookstore/orders,    POST,  /orders
p, allow, monitoring/*,       *,                   GET,   /metrics
p, deny,  ops/*,              payments/*,          any,   /*
"""


def model_of(matcher: str, policy: str = "src, dst, method, path", **sections: str) -> SourceFile:
    """Write a model; its matcher begins on line 2, column 5."""
    request = sections.get("request", "src, dst, method, path, headers, ip")
    roles = sections.get("roles", "g = _, _\ng2 = _, _")
    effect = sections.get("effect", "some(where (p.eft == allow))")
    return SourceFile(
        "authz/model.conf",
        f"[matchers]\nm = {matcher}\n[request_definition]\nr = {request}\n"
        f"[policy_definition]\np = {policy}\n[policy_effect]\ne = {effect}\n"
        f"[role_definition]\n{roles}\n",
    )


def compiled(policy: str = POLICY, model: SourceFile = DEFAULT_MODEL) -> Compiled:
    """Compile one policy file."""
    sources = AuthorizationSources(model, (SourceFile("authz/a.csv", policy),))
    return compile_authorization(sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)


def refusal(policy: str = POLICY, model: SourceFile = DEFAULT_MODEL) -> Diagnostic:
    """Compile what must be refused, and return the one thing that is wrong."""
    with pytest.raises(AuthorizationRefusedError) as refused:
        compiled(policy, model)
    assert len(refused.value.diagnostics) == 1, str(refused.value)
    return refused.value.diagnostics[0]
