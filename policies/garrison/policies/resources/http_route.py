"""`HTTPRoute` of Gateway API with a Service as parent (GAMMA, GEP-1294).

What of the standard is built is here with its names and meaning; everything else of it is refused
by name. Durations are the standard's (GEP-2257), retries too (GEP-1731).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from garrison.policies.resources.expressions import check_header_name, check_path, check_regex
from garrison.policies.resources.fields import (
    Duration,
    Label,
    Metadata,
    Port,
    PositiveDuration,
    Shape,
)

IDEMPOTENT = "garrison.dev/idempotent"

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class ParentRef(Shape):
    """The service whose requests the rules route."""

    group: Literal["garrison.dev", ""]
    kind: Literal["Service"]
    name: Label
    namespace: Label | None = Field(default=None, description="The route's own, if given.")
    port: Port | None = Field(default=None, description="The service's port, if given.")


class PathMatch(Shape):
    """Matches the canonical path, without the query."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = Field(default="/", description="PathPrefix matches whole segments.")

    @model_validator(mode="after")
    def _can_match(self) -> PathMatch:
        check = check_regex if self.type == "RegularExpression" else check_path
        check(self.value)
        return self


class ValueMatch(Shape):
    """Matches the whole value of a header or query parameter."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    value: Annotated[str, Field(min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _can_match(self) -> ValueMatch:
        if self.type == "RegularExpression":
            check_regex(self.value)
        elif not self.value.isascii() or not self.value.isprintable():
            raise ValueError("a value of printable ASCII is wanted")
        return self


class HeaderMatch(ValueMatch):
    """Matches one header; its name in any case."""

    name: Annotated[str, AfterValidator(check_header_name)]


class QueryParamMatch(ValueMatch):
    """Matches one parameter of the query."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9._~-]+$")]


class RouteMatch(Shape):
    """All that is given must hold."""

    path: PathMatch = PathMatch()
    method: Method | None = None
    headers: tuple[HeaderMatch, ...] = Field(default=(), max_length=16)
    query_params: tuple[QueryParamMatch, ...] = Field(default=(), max_length=16)

    @model_validator(mode="after")
    def _names_once(self) -> RouteMatch:
        for matches in (self.headers, self.query_params):
            names = [match.name for match in matches]
            if len(set(names)) < len(names):
                raise ValueError("a header or parameter is named twice; only one would count")
        return self


class BackendRef(Shape):
    """Where requests go; each backend gets its share of the sum of weights."""

    group: Literal["garrison.dev", ""] = ""
    kind: Literal["Service"] = "Service"
    name: Label
    namespace: Label | None = Field(default=None, description="The route's own, if given.")
    port: Port | None = Field(default=None, description="The service's port, if given.")
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class Timeouts(Shape):
    """0s means no limit."""

    request: Duration | None = Field(
        default=None, description="For the whole request with all its attempts; 15s if not given."
    )
    backend_request: Duration | None = Field(default=None, description="For each attempt.")

    @model_validator(mode="after")
    def _in_order(self) -> Timeouts:
        if self.request and self.backend_request and self.backend_request > self.request:
            raise ValueError("backendRequest is longer than request")
        return self


class Retry(Shape):
    """How often, and on which answers, an attempt is made again on another endpoint."""

    codes: tuple[Annotated[int, Field(ge=400, le=599)], ...] = Field(
        default=(), max_length=32, description="Needs the rule to be marked idempotent."
    )
    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    backoff: PositiveDuration | None = None


class Rule(Shape):
    """Requests that any of `matches` covers go to the backends."""

    name: Label | None = None
    matches: tuple[RouteMatch, ...] = Field(default=(RouteMatch(),), min_length=1, max_length=64)
    backend_refs: tuple[BackendRef, ...] = Field(min_length=1, max_length=16)
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None


class HTTPRouteSpec(Shape):
    """Which services, and the rules for them."""

    parent_refs: tuple[ParentRef, ...] = Field(min_length=1, max_length=32)
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=64)


class HTTPRoute(Shape):
    """Routing of the requests to a service."""

    api_version: Literal["gateway.networking.k8s.io/v1"]
    kind: Literal["HTTPRoute"]
    metadata: Metadata
    spec: HTTPRouteSpec

    def idempotent_names(self) -> frozenset[str] | None:
        """Return the rules that are marked idempotent by name; None means all of them."""
        mark = self.metadata.annotations.get(IDEMPOTENT, "")
        if mark == "true":
            return None
        return frozenset(name.strip() for name in mark.split(",") if name.strip())

    def is_idempotent(self, rule: Rule) -> bool:
        """Tell whether a request by this rule may be sent twice."""
        names = self.idempotent_names()
        return names is None or rule.name in names
