"""Routes: the rules of a service's HTTPRoutes in the standard's order of precedence.

Where several rules match a request, the most specific decides, whatever file it is in (Gateway API,
HTTPRouteRule.matches): exact path, then expression, then the longest prefix; then a method, more
headers, more query parameters. Two rules that are equal in all of it are a conflict, found before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from garrison.policies.compile.wire import duration, packed
from garrison.policies.mesh import Backend, Mesh, RouteRule, Service
from garrison.policies.resources.fields import Name
from garrison.policies.resources.http_route import (
    HeaderMatch,
    PathMatch,
    QueryParamMatch,
    Retry,
    RouteMatch,
    ValueMatch,
)

OUTBOUND = "outbound"
APPLICATION = "application"
DEFAULT_TIMEOUT = timedelta(seconds=15)  # as Envoy's own
DEFAULT_BACKOFF = timedelta(milliseconds=25)
MAX_BACKOFF_FACTOR = 10
NOT_PROCESSED = ("connect-failure", "refused-stream", "reset-before-request")
IDEMPOTENT_CODES = (502, 503, 504)
_HOST_SELECTION_ATTEMPTS = 3
_PATH_RANKS = ("Exact", "RegularExpression", "PathPrefix")


def virtual_host(mesh: Mesh, name: Name, *, in_namespace: bool) -> route_components_pb2.VirtualHost:
    """Make a service's part of the forward proxy's routes, for callers in its namespace or not."""
    return _virtual_host(mesh, name, _domains(mesh.services[name], in_namespace=in_namespace))


def of_service(mesh: Mesh, name: Name) -> route_pb2.RouteConfiguration:
    """Make the routes of a listener for one service: whatever host is asked for, it is this one."""
    return route_pb2.RouteConfiguration(
        name=service_listener(name), virtual_hosts=[_virtual_host(mesh, name, ["*"])]
    )


def in_precedence(rules: Iterable[RouteRule]) -> list[tuple[RouteMatch, RouteRule]]:
    """Return every match with its rule, the one that decides first."""
    candidates = [(match, rule) for rule in rules for match in rule.matches]
    return sorted(candidates, key=lambda candidate: _precedence(candidate[0]))


def service_listener(name: Name) -> str:
    """Name the listener of one service, and its routes."""
    return f"{OUTBOUND}/{name}"


def to_application(service: Service) -> route_pb2.RouteConfiguration:
    """Make the inbound routes: everything that was authorized goes to the application.

    The caller's side bounds the time; a second limit here would cut what the caller allows.
    """
    action = route_components_pb2.RouteAction(cluster=APPLICATION, timeout=duration(timedelta(0)))
    route = route_components_pb2.Route(
        name=_default_name(service.name),
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=action,
    )
    host = route_components_pb2.VirtualHost(name=str(service.name), domains=["*"], routes=[route])
    return route_pb2.RouteConfiguration(name="inbound", virtual_hosts=[host])


def _virtual_host(
    mesh: Mesh, name: Name, domains: Iterable[str]
) -> route_components_pb2.VirtualHost:
    return route_components_pb2.VirtualHost(
        name=str(name), domains=domains, routes=_routes(mesh, name)
    )


def _domains(service: Service, *, in_namespace: bool) -> Iterator[str]:
    name, namespace = service.name.name, service.name.namespace
    hosts = [
        f"{name}.{namespace}",
        f"{name}.{namespace}.svc",
        f"{name}.{namespace}.svc.cluster.local",
    ]
    if in_namespace:
        hosts.append(name)
    for host in hosts:
        yield host
        yield f"{host}:{service.port}"


def _routes(mesh: Mesh, name: Name) -> list[route_components_pb2.Route]:
    rules = mesh.rules.get(name)
    if rules is None:
        return [_default_route(name)]
    return [_route(match, rule) for match, rule in in_precedence(rules)]


def _precedence(match: RouteMatch) -> tuple[int, ...]:
    """Rank a match; the sort is stable, so equal ones stay in order of route name and rule."""
    return (
        _PATH_RANKS.index(match.path.type),
        -len(match.path.value.rstrip("/")),  # a prefix means the same with and without it
        match.method is None,
        -len(match.headers),
        -len(match.query_params),
    )


def _default_route(name: Name) -> route_components_pb2.Route:
    action = _action((Backend(name, 1),))
    action.timeout.CopyFrom(duration(DEFAULT_TIMEOUT))
    action.retry_policy.CopyFrom(_retry_policy(Retry(), is_idempotent=False))
    return route_components_pb2.Route(
        name=_default_name(name),
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=action,
    )


def _default_name(name: Name) -> str:
    return f"{name}#default"


def _route(match: RouteMatch, rule: RouteRule) -> route_components_pb2.Route:
    timeouts = rule.rule.timeouts
    action = _action(rule.backends)
    request = DEFAULT_TIMEOUT if timeouts.request is None else timeouts.request
    action.timeout.CopyFrom(duration(request))
    retry = _retry_policy(rule.rule.retry or Retry(), is_idempotent=rule.is_idempotent)
    if timeouts.backend_request:
        retry.per_try_timeout.CopyFrom(duration(timeouts.backend_request))
    action.retry_policy.CopyFrom(retry)
    return route_components_pb2.Route(name=rule.name, match=_match(match), route=action)


def _action(backends: Iterable[Backend]) -> route_components_pb2.RouteAction:
    weighted = [backend for backend in backends if backend.weight]
    if len(weighted) == 1:
        return route_components_pb2.RouteAction(cluster=str(weighted[0].service))
    clusters = [
        route_components_pb2.WeightedCluster.ClusterWeight(
            name=str(backend.service), weight=UInt32Value(value=backend.weight)
        )
        for backend in weighted
    ]
    return route_components_pb2.RouteAction(
        weighted_clusters=route_components_pb2.WeightedCluster(clusters=clusters)
    )


def _retry_policy(retry: Retry, *, is_idempotent: bool) -> route_components_pb2.RetryPolicy:
    """Retry what was provably not processed; more only where a second time does no harm."""
    conditions = [*NOT_PROCESSED]
    codes: tuple[int, ...] = ()
    if is_idempotent:
        conditions += ["reset", "retriable-status-codes"]
        codes = retry.codes or IDEMPOTENT_CODES
    base = retry.backoff or DEFAULT_BACKOFF
    return route_components_pb2.RetryPolicy(
        retry_on=",".join(conditions),
        num_retries=UInt32Value(value=retry.attempts),
        retriable_status_codes=codes,
        retry_host_predicate=[
            route_components_pb2.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=_HOST_SELECTION_ATTEMPTS,
        retry_back_off=route_components_pb2.RetryPolicy.RetryBackOff(
            base_interval=duration(base), max_interval=duration(base * MAX_BACKOFF_FACTOR)
        ),
    )


def _match(match: RouteMatch) -> route_components_pb2.RouteMatch:
    result = route_components_pb2.RouteMatch(
        headers=[_header(header) for header in match.headers],
        query_parameters=[_query(param) for param in match.query_params],
    )
    if match.method is not None:
        result.headers.insert(
            0,
            route_components_pb2.HeaderMatcher(
                name=":method", string_match=string_pb2.StringMatcher(exact=match.method)
            ),
        )
    _set_path(result, match.path)
    return result


def _set_path(result: route_components_pb2.RouteMatch, path: PathMatch) -> None:
    match path.type:
        case "Exact":
            result.path = path.value
        case "RegularExpression":
            result.safe_regex.CopyFrom(regex_pb2.RegexMatcher(regex=path.value))
        case "PathPrefix" if path.value == "/":
            result.prefix = "/"
        case "PathPrefix":
            result.path_separated_prefix = path.value.rstrip("/")


def _header(header: HeaderMatch) -> route_components_pb2.HeaderMatcher:
    return route_components_pb2.HeaderMatcher(name=header.name, string_match=_value(header))


def _query(param: QueryParamMatch) -> route_components_pb2.QueryParameterMatcher:
    return route_components_pb2.QueryParameterMatcher(name=param.name, string_match=_value(param))


def _value(match: ValueMatch) -> string_pb2.StringMatcher:
    if match.type == "RegularExpression":
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=match.value))
    return string_pb2.StringMatcher(exact=match.value)
