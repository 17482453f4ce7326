"""Which rule a request meets: the precedence that is compiled, asked in Python for `explain`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from garrison.policies.compile.routes import in_precedence
from garrison.policies.mesh import Backend, Mesh, RouteRule
from garrison.policies.resources.fields import Name
from garrison.policies.resources.http_route import (
    PathMatch,
    QueryParamMatch,
    RouteMatch,
    ValueMatch,
)


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """What routes look at: the canonical path and query, headers by lower-case name."""

    method: str
    path: str
    query: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a request goes: `rule` None is the default of a service without an HTTPRoute."""

    name: str
    rule: RouteRule | None
    backends: tuple[Backend, ...]


def route(mesh: Mesh, service: Name, request: RoutedRequest) -> Routed | None:
    """Find the rule that a request to `service` meets; None if it meets none."""
    rules = mesh.rules.get(service)
    if rules is None:
        return Routed(f"{service}#default", None, (Backend(service, 1),))
    for match, rule in in_precedence(rules):
        if _matches(match, request):
            backends = tuple(backend for backend in rule.backends if backend.weight)
            return Routed(rule.name, rule, backends)
    return None


def _matches(match: RouteMatch, request: RoutedRequest) -> bool:
    return (
        match.method in {None, request.method}
        and _matches_path(match.path, request.path)
        and all(_matches_value(each, request.headers.get(each.name)) for each in match.headers)
        and all(_matches_param(each, request.query) for each in match.query_params)
    )


def _matches_param(match: QueryParamMatch, query: str | None) -> bool:
    """Compare as it is written, without decoding; given twice, each value must match."""
    pairs = (pair.partition("=") for pair in (query or "").split("&"))
    values = [value for name, _, value in pairs if name == match.name]
    return bool(values) and all(_matches_value(match, value) for value in values)


def _matches_path(match: PathMatch, path: str) -> bool:
    match match.type:
        case "Exact":
            return path == match.value
        case "RegularExpression":
            return re.fullmatch(match.value, path) is not None
        case "PathPrefix":
            prefix = match.value.rstrip("/")
            return path == prefix or path.startswith(f"{prefix}/")


def _matches_value(match: ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    if match.type == "RegularExpression":
        return re.fullmatch(match.value, value) is not None
    return value == match.value
