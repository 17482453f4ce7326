"""Requests of one seed, compiled and put to pycasbin; a judge then says what it makes of the rules.

A judge gets the rules of every service and the requests for them, and answers for each request
whether it passes, and by which rule.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
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

DECISIONS = int(os.environ.get("GARRISON_TEST_DECISIONS", "100000"))
REQUESTS_PER_POLICY = 60

Judge = Callable[[Mapping[str, Rules], Sequence[Request]], Sequence[Decision]]


@dataclass(frozen=True)
class Round:
    """A policy that compiled, the requests for it, and what pycasbin says of each."""

    case: Case
    compiled: Compiled
    requests: list[Request]
    expected: list[bool]


def as_they_are(request: Request) -> Request:
    """Change nothing."""
    return request


def rounds(
    seed: int,
    decisions: int,
    fits: Callable[[Case], bool] = bool,
    adapt: Callable[[Request], Request] = as_they_are,
) -> Iterator[Round]:
    """Make policies and requests until there are `decisions` to compare."""
    random = Random(seed)
    made, refused = 0, 0
    while made < decisions:
        case = generate(random)
        if not fits(case):
            continue
        try:
            compiled = compile_authorization(case.sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)
        except AuthorizationRefusedError:
            refused += 1
            continue
        requests = [adapt(case.request(random)) for _ in range(REQUESTS_PER_POLICY)]
        oracle = Oracle.whole(compiled.compilation)
        yield Round(case, compiled, requests, [oracle.allows(request) for request in requests])
        made += len(requests)
    # The generator must stay inside of the dialect, or it tests little.
    assert refused * REQUESTS_PER_POLICY < made


def hold_against_casbin(judge: Judge, each: Round, *, names_rules: bool = True) -> None:
    """Compare a judge's answers with pycasbin's, and the rules it names with the explanation's."""
    decisions = judge(rules_of(each), each.requests)
    assert len(decisions) == len(each.requests)
    for request, decision, expected in zip(each.requests, decisions, each.expected, strict=True):
        files = [file.text for file in each.case.sources.policies]
        context = (request, decision, expected, each.case.sources.model.text, *files)
        assert decision.allowed == expected, context
        explanation = each.compiled.explain(request)
        assert explanation.allowed == expected, context
        assert explanation.rule == decision.rule or not names_rules, context


def rules_of(each: Round) -> dict[str, Rules]:
    """Render the rules of every service."""
    return {service: each.compiled.rules(service) for service in SERVICES}
