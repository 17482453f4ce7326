"""Slices: which lines a destination has, and which registered principals a line lets in.

Lines name a destination exactly, by a prefix, or any: the index follows that, so that no line is
held against every destination unless it asks for something rarer.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from garrison.authz.disjunction import Conjunction, Disjunction
from garrison.authz.predicates import Literal, Names
from garrison.authz.schema import UNAUTHENTICATED, Kind

_PAST_EVERY_CHARACTER = "\U0010ffff"


class Universe:
    """A finite set of names, and which of them satisfy literals of one kind of field."""

    def __init__(self, names: Collection[str], kind: Kind) -> None:
        """Sort the names once."""
        self.names = frozenset(names)
        self._sorted = sorted(self.names)
        self._kind = kind
        self._found: dict[Conjunction, frozenset[str]] = {}
        self._split: dict[Conjunction, tuple[Conjunction, Conjunction]] = {}

    def satisfying(self, literals: Conjunction) -> frozenset[str]:
        """Find the names of which every literal holds."""
        found = self._found.get(literals)
        if found is None:
            found = self.names
            for literal in literals:
                found &= self._of(literal)
            self._found[literals] = found
        return found

    def split(self, conjunction: Conjunction) -> tuple[Conjunction, Conjunction]:
        """Part the literals of this kind from the others."""
        found = self._split.get(conjunction)
        if found is None:
            own = tuple(each for each in conjunction if each.field.kind is self._kind)
            rest = tuple(each for each in conjunction if each.field.kind is not self._kind)
            found = self._split[conjunction] = (own, rest)
        return found

    def _of(self, literal: Literal) -> frozenset[str]:
        match literal.predicate:
            case Names(exact, prefixes) if not literal.negated:
                return self._named(exact, prefixes)
            case _:
                return frozenset(filter(literal.of, self.names))

    def _named(self, exact: frozenset[str], prefixes: Iterable[str]) -> frozenset[str]:
        found = set(self.names & exact)
        for prefix in prefixes:
            start = bisect_left(self._sorted, prefix)
            end = bisect_left(self._sorted, prefix + _PAST_EVERY_CHARACTER)
            found.update(self._sorted[start:end])
        return frozenset(found)


@dataclass(slots=True)
class Slices:
    """For each destination the lines that speak of it, and what of them is left there."""

    destinations: Universe
    _everywhere: dict[int, list[Conjunction]] = field(default_factory=lambda: defaultdict(list))
    _somewhere: dict[str, dict[int, list[Conjunction]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, line: int, disjunction: Disjunction) -> bool:
        """Index a line; tell whether any destination has it."""
        reached = False
        for conjunction in disjunction:
            own, rest = self.destinations.split(conjunction)
            if not own:
                self._everywhere[line].append(rest)
                reached = reached or bool(self.destinations.names)
                continue
            for name in self.destinations.satisfying(own):
                self._somewhere[name][line].append(rest)
                reached = True
        return reached

    def lines_of(self, destination: str) -> list[int]:
        """List the numbers of a destination's lines in the order of the policy."""
        return sorted(self._somewhere.get(destination, {}).keys() | self._everywhere.keys())

    def of(self, destination: str) -> list[tuple[int, Disjunction]]:
        """List the lines of a destination, and what is left of each there."""
        here = self._somewhere.get(destination, {})
        return [
            (line, (*here.get(line, ()), *self._everywhere.get(line, ())))
            for line in self.lines_of(destination)
        ]


def admits_strangers(literals: Conjunction) -> bool:
    """Tell whether literals of `src` let in who is not registered here: nobody, or a federated."""
    federated = [
        name
        for literal in literals
        if isinstance(literal.predicate, Names) and not literal.negated
        for name in literal.predicate.exact | literal.predicate.prefixes
        if "//" in name
    ]
    return bool(federated) or all(literal.of(UNAUTHENTICATED) for literal in literals)
