"""Before rules are published: requests that each line decides, and near misses, put to pycasbin.

For each line of each destination's slice a witness is made that satisfies what is left of the
matcher there, preferably one that no other line decides, and for each of its literals a request
in which only that one fails. The published messages and Casbin must decide all of them alike. Time
is bounded: first every line has a witness at one destination, then its near misses there, then both
at the others, as far as it lasts.

Casbin scans every line for every request, so it is given the lines of the slice, and the links
that its requests can meet; for the first fifth of the time it is given the whole policy instead,
which holds the slicing itself to account. To reach every line, it is given the lines alone that are
new at a destination, and is held against the rules of these: a tenth of the work where many lines
speak of every service.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from garrison.authz.compiled import Compiled
from garrison.authz.disjunction import Conjunction, Disjunction
from garrison.authz.errors import AuthzError
from garrison.authz.evaluate import Attributes, Decision, RuleSet
from garrison.authz.oracle import Excerpts, Oracle
from garrison.authz.predicates import Literal
from garrison.authz.samples import missing, satisfying, values, with_value
from garrison.authz.schema import UNAUTHENTICATED, Field, Request

BUDGET: Final = timedelta(seconds=5)

_WHOLE_SHARE: Final = 0.2
_MAX_ATTEMPTS: Final = 6
_MAX_ALTERNATIVES: Final = 6
_NEAR_MISSES: Final = 3
_MAX_REGISTERED: Final = 5
_SECONDS_PER_PAIR: Final = 2e-6


class DisagreementError(AuthzError):
    """Casbin and the compiled rules decide a request differently: nothing may be published."""

    def __init__(self, request: Request, rule: str, *, casbin: bool) -> None:
        """Name the request, and the line that it was made for."""
        self.request = request
        self.rule = rule
        words = {True: "allows", False: "denies"}
        super().__init__(
            f"{rule}: casbin {words[casbin]} and the compiled rules {words[not casbin].rstrip('s')}"
            f" {request}; this is a defect of the compiler: report it, and rewrite the line"
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much was checked: lines that some destination has, and these lines at each of theirs."""

    lines: int
    lines_reached: int  # by a witness, at one destination at least
    places: int
    places_checked: int  # with all near misses
    decisive: int
    requests: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Tell whether time sufficed for every line at every destination."""
        return self.places == self.places_checked

    def as_json(self) -> dict[str, int | float | bool]:
        """Return the form of the policy server's status (docs/seams.md, "Status")."""
        return {
            "lines": self.lines_reached,
            "of": self.lines,
            "places": self.places_checked,
            "of_places": self.places,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "complete": self.is_complete,
        }


def check_against_casbin(
    compiled: Compiled,
    budget: timedelta = BUDGET,
    clock: Callable[[], float] = time.monotonic,
) -> Coverage:
    """Compare compiled rules with pycasbin; raises DisagreementError at the first difference."""
    return _Check(compiled, clock, budget.total_seconds()).run()


@dataclass(frozen=True, slots=True)
class _Task:
    """A line, by its number, at a destination, and what is left of it there."""

    destination: str
    line: int
    rule: str
    disjunction: Disjunction


@dataclass(frozen=True, slots=True)
class _Part:
    """The literals of one field, and values to try for it."""

    literals: list[Literal]
    proposed: list[str]


class _Check:
    """The state of one run."""

    def __init__(self, compiled: Compiled, clock: Callable[[], float], seconds: float) -> None:
        self._compiled = compiled
        self._clock = clock
        self._start = clock()
        self._seconds = seconds
        self._excerpts = Excerpts(compiled.compilation)
        self._registered = sorted(compiled.principals.names)[:_MAX_REGISTERED]
        self._reached: set[int] = set()
        self._done: set[tuple[str, int]] = set()
        self._decisive: set[tuple[str, int]] = set()
        self._requests = 0
        self._slices = {
            destination: compiled.lines_of(destination) for destination in compiled.destinations
        }

    def run(self) -> Coverage:
        """Reach every line, then take it once, then everywhere; some before the whole policy."""
        self._take_whole()
        self._reach()
        seen: set[int] = set()
        for everywhere in (False, True):
            for destination, lines in self._slices.items():
                fresh = {line for line in lines if everywhere or line not in seen}
                seen |= fresh
                self._take(destination, fresh)
        return Coverage(
            len(set().union(*self._slices.values())),
            len(self._reached),
            sum(map(len, self._slices.values())),
            len(self._done),
            len(self._decisive),
            self._requests,
            self._elapsed(),
        )

    def _elapsed(self) -> float:
        return self._clock() - self._start

    def _is_over(self) -> bool:
        return self._elapsed() >= self._seconds

    def _take_whole(self) -> None:
        """Put a witness of each line to a Casbin that knows the whole policy."""
        if self._compiled.compilation.patterned and self._link_cost() > self._seconds:
            return
        oracle = Oracle.whole(self._compiled.compilation)
        limit = self._seconds * _WHOLE_SHARE
        for task in self._turns():
            if self._elapsed() >= limit:
                return
            published = self._published(task.destination)
            for request in islice(self._requests_for(task, published), 1):
                self._compare(task, request, published, oracle)

    def _turns(self) -> Iterator[_Task]:
        """Take one line of each destination, then the next of each."""
        walks = deque(self._tasks(destination) for destination in self._slices)
        while walks:
            walk = walks.popleft()
            for task in islice(walk, 1):
                yield task
                walks.append(walk)

    def _link_cost(self) -> float:
        """Foresee how long Casbin needs to link patterns: it tries every link on every name."""
        return len(self._compiled.compilation.links) ** 2 * _SECONDS_PER_PAIR / _WHOLE_SHARE

    def _reach(self) -> None:
        """Put a witness of each line to a Casbin that knows it, and what else is new there."""
        for destination, lines in self._slices.items():
            fresh = {line for line in lines if line not in self._reached}
            self._reached.update(self._put(destination, fresh, alone=True))

    def _take(self, destination: str, lines: set[int]) -> None:
        """Put all requests of some lines to a Casbin that knows the slice of a destination."""
        fresh = {line for line in lines if (destination, line) not in self._done}
        self._done.update((destination, line) for line in self._put(destination, fresh))

    def _put(self, destination: str, lines: set[int], *, alone: bool = False) -> list[int]:
        """Put requests for lines to Casbin; return the lines that were finished.

        `alone` is a witness each, and Casbin and the rules know no other line of the destination.
        """
        finished: list[int] = []
        if not lines or self._is_over():
            return finished
        slice_ = list(self._tasks(destination))
        tasks = [task for task in slice_ if task.line in lines]
        others = {task.rule for task in slice_ if alone and task.line not in lines}
        published = self._published(destination, others)
        requests = [
            (task, list(islice(self._requests_for(task, published), 1 if alone else None)))
            for task in tasks
        ]
        oracle = self._excerpts.oracle(
            [task.rule for task in slice_ if task.rule not in others],
            [request for _, each in requests for request in each],
        )
        for task, each in requests:
            for request in each:
                if self._is_over():
                    return finished
                decides = self._compare(task, request, published, oracle)
                if decides and not alone:
                    self._decisive.add((destination, task.line))
            finished.append(task.line)
        return finished

    def _tasks(self, destination: str) -> Iterator[_Task]:
        for line, compiled, rest in self._compiled.slice_lines(destination):
            yield _Task(destination, line, compiled.line.rule, rest)

    def _published(self, destination: str, without: Collection[str] = ()) -> RuleSet:
        rules = self._compiled.rules(destination)
        for filter_ in (rules.deny, rules.allow):
            for name in without:
                filter_.policies.pop(name, None)
        return RuleSet.of(rules.deny, rules.allow)

    def _compare(self, task: _Task, request: Request, published: RuleSet, oracle: Oracle) -> bool:
        """Have both decide; tell whether the line that the request was made for did."""
        decision = self._decide(published, request)
        casbin = oracle.allows(request)
        self._requests += 1
        if casbin != decision.allowed:
            raise DisagreementError(request, task.rule, casbin=casbin)
        return decision.rule == task.rule

    def _decide(self, published: RuleSet, request: Request) -> Decision:
        return published.decide(Attributes.of(request, self._compiled.trust_domain))

    def _requests_for(self, task: _Task, published: RuleSet) -> Iterator[Request]:
        """Make for each alternative of a line a witness, and for each literal near misses."""
        for conjunction in islice(task.disjunction, _MAX_ALTERNATIVES):
            parts = _parts(conjunction, self._registered)
            witness = self._witness(task, parts, published)
            if witness is None:
                continue
            yield witness
            for part in parts:
                for literal in part.literals:
                    others = [other for other in part.literals if other is not literal]
                    for value in missing(literal, others, part.proposed)[:_NEAR_MISSES]:
                        yield with_value(witness, literal, value)

    def _witness(self, task: _Task, parts: list[_Part], published: RuleSet) -> Request | None:
        """Satisfy an alternative, if possible by a request that its line decides."""
        fitting = [satisfying(part.literals, part.proposed) for part in parts]
        if not all(fitting):
            return None
        src = self._registered[0] if self._registered else UNAUTHENTICATED
        candidates = []
        for attempt in range(_MAX_ATTEMPTS):
            request = Request(src, task.destination, "GET", "/")
            for part, found in zip(parts, fitting, strict=True):
                request = with_value(request, part.literals[0], found[attempt % len(found)])
            candidates.append(request)
        decided = (each for each in candidates if self._decide(published, each).rule == task.rule)
        return next(decided, candidates[0])


def _parts(conjunction: Conjunction, registered: list[str]) -> list[_Part]:
    by_field: dict[Field, list[Literal]] = {}
    for literal in conjunction:
        by_field.setdefault(literal.field, []).append(literal)
    return [_Part(literals, values(literals, registered)) for literals in by_field.values()]
