"""From sources to disjunctions: a model and its policy, read, checked and reduced by the line."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from garrison.authz.check import check_expression, leaves, uses
from garrison.authz.disjunction import FALSE, Disjunction
from garrison.authz.errors import RefusedError, Report
from garrison.authz.hazards import Hazards, UseGroup
from garrison.authz.matcher import Names, parse_matcher
from garrison.authz.model import Model, parse_model
from garrison.authz.partial import Bound, PartialEvaluator
from garrison.authz.policy import (
    METHOD_GROUPS,
    SHIPPED_RELATION,
    Policy,
    PolicyLine,
    RoleLine,
    parse_policy,
)
from garrison.authz.roles import Roles
from garrison.authz.schema import METHOD, Field
from garrison.authz.sources import AuthorizationSources, Place, SourceFile
from garrison.authz.syntax import Expression, Inlined


@dataclass(frozen=True, slots=True)
class CompiledLine:
    """A policy line and what is left of the matcher for it."""

    line: PolicyLine
    disjunction: Disjunction


@dataclass(frozen=True, slots=True)
class Compilation:
    """Everything that was read, and every line reduced; `files` are what Casbin must be given."""

    model: Model
    matcher: Expression
    files: tuple[SourceFile, ...]
    lines: tuple[CompiledLine, ...]
    links: tuple[RoleLine, ...]

    @property
    def patterned(self) -> frozenset[str]:
        """Name the relations that link patterns."""
        return frozenset(link.relation for link in self.links if link.values[0].value.endswith("*"))


@dataclass(frozen=True, slots=True)
class _Matcher:
    """The matcher, the names in it, and the rules that lines bring along for its `eval`."""

    expression: Expression
    names: Names
    relations: Mapping[str, int]
    inlined: tuple[Inlined, ...]

    def rules_of(self, line: PolicyLine) -> dict[str, Expression]:
        rules: dict[str, Expression] = {}
        for each in self.inlined:
            text = line.columns[each.column.name]
            rule = parse_matcher(text, self.names)
            check_expression(rule, self.relations)
            if any(isinstance(leaf, Inlined) for leaf in leaves(rule)):
                raise RefusedError(
                    "matcher-eval",
                    text.place(0),
                    "a rule that eval brings in cannot use eval itself",
                    "write what it would bring in",
                )
            rules[each.column.name] = rule
        return rules


def compile_sources(sources: AuthorizationSources, trust_domain: str) -> Compilation:
    """Compile every line; raises AuthorizationRefusedError with every mistake."""
    model = parse_model(sources.model)
    report = Report()
    matcher = _matcher(model, report)
    policy = parse_policy(model, sources.policies, report)
    if not policy.lines and not report.diagnostics:
        report.refuse(
            "policy-empty",
            Place(sources.policies[0].path if sources.policies else sources.model.path, 1),
            "there is no policy line, and Casbin then asks the matcher once with empty columns",
            "write at least one line, p, allow, …",
        )
    report.settle()
    rules = _rules(matcher, policy, report)
    asked = _asked(matcher, rules)
    files = sources.policies
    if METHOD in asked.get(SHIPPED_RELATION, ()) and model.roles[SHIPPED_RELATION] == _PAIR:
        files = (METHOD_GROUPS, *files)
        shipped = parse_policy(model, (METHOD_GROUPS,), report)
        policy = Policy(policy.lines, (*shipped.roles, *policy.roles))
    roles = _roles(model, policy)
    hazards = Hazards(roles, trust_domain, report)
    for link in policy.roles:
        hazards.check_link(link, asked.get(link.relation, set()))
    lines = _lines(matcher, policy, rules, hazards, model)
    report.settle()
    return Compilation(model, matcher.expression, files, lines, policy.roles)


_PAIR = 2


def _matcher(model: Model, report: Report) -> _Matcher:
    names = Names(model.request, model.policy)
    try:
        expression = parse_matcher(model.matcher, names)
        check_expression(expression, model.roles)
    except RefusedError as refused:
        report.note(refused)
        report.settle()
        raise
    inlined = tuple(leaf for leaf in leaves(expression) if isinstance(leaf, Inlined))
    return _Matcher(expression, names, model.roles, inlined)


_Rules = dict[Place, dict[str, Expression]]


def _rules(matcher: _Matcher, policy: Policy, report: Report) -> _Rules:
    rules: _Rules = {}
    for line in policy.lines if matcher.inlined else ():
        try:
            rules[line.place] = matcher.rules_of(line)
        except RefusedError as refused:
            report.note(refused)
    report.settle()
    return rules


def _asked(matcher: _Matcher, rules: _Rules) -> dict[str, set[Field]]:
    """Find which relation is asked of which fields."""
    asked: dict[str, set[Field]] = defaultdict(set)
    expressions = [matcher.expression]
    expressions += [rule for each in rules.values() for rule in each.values()]
    for expression in expressions:
        for use in uses(expression):
            asked[use.function].add(use.field)
    return asked


def _roles(model: Model, policy: Policy) -> dict[str, Roles]:
    return {
        relation: Roles.of(link for link in policy.roles if link.relation == relation)
        for relation in model.roles
    }


def _lines(
    matcher: _Matcher, policy: Policy, rules: _Rules, hazards: Hazards, model: Model
) -> tuple[CompiledLine, ...]:
    evaluator = PartialEvaluator(hazards.roles)
    shared = UseGroup.of(uses(matcher.expression))
    compiled: list[CompiledLine] = []
    for line in policy.lines:
        inlined = rules.get(line.place, {})
        groups = shared
        if inlined:
            every = [matcher.expression, *inlined.values()]
            groups = UseGroup.of(use for each in every for use in uses(each))
        known = len(hazards.report.diagnostics)
        hazards.check_line(line, groups, model.effect)
        if len(hazards.report.diagnostics) > known:
            continue
        try:
            bound = Bound(line.columns, inlined, line.place)
            disjunction = evaluator.evaluate(matcher.expression, bound)
        except RefusedError as refused:
            hazards.report.note(refused)
            continue
        if disjunction == FALSE and not hazards.report.diagnostics:
            hazards.report.refuse(
                "line-never",
                line.place,
                "no request can match this line",
                "correct it, or leave it out",
            )
        compiled.append(CompiledLine(line, disjunction))
    return tuple(compiled)
