"""Partial evaluation: a matcher, with one policy line put into it, as a disjunction of literals.

Roles are closed and patterns compiled on the way; what is left speaks of the request only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final, TypeAlias

from garrison.authz.disjunction import (
    FALSE,
    MAX_CONJUNCTIONS,
    TRUE,
    Disjunction,
    TooManyConjunctionsError,
    both,
    either,
    negation,
    single,
)
from garrison.authz.errors import RefusedError
from garrison.authz.globs import glob_match
from garrison.authz.patterns import key_match, key_match2, key_match3, key_match5
from garrison.authz.predicates import Names, Network, Predicate, literal
from garrison.authz.regular import regex_match
from garrison.authz.roles import Roles
from garrison.authz.schema import Field
from garrison.authz.sources import Place, Text
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


@dataclass(frozen=True, slots=True)
class Known:
    """A value that the line or the matcher fixes."""

    text: str
    place: Place


Operand: TypeAlias = Field | Known
Leaf: TypeAlias = Call | Equals | OneOf


@dataclass(frozen=True, slots=True)
class Bound:
    """A line to put into the matcher: its columns, and the rules that `eval` takes from them."""

    columns: Mapping[str, Text]
    rules: Mapping[str, Expression]
    place: Place


@dataclass(frozen=True, slots=True)
class PartialEvaluator:
    """Evaluates expressions for lines, remembering what a leaf meant for the same values."""

    roles: Mapping[str, Roles]
    # Each leaf is kept with its meaning, so that its id stays its own.
    _leaves: dict[tuple[object, ...], tuple[Leaf, Disjunction]] = field(default_factory=dict)

    def evaluate(self, expression: Expression, line: Bound) -> Disjunction:
        """Reduce `expression`; raises RefusedError where it cannot be carried."""
        try:
            return self._expression(expression, line)
        except TooManyConjunctionsError:
            raise RefusedError(
                "line-alternatives",
                line.place,
                f"the line has more than {MAX_CONJUNCTIONS} alternatives",
                "split the line, or give what it lists a role",
            ) from None

    def _expression(self, expression: Expression, line: Bound) -> Disjunction:
        match expression:
            case And(operands):
                return both([self._expression(operand, line) for operand in operands])
            case Or(operands):
                return either([self._expression(operand, line) for operand in operands])
            case Not(operand):
                return negation(self._expression(operand, line))
            case Inlined(column, _):
                return self._expression(line.rules[column.name], line)
            case _:
                return self._leaf(expression, line)

    def _leaf(self, leaf: Leaf, line: Bound) -> Disjunction:
        values = _values(leaf)
        columns = line.columns
        key = (
            id(leaf),
            *[columns[each.name].value for each in values if isinstance(each, PolicyValue)],
        )
        found = self._leaves.get(key)
        if found is None:
            operands = tuple(_resolve(value, columns) for value in values)
            found = self._leaves[key] = (leaf, self._meaning(leaf, operands))
        return found[1]

    def _meaning(self, leaf: Leaf, operands: tuple[Operand, ...]) -> Disjunction:
        match leaf:
            case Call(function, _, _) if function in self.roles:
                return _role(self.roles[function], operands)
            case Call(function, _, _):
                return _test(function, operands)
            case Equals() | OneOf():
                return either([_equal(operands[0], each) for each in operands[1:]])


def compile_predicate(function: str, text: str, place: Place) -> Predicate:
    """Compile what a built-in function asks with this second argument; raises RefusedError."""
    if function == "==":
        return Names(frozenset((text,)))
    return _COMPILERS[function](text, place)


def _values(leaf: Leaf) -> tuple[Value, ...]:
    match leaf:
        case Call(_, arguments, _):
            return arguments
        case Equals(left, right, _):
            return (left, right)
        case OneOf(value, options, _):
            return (value, *options)


def _resolve(value: Value, columns: Mapping[str, Text]) -> Operand:
    match value:
        case RequestValue(of, _):
            return of
        case PolicyValue(name, _):
            text = columns[name]
            return Known(text.value, text.place(0))
        case Constant(text, place) | Number(text, place):
            return Known(text, place)


def _equal(left: Operand, right: Operand) -> Disjunction:
    match left, right:
        case Known(), Known():
            return TRUE if left.text == right.text else FALSE
        case (Field(), Known()):
            return single(literal(left, Names(frozenset((right.text,)))))
        case (Known(), Field()):
            return single(literal(right, Names(frozenset((left.text,)))))
        case _:
            raise TypeError(left, right)  # check_expression refuses two fields


def _test(function: str, operands: tuple[Operand, ...]) -> Disjunction:
    subject, pattern = operands
    if isinstance(pattern, Field):
        raise TypeError(pattern)  # check_expression refuses patterns from the request
    predicate = compile_predicate(function, pattern.text, pattern.place)
    if isinstance(subject, Field):
        return single(literal(subject, predicate))
    try:
        return TRUE if predicate.holds(subject.text) else FALSE
    except ValueError as error:
        raise RefusedError(
            "ip-address", subject.place, str(error), "write an IPv4 or IPv6 address"
        ) from error


def _role(roles: Roles, operands: tuple[Operand, ...]) -> Disjunction:
    subject, role, *domains = operands
    if isinstance(role, Field):
        raise TypeError(role)  # check_expression refuses it
    if not domains:
        return _has_role(subject, roles.members(role.text))
    domain = domains[0]
    if isinstance(domain, Known):
        return _has_role(subject, roles.members(role.text, domain.text))
    # The domain is the request's: its own members in each, and in every domain the name itself.
    alternatives = [_has_role(subject, Names(frozenset((role.text,))))]
    for name in roles.domains:
        inside = single(literal(domain, Names(frozenset((name,)))))
        alternatives.append(both([inside, _has_role(subject, roles.members(role.text, name))]))
    return either(alternatives)


def _has_role(subject: Operand, members: Names) -> Disjunction:
    if isinstance(subject, Field):
        return single(literal(subject, members))
    return TRUE if members.holds(subject.text) else FALSE


def _network(text: str, place: Place) -> Network:
    try:
        return Network(str(ip_network(text, strict=False)))
    except ValueError as error:
        raise RefusedError(
            "ip-address", place, str(error), "write an address or a network, 10.0.0.0/8"
        ) from error


_COMPILERS: Final[Mapping[str, Callable[[str, Place], Predicate]]] = {
    "keyMatch": key_match,
    "keyMatch2": key_match2,
    "keyMatch3": key_match3,
    "keyMatch5": key_match5,
    "regexMatch": regex_match,
    "globMatch": glob_match,
    "ipMatch": _network,
}
