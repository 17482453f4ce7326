"""Why a request is allowed or denied: the line that decides, or the lines that come nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

from garrison.authz.compilation import CompiledLine
from garrison.authz.predicates import Literal
from garrison.authz.schema import DST, Request

MAX_NEAREST = 5


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A line that did not match: where it is, its text, and what of it the request lacks."""

    rule: str
    text: str
    effect: str
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, and the line that made it (`file:line` and its text), or the `nearest` ones."""

    allowed: bool
    rule: str | None
    text: str | None
    nearest: tuple[NearMiss, ...]


def explain(lines: Sequence[CompiledLine], request: Request) -> Explanation:
    """Decide `request`; name the line, or those that would have allowed it but for little."""
    for allows in (False, True):
        for each in lines:
            if each.line.allows is allows and _holds(each, request):
                return Explanation(allows, each.line.rule, each.line.text, ())
    return Explanation(allowed=False, rule=None, text=None, nearest=_nearest(lines, request))


def _holds(compiled: CompiledLine, request: Request) -> bool:
    return any(
        all(literal.holds(request) for literal in conjunction)
        for conjunction in compiled.disjunction
    )


def _nearest(lines: Sequence[CompiledLine], request: Request) -> tuple[NearMiss, ...]:
    missed = [
        (_distance(failing), index, failing)
        for index, each in enumerate(lines)
        if each.line.allows
        for failing in [_closest(each, request)]
    ]
    missed.sort(key=lambda each: each[:2])
    least = [each for each in missed if each[0] == missed[0][0]]
    return tuple(
        NearMiss(
            lines[index].line.rule,
            lines[index].line.text,
            "allow",
            tuple(_difference(literal, request) for literal in failing),
        )
        for _, index, failing in least[:MAX_NEAREST]
    )


def _closest(compiled: CompiledLine, request: Request) -> list[Literal]:
    """Find the literals that fail in the alternative that fails least."""
    failing = [
        [literal for literal in conjunction if not literal.holds(request)]
        for conjunction in compiled.disjunction
    ]
    return min(failing, key=_distance)


def _distance(failing: list[Literal]) -> tuple[int, bool]:
    """Count what fails; among equals a line of the same destination is nearer."""
    return len(failing), any(literal.field == DST for literal in failing)


def _difference(literal: Literal, request: Request) -> str:
    wanted = f"{'not ' * literal.negated}{literal.predicate}"
    return f"{literal.field} is {request.value(literal.field)!r}, the line wants {wanted}"
