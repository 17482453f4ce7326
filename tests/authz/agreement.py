"""Policies and requests of one seed, and what pycasbin says of each: asked once, for all judges.

A judge gets rounds, and answers for each request whether it passes, and by which rule; of a request
that cannot be put to it at all it says nothing. GARRISON_TEST_DECISIONS says how many decisions
each judge makes at least, GARRISON_TEST_SEED from which seed: the same seed makes the same rounds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from garrison.authz import (
    AuthorizationRefusedError,
    Compiled,
    Request,
    Rules,
    compile_authorization,
)
from garrison.authz.evaluate import Decision
from garrison.authz.oracle import Oracle
from tests.authz.generator import PRINCIPALS, SERVICES, TRUST_DOMAIN, Case, generate

DEFAULT_DECISIONS = 100_000
DECISIONS = int(os.environ.get("GARRISON_TEST_DECISIONS", DEFAULT_DECISIONS))
SEED = os.environ.get("GARRISON_TEST_SEED", "1")
REQUESTS_PER_POLICY = 80
UNNAMED = "(unnamed)"  # what a judge that does not tell its rule says instead


@dataclass(frozen=True)
class Round:
    """A policy that compiled, the requests for it, and what is to be said of each."""

    case: Case
    rules: Mapping[str, Rules]
    requests: Sequence[Request]
    expected: Sequence[Decision]  # by pycasbin; the rule is the explanation's

    @property
    def asks_addresses(self) -> bool:
        """Tell whether the model asks for addresses, which garrison-proxy refuses."""
        return "ipMatch" in self.case.sources.model.text


Judge = Callable[[Sequence[Round]], Iterable[Sequence[Decision | None]]]


def rounds(random: Random, decisions: int) -> Iterator[Round]:
    """Make policies and requests until there are `decisions` that every judge can make."""
    made, compiled_rounds, refused = 0, 0, 0
    while made < decisions:
        case = generate(random)
        try:
            compiled = compile_authorization(case.sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)
        except AuthorizationRefusedError:
            refused += 1
            continue
        rules = {service: compiled.rules(service) for service in SERVICES}
        requests = [case.request(random) for _ in range(REQUESTS_PER_POLICY)]
        oracle = Oracle.whole(compiled.compilation)
        expected = [_expected(case, compiled, oracle, request) for request in requests]
        each = Round(case, rules, requests, expected)
        yield each
        compiled_rounds += 1
        made += 0 if each.asks_addresses else len(requests)
    # The generator must stay inside of the dialect, or it tests little.
    assert refused <= compiled_rounds


def _expected(case: Case, compiled: Compiled, oracle: Oracle, request: Request) -> Decision:
    """Ask pycasbin, and who explains the decision, who must not think otherwise."""
    allowed = oracle.allows(request)
    explanation = compiled.explain(request)
    assert explanation.allowed == allowed, _context(case, request, allowed, explanation)
    return Decision(allowed, explanation.rule)


def hold_against_casbin(judge: Judge, made: Sequence[Round]) -> int:
    """Compare a judge's answers with pycasbin's; return how many there were."""
    answered = 0
    for each, decisions in zip(made, judge(made), strict=True):
        for request, decision, expected in zip(
            each.requests, decisions, each.expected, strict=True
        ):
            if decision is None:
                continue
            answered += 1
            same = decision == expected or decision == Decision(expected.allowed, UNNAMED)
            assert same, _context(each.case, request, decision, expected)
    return answered


def _context(case: Case, *what: object) -> str:
    sources = (case.sources.model, *case.sources.policies)
    return "\n".join(
        (f"GARRISON_TEST_SEED={SEED}", *map(str, what), *(source.text for source in sources))
    )
