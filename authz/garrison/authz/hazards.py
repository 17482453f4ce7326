"""What every Casbin engine accepts and nobody means: lines and links that silently do nothing.

Each is an error with a code and a remedy. A column is judged by what the matcher holds it against:
`shopfront` is fine where `g(r.src, p.src)` asks for a role, and a mistake where only a name is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from garrison.authz.check import Use
from garrison.authz.errors import RefusedError, Report
from garrison.authz.model import Effect
from garrison.authz.partial import Known, compile_predicate
from garrison.authz.policy import SHIPPED_GROUPS, SHIPPED_RELATION, PolicyLine, RoleLine
from garrison.authz.predicates import Names, Pattern, Predicate
from garrison.authz.principals import domain_of, is_principal, is_principal_prefix, is_role
from garrison.authz.roles import Roles
from garrison.authz.schema import (
    METHODS,
    UNAUTHENTICATED,
    Field,
    Kind,
    is_canonical,
    is_path_text,
)
from garrison.authz.sources import Place, Text
from garrison.authz.syntax import Constant, PolicyValue


@dataclass(frozen=True, slots=True)
class UseGroup:
    """A column or a constant, with all the functions by which it is held against one field."""

    field: Field
    value: PolicyValue | Constant
    functions: frozenset[str]

    @classmethod
    def of(cls, uses: Iterable[Use]) -> "tuple[UseGroup, ...]":
        """Group what an expression uses."""
        grouped: dict[tuple[Field, str, bool], tuple[PolicyValue | Constant, set[str]]] = {}
        for use in uses:
            name = use.value.text if isinstance(use.value, Constant) else use.value.name
            key = (use.field, name, isinstance(use.value, Constant))
            grouped.setdefault(key, (use.value, set()))[1].add(use.function)
        return tuple(
            cls(of, value, frozenset(functions))
            for (of, _, _), (value, functions) in grouped.items()
        )

    def text(self, columns: Mapping[str, Text]) -> str:
        """Read the value in a line."""
        value = self.value
        return value.text if isinstance(value, Constant) else columns[value.name].value

    def place(self, columns: Mapping[str, Text]) -> Place:
        """Find the value in a line, or in the matcher."""
        value = self.value
        return value.place if isinstance(value, Constant) else columns[value.name].place(0)


@dataclass(frozen=True, slots=True)
class Hazards:
    """Looks for hazards; knows the roles, and the trust domain that names leave out."""

    roles: Mapping[str, Roles]
    trust_domain: str
    report: Report
    _passed: set[tuple[Field, str, frozenset[str]]] = field(default_factory=set)

    def check_line(self, line: PolicyLine, groups: Iterable[UseGroup], effect: Effect) -> None:
        """Look at each column of a line."""
        if not line.allows and effect is Effect.ALLOW_OVERRIDE:
            self.report.refuse(
                "line-deny-ignored",
                line.place,
                "the model's effect ignores lines that deny",
                f"write `e = {Effect.ALLOW_AND_DENY.value}` in the model",
            )
        for group in groups:
            text = group.text(line.columns)
            key = (group.field, text, group.functions)
            if key in self._passed:
                continue
            try:
                known = Known(text, group.place(line.columns))
                self._check(group.field, known, group.functions)
                self._passed.add(key)
            except RefusedError as refused:
                self.report.note(refused)

    def _check(self, of: Field, known: Known, functions: frozenset[str]) -> None:
        match of.kind:
            case Kind.PRINCIPAL:
                self._check_principal(known, functions)
            case Kind.METHOD:
                self._check_method(known, functions)
            case Kind.PATH:
                if functions.isdisjoint(self.roles):
                    _check_path(known, functions)
            case Kind.DESTINATION | Kind.HEADER | Kind.HEADERS | Kind.ADDRESS:
                pass

    def _check_principal(self, known: Known, functions: frozenset[str]) -> None:
        text = known.text
        if text == "*":
            raise RefusedError(
                "principal-any",
                known.place,
                f"* means everybody, {UNAUTHENTICATED} too",
                "name a role, or namespaces: bookstore/*",
            )
        if "*" in text:
            self._check_prefix(known, functions)
        elif "/" in text:
            self._check_name(known)
        elif text != UNAUTHENTICATED:
            self._check_role(known, functions)

    def _check_prefix(self, known: Known, functions: frozenset[str]) -> None:
        prefix, _, rest = known.text.partition("*")
        if rest or not is_principal_prefix(prefix) or "keyMatch" not in functions:
            raise RefusedError(
                "principal-pattern",
                known.place,
                f"{known.text!r} covers no principal here",
                "write namespace/* or namespace/prefix*, where the matcher asks keyMatch",
            )
        self._check_domain(known)

    def _check_name(self, known: Known) -> None:
        if not is_principal(known.text):
            raise RefusedError(
                "principal-malformed",
                known.place,
                f"no principal is called {known.text!r}",
                "write namespace/account, or trust.domain//namespace/account",
            )
        self._check_domain(known)

    def _check_domain(self, known: Known) -> None:
        if domain_of(known.text) == self.trust_domain:
            raise RefusedError(
                "principal-domain",
                known.place,
                f"{self.trust_domain} is this mesh, whose principals are written without it",
                f"write {known.text.partition('//')[2]}",
            )

    def _check_role(self, known: Known, functions: frozenset[str]) -> None:
        relations = [self.roles[name] for name in functions if name in self.roles]
        if not any(_has_members(roles, known.text) for roles in relations):
            raise RefusedError(
                "role-unknown",
                known.place,
                f"nobody has the role {known.text!r}, and no principal is called so",
                f"link a principal to it: g, namespace/account, {known.text or 'role'}",
            )

    def _check_method(self, known: Known, functions: frozenset[str]) -> None:
        text = known.text
        for function in functions:
            if function in self.roles:
                roles = self.roles[function]
                domains = roles.domains or ("",)
                found = any(_names_method(roles.members(text, each)) for each in domains)
            else:
                found = _names_method(compile_predicate(function, text, known.place))
            if found:
                return
        groups = ", ".join(sorted(SHIPPED_GROUPS))
        raise RefusedError(
            "method-unknown",
            known.place,
            f"{text!r} is no method and no group of methods",
            f"write {', '.join(sorted(METHODS))}, or a group: {groups}",
        )

    def check_link(self, link: RoleLine, fields: set[Field]) -> None:
        """Look at a line of a role definition, given the fields that it is asked of."""
        try:
            self._check_link(link, fields)
        except RefusedError as refused:
            self.report.note(refused)

    def _check_link(self, link: RoleLine, fields: set[Field]) -> None:
        kinds = {each.kind for each in fields}
        member, role = (Known(text.value, text.place(0)) for text in link.values[:2])
        if not kinds:
            raise RefusedError(
                "role-unused",
                link.place,
                f"the matcher never asks {link.relation}",
                f"ask {link.relation}(r.src, p.src) in the matcher, or drop the line",
            )
        if Kind.PRINCIPAL in kinds:
            self._check_principal_link(link, member, role)
        elif "*" in member.text + role.text:
            raise RefusedError(
                "role-pattern",
                link.place,
                "only the principal of a link may be a pattern",
                "link each name",
            )
        if Kind.METHOD in kinds:
            self._check_method_link(link, member, role)

    def _check_principal_link(self, link: RoleLine, member: Known, role: Known) -> None:
        if not is_role(role.text):
            raise RefusedError(
                "role-principal" if "/" in role.text else "role-malformed",
                role.place,
                f"{role.text!r} stands for a role, but it is not one word",
                "write the principal first and its role second; a role has no slash",
            )
        if member.text.endswith("*") and len(link.values) > 2:  # noqa: PLR2004 - has a domain
            raise RefusedError(
                "role-pattern",
                member.place,
                "a pattern cannot have a role within a domain",
                "link each principal",
            )
        self._check_principal(member, frozenset((link.relation, "keyMatch")))

    def _check_method_link(self, link: RoleLine, member: Known, group: Known) -> None:
        if group.text in METHODS or not is_role(group.text):
            raise RefusedError(
                "method-group",
                group.place,
                f"{group.text!r} cannot name a group of methods",
                "write the method first and its group second, in a word of its own",
            )
        if link.relation == SHIPPED_RELATION and group.text in SHIPPED_GROUPS:
            if not link.place.file.startswith("garrison:"):
                raise RefusedError(
                    "method-group-shipped",
                    group.place,
                    f"the group {group.text} comes with garrison and means the same everywhere",
                    "make a group of your own that contains it",
                )
            return
        self._check_method(member, frozenset((link.relation,)))


def _has_members(roles: Roles, role: str) -> bool:
    for domain in roles.domains:
        members = roles.members(role, domain)
        if members.prefixes or any(name for name in members.exact if _is_member(name, role)):
            return True
    return False


def _is_member(name: str, role: str) -> bool:
    return name != role and ("/" in name or name == UNAUTHENTICATED)


def _names_method(predicate: Predicate) -> bool:
    return any(map(predicate.holds, METHODS))


def _check_path(known: Known, functions: frozenset[str]) -> None:
    predicates = [compile_predicate(function, known.text, known.place) for function in functions]
    if "regexMatch" not in functions and not any(map(_is_reachable, predicates)):
        raise RefusedError(
            "path-unreachable",
            known.place,
            f"no request has a path like {known.text!r}",
            "write it as it arrives: from the root, no query, // or dot segments, %XX upper case",
        )


def _is_reachable(predicate: Predicate) -> bool:
    match predicate:
        case Names(exact, prefixes):
            return any(map(is_canonical, exact)) or any(map(_is_path_prefix, prefixes))
        case Pattern(samples=samples):
            return any(map(is_canonical, samples))
        case _:
            return False


def _is_path_prefix(prefix: str) -> bool:
    return not prefix or (prefix.startswith("/") and is_path_text(prefix))
