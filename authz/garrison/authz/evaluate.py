"""Decide a request by RBAC messages, in Python: the reference for what proxies do with them.

Reads the messages that are published, not what they were made from, and refuses what rendering
never writes, so that it and the proxies cannot agree by ignoring the same field.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

from envoy.config.rbac.v3.rbac_pb2 import RBAC, Permission, Principal
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.type.matcher.v3.path_pb2 import PathMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from garrison.authz.principals import spiffe_id
from garrison.authz.rendering import METHOD_HEADER
from garrison.authz.schema import UNAUTHENTICATED, Request

_RULE: Final = re.compile(r"(?P<file>.*):(?P<line>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Attributes:
    """A request as a proxy's RBAC filter reads it."""

    uri: str | None
    path: str
    headers: Mapping[str, str]
    ip: str

    @classmethod
    def of(cls, request: Request, trust_domain: str) -> "Attributes":
        """Translate a request as authorization sees it."""
        nobody = request.src == UNAUTHENTICATED
        return cls(
            None if nobody else spiffe_id(request.src, trust_domain),
            request.path,
            {**request.headers, METHOD_HEADER: request.method},
            request.ip,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request passes, and the rule that said so; none if no rule did."""

    allowed: bool
    rule: str | None


_Test: TypeAlias = Callable[[Attributes], bool]
_Text: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The two filters of a destination, ready to decide."""

    deny: tuple[tuple[str, _Test], ...]
    allow: tuple[tuple[str, _Test], ...]

    @classmethod
    def of(cls, deny: RBAC, allow: RBAC) -> "RuleSet":
        """Read two filters; raises ValueError at what rendering never writes."""
        if deny.action != RBAC.DENY or allow.action != RBAC.ALLOW:
            raise ValueError("a filter that denies and one that allows are needed")
        return cls(_policies(deny), _policies(allow))

    def decide(self, attributes: Attributes) -> Decision:
        """Ask the denying filter, then the allowing one; what neither knows is denied."""
        for name, test in self.deny:
            if test(attributes):
                return Decision(allowed=False, rule=name)
        for name, test in self.allow:
            if test(attributes):
                return Decision(allowed=True, rule=name)
        return Decision(allowed=False, rule=None)


def _policies(rules: RBAC) -> tuple[tuple[str, _Test], ...]:
    return tuple(
        (name, _all([_any_permission(policy.permissions), _any_principal(policy.principals)]))
        for name, policy in sorted(rules.policies.items(), key=lambda item: _order(item[0]))
    )


def _order(name: str) -> tuple[str, int]:
    found = _RULE.fullmatch(name)
    return (found["file"], int(found["line"])) if found else (name, 0)


def _all(tests: list[_Test]) -> _Test:
    return lambda attributes: all(test(attributes) for test in tests)


def _any(tests: list[_Test]) -> _Test:
    return lambda attributes: any(test(attributes) for test in tests)


def _not(test: _Test) -> _Test:
    return lambda attributes: not test(attributes)


def _any_permission(rules: Iterable[Permission]) -> _Test:
    return _any([_permission(rule) for rule in rules])


def _any_principal(identifiers: Iterable[Principal]) -> _Test:
    return _any([_principal(identifier) for identifier in identifiers])


def _permission(rule: Permission) -> _Test:
    name = rule.WhichOneof("rule")
    if name not in _PERMISSIONS:
        raise ValueError(f"Permission.{name}")
    return _PERMISSIONS[name](rule)


def _principal(identifier: Principal) -> _Test:
    name = identifier.WhichOneof("identifier")
    if name not in _PRINCIPALS:
        raise ValueError(f"Principal.{name}")
    return _PRINCIPALS[name](identifier)


def _authenticated(identifier: Principal) -> _Test:
    text = _string(identifier.authenticated.principal_name)
    return lambda attributes: attributes.uri is not None and text(attributes.uri)


def _remote_ip(identifier: Principal) -> _Test:
    cidr = identifier.direct_remote_ip
    network = ip_network(f"{cidr.address_prefix}/{cidr.prefix_len.value}")
    return lambda attributes: ip_address(attributes.ip) in network


def _path(matcher: PathMatcher) -> _Test:
    text = _string(matcher.path)
    return lambda attributes: text(attributes.path)


def _header(matcher: HeaderMatcher) -> _Test:
    name = matcher.name
    match matcher.WhichOneof("header_match_specifier"):
        case "present_match" if matcher.present_match:
            return lambda attributes: name in attributes.headers
        case "string_match":
            text = _string(matcher.string_match)
            return lambda attributes: name in attributes.headers and text(attributes.headers[name])
        case other:
            raise ValueError(f"HeaderMatcher.{other}")


_PERMISSIONS: Final[dict[str | None, Callable[[Permission], _Test]]] = {
    "any": lambda _rule: lambda _attributes: True,
    "and_rules": lambda rule: _all([_permission(each) for each in rule.and_rules.rules]),
    "or_rules": lambda rule: _any_permission(rule.or_rules.rules),
    "not_rule": lambda rule: _not(_permission(rule.not_rule)),
    "header": lambda rule: _header(rule.header),
    "url_path": lambda rule: _path(rule.url_path),
}
_PRINCIPALS: Final[dict[str | None, Callable[[Principal], _Test]]] = {
    "any": lambda _identifier: lambda _attributes: True,
    "and_ids": lambda identifier: _all([_principal(each) for each in identifier.and_ids.ids]),
    "or_ids": lambda identifier: _any_principal(identifier.or_ids.ids),
    "not_id": lambda identifier: _not(_principal(identifier.not_id)),
    "header": lambda identifier: _header(identifier.header),
    "url_path": lambda identifier: _path(identifier.url_path),
    "authenticated": _authenticated,
    "direct_remote_ip": _remote_ip,
}


def _string(matcher: StringMatcher) -> _Text:
    match matcher.WhichOneof("match_pattern"):
        case "exact":
            exact = matcher.exact
            return lambda text: text == exact
        case "prefix":
            prefix = matcher.prefix
            return lambda text: text.startswith(prefix)
        case "safe_regex":
            regex = _compiled(matcher.safe_regex.regex)
            return lambda text: regex.fullmatch(text) is not None
        case other:
            raise ValueError(f"StringMatcher.{other}")


@lru_cache(maxsize=4_096)
def _compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex, re.ASCII)
