"""Which rule a request meets: the precedence that is compiled, asked in Python for `explain`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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

MAX_NEAREST = 3


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


@dataclass(frozen=True, slots=True)
class NearRoute:
    """A rule that a request does not meet, and what of its closest match the request lacks."""

    name: str
    place: str
    differs: tuple[str, ...]


def nearest(mesh: Mesh, service: Name, request: RoutedRequest) -> tuple[NearRoute, ...]:
    """Return the rules of `service` that fail on the fewest conditions."""
    near = [
        NearRoute(rule.name, rule.place, tuple(_differences(match, request)))
        for match, rule in in_precedence(mesh.rules.get(service, ()))
    ]
    fewest = min((len(each.differs) for each in near), default=0)
    return tuple(each for each in near if len(each.differs) == fewest)[:MAX_NEAREST]


def _matches(match: RouteMatch, request: RoutedRequest) -> bool:
    return not any(_differences(match, request))


def _differences(match: RouteMatch, request: RoutedRequest) -> Iterator[str]:
    if match.method not in {None, request.method}:
        yield f"method is {request.method}, the rule wants {match.method}"
    if not _matches_path(match.path, request.path):
        yield f"path is {request.path}, the rule wants {match.path.type} {match.path.value}"
    for header in match.headers:
        given = request.headers.get(header.name)
        if not _matches_value(header, given):
            yield f"header {header.name} is {_shown(given)}, the rule wants {header.value}"
    for param in match.query_params:
        if not _matches_param(param, request.query):
            yield f"query is {_shown(request.query)}, the rule wants {param.name}={param.value}"


def _shown(value: str | None) -> str:
    return "absent" if value is None else value


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
