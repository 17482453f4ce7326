"""The syntax tree of a matcher: Casbin's expressions, as far as every engine agrees on them."""

from dataclasses import dataclass
from typing import TypeAlias

from garrison.authz.schema import Field
from garrison.authz.sources import Place


@dataclass(frozen=True, slots=True)
class RequestValue:
    """A field of the request: `r.path`, `r.headers['x-tenant']`."""

    field: Field
    place: Place


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """A column of the policy line: `p.path`."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class Constant:
    """A string written in the matcher."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Number:
    """A number written in the matcher."""

    text: str
    place: Place


Value: TypeAlias = RequestValue | PolicyValue | Constant | Number


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the dialect, or a role definition, applied to values."""

    function: str
    arguments: tuple[Value, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Equals:
    """`left == right`; `!=` is its negation."""

    left: Value
    right: Value
    place: Place


@dataclass(frozen=True, slots=True)
class OneOf:
    """`value in (a, b)`."""

    value: Value
    options: tuple[Value, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Inlined:
    """`eval(p.rule)`: the column's text is an expression itself."""

    column: PolicyValue
    place: Place


@dataclass(frozen=True, slots=True)
class Not:
    """`!operand`."""

    operand: "Expression"


@dataclass(frozen=True, slots=True)
class And:
    """All of `operands`."""

    operands: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of `operands`."""

    operands: tuple["Expression", ...]


Expression: TypeAlias = Call | Equals | OneOf | Inlined | Not | And | Or
