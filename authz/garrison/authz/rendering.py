"""Lines as Envoy's RBAC policies: the one format that every proxy takes.

What is asked of `src` and `ip` goes into principals, the rest into permissions. A policy grants to
any of its principals any of its permissions; the alternatives of a line that are no such product
become principals that ask for all of it. So each line is one policy, named `file:line`. Paths are
`url_path`, which has no query, never the header `:path`.

Two things are denied on doubt. An expression is not asked about a header's value that is not
printable ASCII, of which engines differ: lines that deny take it for true, lines that allow for
false. And Envoy does not bring paths into canonical form as garrison-proxy does: it leaves the
`%40` of `/%40admin`, which an application reads as `/@admin`. So where lines ask for anything that
such a spelling can hide, one more policy denies it (`spelling`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from envoy.config.core.v3.address_pb2 import CidrRange
from envoy.config.rbac.v3.rbac_pb2 import RBAC, Permission, Policy, Principal
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.type.matcher.v3.path_pb2 import PathMatcher
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from garrison.authz.disjunction import Conjunction, Disjunction
from garrison.authz.predicates import Literal, Methods, Names, Network, Pattern, Predicate
from garrison.authz.principals import spiffe_id
from garrison.authz.schema import (
    CANONICAL_SPELLING,
    METHODS,
    OTHER_METHOD,
    UNAUTHENTICATED,
    Kind,
)

METHOD_HEADER = ":method"

# Read byte by byte by Envoy and by garrison-proxy; a tab is the one control that a value may have.
_NOT_PRINTABLE = r".*[^\t -~].*"

_IN_PRINCIPAL = frozenset((Kind.PRINCIPAL, Kind.ADDRESS))


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders for one trust domain; remembers halves of policies, which many lines share."""

    trust_domain: str
    _principals: dict[Conjunction, Principal] = field(default_factory=dict)
    _permissions: dict[tuple[Conjunction, bool], Permission] = field(default_factory=dict)

    def policy(self, conjunctions: Disjunction, *, allows: bool) -> Policy:
        """Render the alternatives of a line that allows, or of one that denies."""
        whats: dict[Conjunction, list[Conjunction]] = {}
        for conjunction in conjunctions:
            who = tuple(each for each in conjunction if each.field.kind in _IN_PRINCIPAL)
            what = tuple(each for each in conjunction if each.field.kind not in _IN_PRINCIPAL)
            whats.setdefault(what, []).append(who)
        whos = next(iter(whats.values()))
        if all(each == whos for each in whats.values()):
            return Policy(
                permissions=[self._permission(what, allows=allows) for what in whats],
                principals=[self._principal(who) for who in whos],
            )
        alternatives = [
            Principal.Set(ids=[self._principal(who), permission])
            for what, each in whats.items()
            for permission in [_as_principal(self._permission(what, allows=allows))]
            for who in each
        ]
        return Policy(
            permissions=[Permission(any=True)],
            principals=[Principal(and_ids=both) for both in alternatives],
        )

    def _principal(self, literals: Conjunction) -> Principal:
        found = self._principals.get(literals)
        if found is None:
            found = self._principals[literals] = self._all_ids(literals)
        return found

    def _permission(self, literals: Conjunction, *, allows: bool) -> Permission:
        found = self._permissions.get((literals, allows))
        if found is None:
            rules = [_rule(literal, allows=allows) for literal in literals]
            found = self._permissions[literals, allows] = _all_rules(rules)
        return found

    def _all_ids(self, literals: Conjunction) -> Principal:
        identifiers = [self._identifier(literal) for literal in literals]
        if not identifiers:
            return Principal(any=True)
        if len(identifiers) == 1:
            return identifiers[0]
        return Principal(and_ids=Principal.Set(ids=identifiers))

    def _identifier(self, literal: Literal) -> Principal:
        identifier = self._asked(literal.predicate)
        return Principal(not_id=identifier) if literal.negated else identifier

    def _asked(self, predicate: Predicate) -> Principal:
        match predicate:
            case Network(cidr):
                address, _, length = cidr.partition("/")
                network = CidrRange(address_prefix=address)
                network.prefix_len.value = int(length)
                return Principal(direct_remote_ip=network)
            case Names(exact, prefixes):
                return self._one_of(exact, prefixes)
            case Methods() | Pattern():
                raise TypeError(predicate)  # check_expression refuses them for principals

    def _one_of(self, exact: frozenset[str], prefixes: frozenset[str]) -> Principal:
        identifiers = [
            _authenticated(StringMatcher(exact=spiffe_id(name, self.trust_domain)))
            for name in sorted(exact)
            if name != UNAUTHENTICATED
        ]
        identifiers += [
            _authenticated(StringMatcher(prefix=spiffe_id(prefix, self.trust_domain)))
            for prefix in sorted(prefixes)
        ]
        if UNAUTHENTICATED in exact:
            identifiers.append(Principal(not_id=_authenticated(StringMatcher(prefix="spiffe://"))))
        if not identifiers:
            return Principal(not_id=Principal(any=True))
        if len(identifiers) == 1:
            return identifiers[0]
        return Principal(or_ids=Principal.Set(ids=identifiers))


def filter_rules(action: "RBAC.Action", policies: Iterable[tuple[str, Policy]]) -> RBAC:
    """Gather the policies of one filter under their names."""
    rules = RBAC(action=action)
    for name, policy in policies:
        rules.policies[name].CopyFrom(policy)
    return rules


def misspelt_paths() -> Policy:
    """Match every path that is not spelt as a canonical path is."""
    spelling = StringMatcher(safe_regex=RegexMatcher(regex=CANONICAL_SPELLING))
    canonical = Permission(url_path=PathMatcher(path=spelling))
    return Policy(permissions=[Permission(not_rule=canonical)], principals=[Principal(any=True)])


def _as_principal(permission: Permission) -> Principal:
    """Ask the same as a principal, which may ask for anything that a permission asks for."""
    match permission.WhichOneof("rule"):
        case "and_rules":
            ids = [_as_principal(each) for each in permission.and_rules.rules]
            return Principal(and_ids=Principal.Set(ids=ids))
        case "or_rules":
            ids = [_as_principal(each) for each in permission.or_rules.rules]
            return Principal(or_ids=Principal.Set(ids=ids))
        case "not_rule":
            return Principal(not_id=_as_principal(permission.not_rule))
        case "header":
            return Principal(header=permission.header)
        case "url_path":
            return Principal(url_path=permission.url_path)
        case "any":
            return Principal(any=True)
        case other:
            raise TypeError(other)  # nothing else is rendered


def _authenticated(name: StringMatcher) -> Principal:
    return Principal(authenticated=Principal.Authenticated(principal_name=name))


def _all_rules(rules: Iterable[Permission]) -> Permission:
    every = list(rules)
    if not every:
        return Permission(any=True)
    return every[0] if len(every) == 1 else Permission(and_rules=Permission.Set(rules=every))


def _any_rule(rules: list[Permission]) -> Permission:
    if not rules:
        return Permission(not_rule=Permission(any=True))
    return rules[0] if len(rules) == 1 else Permission(or_rules=Permission.Set(rules=rules))


def _rule(literal: Literal, *, allows: bool) -> Permission:
    match literal.field.kind, literal.predicate:
        case Kind.METHOD, Methods(members):
            return _methods(members)
        case Kind.PATH, predicate:
            rule = _any_rule(
                [Permission(url_path=PathMatcher(path=each)) for each in _strings(predicate)]
            )
        case Kind.HEADER, predicate:
            rule = _header(literal.field.header, predicate)
        case _:
            raise TypeError(literal)  # a destination's rules do not ask who it is
    if literal.negated:
        rule = Permission(not_rule=rule)
    if literal.field.kind is Kind.HEADER and isinstance(literal.predicate, Pattern):
        return _guarded(rule, literal.field.header, allows=allows)
    return rule


def _guarded(rule: Permission, header: str, *, allows: bool) -> Permission:
    """Settle for the worse where a value is not of the characters that expressions are about."""
    strange = StringMatcher(safe_regex=RegexMatcher(regex=_NOT_PRINTABLE))
    is_strange = Permission(header=HeaderMatcher(name=header, string_match=strange))
    if allows:
        return _all_rules([rule, Permission(not_rule=is_strange)])
    return _any_rule([rule, is_strange])


@cache
def _methods(members: frozenset[str]) -> Permission:
    """Ask for known methods by name, and for the unknown by asking for none of the others."""
    if OTHER_METHOD in members:
        return Permission(not_rule=_methods(METHODS - members))
    return _any_rule(
        [
            Permission(
                header=HeaderMatcher(name=METHOD_HEADER, string_match=StringMatcher(exact=name))
            )
            for name in sorted(members)
        ]
    )


def _header(name: str, predicate: Predicate) -> Permission:
    """Ask for a header; one that is absent is the empty string."""
    rules = [
        Permission(header=HeaderMatcher(name=name, string_match=each))
        for each in _strings(predicate)
    ]
    if predicate.holds(""):
        present = Permission(header=HeaderMatcher(name=name, present_match=True))
        rules.append(Permission(not_rule=present))
    return _any_rule(rules)


def _strings(predicate: Predicate) -> list[StringMatcher]:
    match predicate:
        case Names(exact, prefixes):
            matchers = [StringMatcher(exact=text) for text in sorted(exact)]
            return matchers + [StringMatcher(prefix=text) for text in sorted(prefixes)]
        case Pattern(regex, _, _):
            return [StringMatcher(safe_regex=RegexMatcher(regex=regex))]
        case Methods() | Network():
            raise TypeError(predicate)  # these are no tests of text
