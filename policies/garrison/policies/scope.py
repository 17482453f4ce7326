"""Who gets what: the authorization graph says whom an identity may call; it learns of no others.

A service is in an identity's scope if some line allows it to call, in some way, what the service's
routes lead to. The versions and backends that those routes name come with it: a reference that does
not resolve is a broken configuration, and each destination's own rules still decide there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from garrison.authz import Compiled
from garrison.policies.mesh import Mesh
from garrison.policies.resources.fields import Name


@dataclass(frozen=True, slots=True)
class Scope:
    """What one identity may know of: `hosts` it can name, `clusters` their routes lead to."""

    hosts: tuple[Name, ...] = ()
    clusters: tuple[Name, ...] = ()


def scopes_of(mesh: Mesh, authorization: Compiled) -> Mapping[str, Scope]:
    """Return the scope of each identity (`namespace/account`) that may call anything."""
    hosts: dict[str, list[Name]] = {}
    callers = {
        name: authorization.callers(str(name))
        for name, service in mesh.services.items()
        if service.is_carried and not service.is_version
    }
    for name in sorted(callers):
        ends = mesh.destinations(name)
        allowed = frozenset[str]().union(*(callers[end] for end in ends))
        for caller in allowed:
            hosts.setdefault(caller, []).append(name)
    return {caller: Scope(tuple(names), _clusters(mesh, names)) for caller, names in hosts.items()}


def _clusters(mesh: Mesh, hosts: list[Name]) -> tuple[Name, ...]:
    clusters: set[Name] = set()
    for host in hosts:
        rules = mesh.rules.get(host)
        if rules is None:
            clusters.add(host)
        else:
            backends = (backend for rule in rules for backend in rule.backends)
            clusters.update(backend.service for backend in backends if backend.weight)
    return tuple(sorted(clusters))
