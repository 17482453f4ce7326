"""Disjunctions of conjunctions of literals: what is left of a matcher once a line is put into it.

No clever rewriting happens here: an earlier compiler's optimisation dropped a rule and was caught
only after 368,000 agreeing decisions. What is done is plain: constants vanish, equal literals
count once, sets of names are united where they are alternatives, sets of methods intersected.
"""

from itertools import product
from typing import Final, TypeAlias

from garrison.authz.predicates import ALL_METHODS, Literal, Methods, Names

Conjunction: TypeAlias = tuple[Literal, ...]
Disjunction: TypeAlias = tuple[Conjunction, ...]

TRUE: Final[Disjunction] = ((),)
FALSE: Final[Disjunction] = ()

MAX_CONJUNCTIONS: Final = 256


class TooManyConjunctionsError(Exception):
    """An expression has more than MAX_CONJUNCTIONS alternatives."""


def single(literal: Literal) -> Disjunction:
    """Make a disjunction of one literal, or a constant if its answer is always the same."""
    predicate = literal.predicate
    match predicate:
        case Names(exact, prefixes):
            if "" in prefixes:
                return FALSE if literal.negated else TRUE
            if not exact and not prefixes:
                return TRUE if literal.negated else FALSE
        case Methods(members):
            if not members:
                return FALSE
            if members == ALL_METHODS:
                return TRUE
        case _:
            pass
    return ((literal,),)


def either(operands: list[Disjunction]) -> Disjunction:
    """Join alternatives; raises TooManyConjunctionsError."""
    result: dict[Conjunction, None] = {}
    for conjunction in (conjunction for operand in operands for conjunction in operand):
        if not conjunction:
            return TRUE
        partner = next((other for other in result if _unitable(other, conjunction)), None)
        if partner is None:
            result[conjunction] = None
        else:
            del result[partner]
            result[_united(partner, conjunction)] = None
    return _capped(tuple(result))


def both(operands: list[Disjunction]) -> Disjunction:
    """Join conditions that must all hold; raises TooManyConjunctionsError."""
    result = TRUE
    for operand in operands:
        if len(result) * len(operand) > MAX_CONJUNCTIONS:
            raise TooManyConjunctionsError
        joined = (_joined(left, right) for left, right in product(result, operand))
        result = tuple(dict.fromkeys(each for each in joined if each is not None))
    return result


def negation(operand: Disjunction) -> Disjunction:
    """Negate by De Morgan's laws; raises TooManyConjunctionsError."""
    return both([either([_opposite(literal) for literal in each]) for each in operand])


def _opposite(literal: Literal) -> Disjunction:
    if isinstance(literal.predicate, Methods):
        return single(Literal(literal.field, ~literal.predicate))
    return single(Literal(literal.field, literal.predicate, not literal.negated))


def _unitable(left: Conjunction, right: Conjunction) -> bool:
    if len(left) != 1 or len(right) != 1 or left[0].field != right[0].field:
        return False
    kinds = {type(left[0].predicate), type(right[0].predicate)}
    return kinds in ({Names}, {Methods}) and not left[0].negated and not right[0].negated


def _united(left: Conjunction, right: Conjunction) -> Conjunction:
    one, two = left[0].predicate, right[0].predicate
    if isinstance(one, Names) and isinstance(two, Names):
        return (Literal(left[0].field, one | two),)
    if isinstance(one, Methods) and isinstance(two, Methods):
        return (Literal(left[0].field, Methods(one.members | two.members)),)
    raise TypeError(one, two)


def _joined(left: Conjunction, right: Conjunction) -> Conjunction | None:
    result: Conjunction | None = left
    for literal in right:
        if result is None:
            return None
        result = _with(result, literal)
    return result


def _with(conjunction: Conjunction, literal: Literal) -> Conjunction | None:
    if literal in conjunction:
        return conjunction
    if isinstance(literal.predicate, Methods):
        for old in conjunction:
            if isinstance(old.predicate, Methods):
                common = Methods(old.predicate.members & literal.predicate.members)
                rest = tuple(each for each in conjunction if each is not old)
                return (*rest, Literal(literal.field, common)) if common.members else None
    return (*conjunction, literal)


def _capped(conjunctions: Disjunction) -> Disjunction:
    if len(conjunctions) > MAX_CONJUNCTIONS:
        raise TooManyConjunctionsError
    return conjunctions
