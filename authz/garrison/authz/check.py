"""Which function may be asked of which field, so that every rule can be carried exactly.

Checked once for the matcher, and once for each rule that `eval` brings in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from garrison.authz.errors import RefusedError
from garrison.authz.schema import Field, Kind
from garrison.authz.sources import Place
from garrison.authz.syntax import (
    And,
    Call,
    Constant,
    Equals,
    Expression,
    Inlined,
    Not,
    Number,
    OneOf,
    Or,
    PolicyValue,
    RequestValue,
    Value,
)

_TEXT: Final = frozenset((Kind.DESTINATION, Kind.METHOD, Kind.PATH, Kind.HEADER))
_NAMED: Final = _TEXT | {Kind.PRINCIPAL}

# The kinds of request field that a function takes first.
FUNCTIONS: Final[Mapping[str, frozenset[Kind]]] = {
    "keyMatch": _NAMED,
    "keyMatch2": _TEXT,
    "keyMatch3": _TEXT,
    "keyMatch5": _TEXT - {Kind.HEADER},
    "regexMatch": _TEXT,
    "globMatch": frozenset((Kind.PATH,)),
    "ipMatch": frozenset((Kind.ADDRESS,)),
}
_EXPLAINED: Final = {
    "keyMatch4": "it compares captured segments with each other, which no rule of a proxy can",
    "timeMatch": "its answer depends on the time, and a rule's must not",
    "keyGet": "it returns text, not true or false",
    "keyGet2": "it returns text, not true or false",
    "keyGet3": "it returns text, not true or false",
}
_WHY: Final = {
    Kind.PRINCIPAL: "a principal is compared by name, by namespace/prefix* or by role, whole",
    Kind.ADDRESS: "an IP address is tested by ipMatch only",
    Kind.HEADERS: "a header is named: r.headers['x-tenant']",
}


@dataclass(frozen=True, slots=True)
class Use:
    """A policy column, or a constant, that is held against a field of the request."""

    function: str
    field: Field
    value: PolicyValue | Constant


def check_expression(expression: Expression, relations: Mapping[str, int]) -> None:
    """Raise RefusedError at the first thing in `expression` that cannot be compiled."""
    for leaf in leaves(expression):
        match leaf:
            case Call():
                _check_call(leaf, relations)
            case Equals():
                _check_pair(leaf.left, leaf.right, leaf.place)
            case OneOf():
                for option in leaf.options:
                    _check_pair(leaf.value, option, leaf.place)
            case Inlined():
                pass


def leaves(expression: Expression) -> Iterator[Call | Equals | OneOf | Inlined]:
    """Walk over what is neither and, or nor not."""
    match expression:
        case And(operands) | Or(operands):
            for operand in operands:
                yield from leaves(operand)
        case Not(operand):
            yield from leaves(operand)
        case _:
            yield expression


def uses(expression: Expression) -> Iterator[Use]:
    """List what is held against which field, by which function."""
    for leaf in leaves(expression):
        pairs: list[tuple[str, Value, Value]] = []
        match leaf:
            case Call(function, arguments, _):
                pairs = [(function, arguments[0], arguments[1])]
            case Equals(left, right, _):
                pairs = [("==", left, right), ("==", right, left)]
            case OneOf(value, options, _):
                pairs = [("==", value, option) for option in options]
            case Inlined():
                pass
        for function, subject, known in pairs:
            if isinstance(subject, RequestValue) and isinstance(known, PolicyValue | Constant):
                yield Use(function, subject.field, known)


def _check_call(call: Call, relations: Mapping[str, int]) -> None:
    name = call.function
    if name not in FUNCTIONS and name not in relations:
        raise RefusedError(
            "matcher-function",
            call.place,
            f"{name} is not compiled: {_EXPLAINED.get(name, 'no rule of a proxy can carry it')}",
            f"use {', '.join((*FUNCTIONS, *relations))}",
        )
    arity = relations.get(name, 2)
    if len(call.arguments) != arity:
        raise RefusedError(
            "matcher-arguments",
            call.place,
            f"{name} takes {arity} arguments, not {len(call.arguments)}",
            "give it the request's value first, then the policy's",
        )
    subject, *rest = call.arguments
    for argument in call.arguments:
        _check_text(argument)
    if isinstance(rest[0], RequestValue):
        raise RefusedError(
            "matcher-request-pattern",
            rest[0].place,
            f"the second argument of {name} would be taken from the request",
            "take it from a column of the policy, and put the request's field first",
        )
    if len(rest) > 1 and isinstance(rest[1], RequestValue):
        _check_kind("==", rest[1])
    if isinstance(subject, RequestValue):
        _check_kind(name, subject)


def _check_kind(function: str, subject: RequestValue) -> None:
    kind = subject.field.kind
    if kind not in FUNCTIONS.get(function, _NAMED):
        raise RefusedError(
            "matcher-kind",
            subject.place,
            f"{function} cannot be asked of {kind.value}",
            _WHY.get(kind, "ask it of a path, or use keyMatch or =="),
        )


def _check_pair(left: Value, right: Value, place: Place) -> None:
    for value in (left, right):
        _check_text(value)
    if isinstance(left, RequestValue) and isinstance(right, RequestValue):
        raise RefusedError(
            "matcher-two-fields",
            place,
            "two fields of the request are compared, which no rule of a proxy can",
            "compare each with a column of the policy",
        )
    for value in (left, right):
        if isinstance(value, RequestValue):
            _check_kind("==", value)


def _check_text(value: Value) -> None:
    if isinstance(value, Number):
        raise RefusedError(
            "matcher-type",
            value.place,
            f"{value.text} is a number, and what it is held against is text",
            f"write '{value.text}'",
        )
