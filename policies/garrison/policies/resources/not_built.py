"""Fields of Gateway API that are known and not built: refused by name, with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from garrison.policies.resources.documents import Path

_NOT_BUILT: Mapping[tuple[str, str], str] = {
    ("HTTPRoute", "spec.hostnames"): "remove it: a service's own names are matched",
    ("HTTPRoute", "spec.parentRefs.sectionName"): "remove it: a service has one port",
    ("HTTPRoute", "spec.rules.filters"): "do it in the application",
    ("HTTPRoute", "spec.rules.backendRefs.filters"): "do it in the application",
    ("HTTPRoute", "spec.rules.sessionPersistence"): "keep sessions where any instance finds them",
    ("HTTPRoute", "status"): "remove it: it is Kubernetes' to write",
    ("Service", "spec.ports"): "give the one port as spec.port and its protocol as spec.protocol",
    ("Service", "spec.selector"): "list spec.endpoints",
}


def remedy_of_unknown(kind: str, path: Path) -> tuple[str, str]:
    """Return the reason and the remedy for a field that a kind does not have."""
    name = ".".join(part for part in path if isinstance(part, str))
    remedy = _NOT_BUILT.get((kind, name))
    if remedy:
        return "is not built", remedy
    return f"is no field of {kind}", "remove it, or correct its spelling"
