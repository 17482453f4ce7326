"""Values on both sides of a predicate: such that it holds, and such that it just does not."""

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from garrison.authz.predicates import Literal, Methods, Names, Network, Pattern, Predicate
from garrison.authz.principals import is_source
from garrison.authz.schema import (
    METHODS,
    UNAUTHENTICATED,
    Kind,
    Request,
    is_canonical,
)

MAX_VALUES: Final = 12

_UNKNOWN_METHODS: Final = ("PROPFIND", "read", "any")
_PER_SET: Final = 3
_DEFAULTS: Final = {
    Kind.PRINCIPAL: ("a/a", UNAUTHENTICATED, "other.domain//a/a"),
    Kind.METHOD: ("GET", "POST", "PROPFIND"),
    Kind.PATH: ("/", "/x", "/x/y"),
    Kind.HEADER: ("", "x"),
    Kind.ADDRESS: ("127.0.0.1", "::1"),
}
_VALID: Final[dict[Kind, Callable[[str], bool]]] = {
    Kind.PRINCIPAL: is_source,
    Kind.PATH: is_canonical,
    Kind.HEADER: lambda value: value.isascii() and value == value.strip(),
}


def values(literals: Iterable[Literal], registered: Iterable[str] = ()) -> list[str]:
    """Propose values for one field that `literals` speak of, valid ones only, the likely first."""
    found: dict[str, None] = {}
    kind = Kind.HEADER
    for literal in literals:
        kind = literal.field.kind
        found.update(dict.fromkeys(_around(literal.predicate)))
    if kind is Kind.PRINCIPAL:
        found.update(dict.fromkeys(registered))
    found.update(dict.fromkeys(_DEFAULTS.get(kind, ())))
    valid = _VALID.get(kind, bool)
    return [value for value in found if valid(value)]


def satisfying(literals: list[Literal], proposed: Iterable[str]) -> list[str]:
    """Keep the values of which all `literals` hold."""
    kept = (value for value in proposed if all(literal.of(value) for literal in literals))
    return _first(kept)


def missing(literal: Literal, others: list[Literal], proposed: Iterable[str]) -> list[str]:
    """Keep the values of which `others` hold, and `literal` does not."""
    kept = (
        value
        for value in proposed
        if not literal.of(value) and all(other.of(value) for other in others)
    )
    return _first(kept)


def with_value(request: Request, literal: Literal, value: str) -> Request:
    """Change one field of a request."""
    match literal.field.kind:
        case Kind.PRINCIPAL:
            return _changed(request, src=value)
        case Kind.METHOD:
            return _changed(request, method=value)
        case Kind.PATH:
            return _changed(request, path=value)
        case Kind.ADDRESS:
            return _changed(request, ip=value)
        case Kind.HEADER | Kind.HEADERS:
            rest = {
                name: old for name, old in request.headers.items() if name != literal.field.header
            }
            headers = {**rest, literal.field.header: value} if value else rest
            return Request(
                request.src, request.dst, request.method, request.path, headers, request.ip
            )
        case Kind.DESTINATION:
            raise TypeError(literal)  # a slice does not ask for it


def _changed(request: Request, **change: str) -> Request:
    fields = {
        "src": request.src,
        "method": request.method,
        "path": request.path,
        "ip": request.ip,
        **change,
    }
    return Request(dst=request.dst, headers=request.headers, **fields)


def _first(kept: Iterator[str]) -> list[str]:
    return [value for value, _ in zip(kept, range(MAX_VALUES), strict=False)]


def _around(predicate: Predicate) -> Iterator[str]:
    match predicate:
        case Names():
            yield from _around_names(predicate)
        case Methods(members):
            yield from sorted(members & METHODS)[:_PER_SET]
            yield from sorted(METHODS - members)[:_PER_SET]
            yield from _UNKNOWN_METHODS
        case Pattern(samples=samples):
            for text in samples:
                yield from _near(text)
        case Network(cidr):
            network = ip_network(cidr)
            yield str(network.network_address)
            yield str(network.broadcast_address)
            if int(network.network_address):
                yield str(network.network_address - 1)


def _around_names(names: Names) -> Iterator[str]:
    for text in sorted(names.exact)[:_PER_SET]:
        yield from _near(text)
    for prefix in sorted(names.prefixes)[:_PER_SET]:
        yield from (f"{prefix}x", f"{prefix}x/y", prefix, prefix[:-1], f"{prefix[:-1]}x")


def _near(text: str) -> Iterator[str]:
    yield text
    yield f"{text}x"
    yield f"{text}/"
    yield f"{text}/x"
    yield text[:-1]
    yield text.swapcase()
    head, _, tail = text.rpartition("/")
    yield f"{head}x/{tail}"
    yield head
