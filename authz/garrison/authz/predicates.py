"""What a compiled rule can ask of one field of a request, and the answer for a value.

A predicate is closed: nothing of the model, the policy or the roles is needed to answer it. Its
answer here is the reference; what Envoy and garrison-proxy are sent asks the same.
"""

import re
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from garrison.authz.principals import is_source
from garrison.authz.schema import METHODS, OTHER_METHOD, Field, Kind, Request


@dataclass(frozen=True, slots=True)
class Names:
    """One of some strings, or a string that begins with one of some prefixes."""

    exact: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    def holds(self, value: str) -> bool:
        """Answer for a value."""
        return value in self.exact or any(map(value.startswith, self.prefixes))

    def __or__(self, other: "Names") -> "Names":
        """Join two alternatives."""
        return Names(self.exact | other.exact, self.prefixes | other.prefixes)

    def __str__(self) -> str:
        """Say it in a message."""
        words = sorted(self.exact) + [f"{prefix}*" for prefix in sorted(self.prefixes)]
        shown = ", ".join(words[:_SHOWN])
        return f"{shown}, … ({len(words)})" if len(words) > _SHOWN else shown or "nothing"


@dataclass(frozen=True, slots=True)
class Methods:
    """One of the known methods, or OTHER for all the rest: a finite set, so never negated."""

    members: frozenset[str]

    def holds(self, value: str) -> bool:
        """Answer for a value."""
        return value in self.members

    def __invert__(self) -> "Methods":
        """Name the methods that are left."""
        return Methods((METHODS | {OTHER_METHOD}) - self.members)

    def __str__(self) -> str:
        """Say it in a message."""
        return ", ".join(sorted(self.members)) or "nothing"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A string that `regex` matches from end to end.

    `regex` is written in what Python, RE2 and Rust's regex read alike; `text` is the policy's own
    spelling, and `samples` are strings that match.
    """

    regex: str
    text: str
    samples: tuple[str, ...]

    def holds(self, value: str) -> bool:
        """Answer for a value."""
        return _compiled(self.regex).fullmatch(value) is not None

    def __str__(self) -> str:
        """Say it in a message."""
        return self.text


@dataclass(frozen=True, slots=True)
class Network:
    """An address of one network; an IPv4-mapped IPv6 address is not its IPv4 address."""

    cidr: str

    def holds(self, value: str) -> bool:
        """Answer for a value, which must be an IP address."""
        return ip_address(value) in ip_network(self.cidr)

    def __str__(self) -> str:
        """Say it in a message."""
        return self.cidr


Predicate: TypeAlias = Names | Methods | Pattern | Network

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Literal:
    """A predicate of a field, or its negation; hashed once, for it is a key everywhere."""

    field: Field
    predicate: Predicate
    negated: bool = False
    _hash: int = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Remember the hash."""
        object.__setattr__(self, "_hash", hash((self.field, self.predicate, self.negated)))

    def __hash__(self) -> int:
        """Return what was remembered."""
        return self._hash

    def holds(self, request: Request) -> bool:
        """Answer for a request."""
        return self.of(request.value(self.field))

    def of(self, value: str) -> bool:
        """Answer for the value of its field."""
        return self.predicate.holds(value) != self.negated

    def __str__(self) -> str:
        """Say it in a message."""
        return f"{self.field} is {'not ' * self.negated}{self.predicate}"


def literal(field: Field, predicate: Predicate, *, negated: bool = False) -> Literal:
    """Build a literal in its one form.

    Methods are a set, and the rest of a set is a set too. Of names only those count that a
    principal can have: the name of a role, which Casbin takes for a member of itself, is none.
    """
    if field.kind is Kind.METHOD:
        members = frozenset(name for name in ALL_METHODS if predicate.holds(name) != negated)
        return Literal(field, Methods(members))
    if field.kind is Kind.PRINCIPAL and isinstance(predicate, Names):
        exact = frozenset(filter(is_source, predicate.exact))
        return Literal(field, Names(exact, predicate.prefixes), negated)
    return Literal(field, predicate, negated)


ALL_METHODS = METHODS | {OTHER_METHOD}


@lru_cache(maxsize=65_536)
def _compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex, re.ASCII)
