"""Before publication the compiled rules are put to pycasbin, and a disagreement refuses them."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from envoy.config.rbac.v3.rbac_pb2 import RBAC

from garrison.authz import (
    AuthorizationRefusedError,
    Compiled,
    DisagreementError,
    Rules,
    check_against_casbin,
    compile_authorization,
)
from tests.authz.generator import PRINCIPALS, SERVICES, TRUST_DOMAIN, generate
from tests.authz.sources import POLICY, compiled
from tests.authz.test_compiled import compile_large

AMPLE = timedelta(seconds=60)


class Tampered(Compiled):
    """Compiled rules in which a defect has crept."""

    def __init__(self, original: Compiled, line: str, effect: str) -> None:
        """Drop the rule of `line` from one of the filters."""
        super().__init__(
            original.compilation,
            original.trust_domain,
            original.destinations,
            original.principals.names,
        )
        self._line = line
        self._effect = effect

    def rules(self, destination: str) -> Rules:
        """Render all rules but one."""
        whole = super().rules(destination)
        rules = whole.deny if self._effect == "deny" else whole.allow
        rules.policies.pop(self._line, None)
        return whole


def test_every_line_has_a_witness_that_it_decides() -> None:
    coverage = check_against_casbin(compiled(), AMPLE)
    assert coverage.is_complete
    assert coverage.lines == coverage.lines_reached == 4
    assert coverage.places == coverage.places_checked == coverage.decisive == 6
    assert coverage.requests > 6 * 3


@pytest.mark.parametrize(
    ("line", "effect"),
    [("authz/a.csv:2", "allow"), ("authz/a.csv:4", "allow"), ("authz/a.csv:5", "deny")],
)
def test_rule_that_the_compiler_lost_is_noticed(line: str, effect: str) -> None:
    policy = POLICY + "p, allow, ops/*, payments/ledger, read, /*\n"
    with pytest.raises(DisagreementError) as refused:
        check_against_casbin(Tampered(compiled(policy), line, effect), AMPLE)
    assert refused.value.request.dst in str(refused.value)
    assert refused.value.rule.startswith("authz/a.csv:")


def test_rule_that_allows_too_much_is_noticed() -> None:
    class Wide(Compiled):
        def rules(self, destination: str) -> Rules:
            whole = super().rules(destination)
            for policy in whole.allow.policies.values():
                del policy.permissions[:]
                policy.permissions.add(any=True)
            return Rules(RBAC(action=RBAC.DENY), whole.allow)

    original = compiled()
    wide = Wide(
        original.compilation,
        original.trust_domain,
        original.destinations,
        original.principals.names,
    )
    with pytest.raises(DisagreementError, match="casbin denies and the compiled rules allow"):
        check_against_casbin(wide, AMPLE)


def test_time_is_bounded_and_what_was_left_is_told() -> None:
    rules = compile_large(300, 60)
    ticks = iter(range(1_000_000))
    coverage = check_against_casbin(rules, timedelta(seconds=200), lambda: float(next(ticks)))
    assert 0 < coverage.requests <= 200
    assert 0 < coverage.lines_reached < coverage.lines
    assert not coverage.is_complete


def test_every_line_is_reached_before_any_is_taken_everywhere() -> None:
    rules = compile_large(300, 60)
    ticks = iter(range(1_000_000))
    coverage = check_against_casbin(rules, timedelta(seconds=500), lambda: float(next(ticks)))
    assert coverage.lines == coverage.lines_reached == 300
    assert coverage.places_checked < coverage.places


def test_loss_is_noticed_as_lines_are_reached() -> None:
    rules = compile_large(300, 60)
    last = rules.compilation.lines[-1].line.rule
    ticks = iter(range(1_000_000))
    with pytest.raises(DisagreementError):
        check_against_casbin(
            Tampered(rules, last, "allow"), timedelta(seconds=500), lambda: float(next(ticks))
        )


def test_no_time_at_all_checks_nothing() -> None:
    coverage = check_against_casbin(compiled(), timedelta(0))
    assert (coverage.requests, coverage.is_complete) == (0, False)


def test_generated_policies_pass() -> None:
    random = Random(5)
    passed, decisive, lines = 0, 0, 0
    while passed < 25:
        case = generate(random)
        try:
            rules = compile_authorization(case.sources, TRUST_DOMAIN, SERVICES, PRINCIPALS)
        except AuthorizationRefusedError:
            continue
        coverage = check_against_casbin(rules, AMPLE)
        assert coverage.is_complete
        decisive, lines, passed = decisive + coverage.decisive, lines + coverage.places, passed + 1
    # The others are shadowed by other lines, or by a deny line.
    assert decisive > lines * 0.4
