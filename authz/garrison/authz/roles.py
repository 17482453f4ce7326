"""Roles: who has them, by links that are followed as far as Casbin follows them.

A pattern may stand in the first column of a two-column relation over principals: `bookstore/*`. It
is a convention of garrison's, not of Casbin's files; with the same function registered pycasbin
agrees, as long as patterns stand nowhere else and end in `*`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from garrison.authz.policy import RoleLine
from garrison.authz.predicates import Names

MAX_HOPS: Final = 9


@dataclass(slots=True)
class Roles:
    """The links of one relation, of each domain where it has domains (else of the domain "")."""

    _members: dict[str, dict[str, set[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )
    _closures: dict[tuple[str, str], Names] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[RoleLine]) -> "Roles":
        """Gather the links of one relation."""
        roles = cls()
        for line in lines:
            member, role, *domain = (value.value for value in line.values)
            roles._members["".join(domain)][role].add(member)
        return roles

    @property
    def domains(self) -> tuple[str, ...]:
        """List the domains in which anything is linked."""
        return tuple(self._members)

    def members(self, role: str, domain: str = "") -> Names:
        """Collect every name that has `role` by at most nine links; the role's own name does."""
        found = self._closures.get((role, domain))
        if found is None:
            found = self._closures[role, domain] = self._closure(role, domain)
        return found

    def _closure(self, role: str, domain: str) -> Names:
        links = self._members.get(domain, {})
        reached, frontier = {role}, {role}
        for _ in range(MAX_HOPS):
            frontier = {name for each in frontier for name in links.get(each, ())} - reached
            if not frontier:
                break
            reached |= frontier
        # Asked for by its own text, as `g(r.src, p.src)` may do, a pattern is a mere name.
        patterns = {name for name in reached - {role} if name.endswith("*")}
        return Names(frozenset(reached - patterns), frozenset(pattern[:-1] for pattern in patterns))
