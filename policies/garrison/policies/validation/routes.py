"""Routes: parents and backends that exist and speak HTTP, no two rules in conflict."""

from __future__ import annotations

from dataclasses import dataclass, field

from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics, Place
from garrison.policies.resources import HTTPRoute, Path, Placed
from garrison.policies.resources.fields import Name
from garrison.policies.resources.http_route import (
    IDEMPOTENT,
    BackendRef,
    ParentRef,
    RouteMatch,
    Rule,
)


def check_routes(catalogue: Catalogue, diagnostics: Diagnostics) -> None:
    """Find routes that cannot do what they say."""
    checks = _Checks(catalogue, diagnostics)
    for name, route in catalogue.routes.items():
        checks.parents(name, route)
        checks.names(route)
        for index, rule in enumerate(route.value.spec.rules):
            checks.backends(name, route, index)
            checks.retries(route, rule, index)


@dataclass(slots=True)
class _Checks:
    catalogue: Catalogue
    diagnostics: Diagnostics
    matches: dict[tuple[Name, RouteMatch], Place] = field(default_factory=dict)

    def parents(self, name: Name, route: Placed[HTTPRoute]) -> None:
        seen: set[Name] = set()
        for index, ref in enumerate(route.value.spec.parent_refs):
            path: Path = ("spec", "parentRefs", index)
            parent = Name(ref.namespace or name.namespace, ref.name)
            if parent in seen:
                reason = f"{parent} is a parent of this route already"
                self._add(route, (*path, "name"), "route/duplicate-parent", reason, "remove it")
                continue
            seen.add(parent)
            if self._reference(name, route, ref, path):
                service = self.catalogue.services[parent]
                if service.value.spec.version_of is not None:
                    reason = f"{parent} is a version; nobody calls it by that name"
                    remedy = f"name {service.value.spec.version_of}"
                    self._add(route, (*path, "name"), "route/version-parent", reason, remedy)
                self._matches(parent, route)

    def _matches(self, parent: Name, route: Placed[HTTPRoute]) -> None:
        for index, rule in enumerate(route.value.spec.rules):
            for number, match in enumerate(rule.matches):
                place = route.place("spec", "rules", index, "matches", number)
                first = self.matches.setdefault((parent, _canonical(match)), place)
                if first is not place:
                    self.diagnostics.add(
                        place,
                        "route/conflict",
                        f"matches the same requests to {parent} as {first} ({first.field})",
                        "keep one of the two, or let them match different requests",
                    )

    def names(self, route: Placed[HTTPRoute]) -> None:
        names: dict[str, int] = {}
        for index, rule in enumerate(route.value.spec.rules):
            if rule.name is None:
                continue
            path: Path = ("spec", "rules", index, "name")
            if rule.name.isdecimal():
                reason = "a name of digits could be taken for the number of a rule"
                self._add(route, path, "route/rule-name", reason, "begin with a letter")
            if names.setdefault(rule.name, index) != index:
                first = route.place("spec", "rules", names[rule.name], "name")
                reason = f"the rule at {first} has this name"
                self._add(route, path, "route/rule-name", reason, "rename one of the two")
        for name in sorted((route.value.idempotent_names() or frozenset()) - names.keys()):
            path = ("metadata", "annotations", IDEMPOTENT)
            reason = f"there is no rule named {name!r}"
            remedy = 'write "true" for all rules, or names of rules separated by commas'
            self._add(route, path, "route/idempotent", reason, remedy)

    def backends(self, name: Name, route: Placed[HTTPRoute], index: int) -> None:
        refs = route.value.spec.rules[index].backend_refs
        seen: set[Name] = set()
        for number, ref in enumerate(refs):
            path: Path = ("spec", "rules", index, "backendRefs", number)
            backend = Name(ref.namespace or name.namespace, ref.name)
            if backend in seen:
                reason = f"{backend} is a backend of this rule already"
                remedy = "add its weight to the first"
                self._add(route, (*path, "name"), "route/duplicate-backend", reason, remedy)
            seen.add(backend)
            self._reference(name, route, ref, path)
        if not any(ref.weight for ref in refs):
            path = ("spec", "rules", index, "backendRefs")
            reason = "all weights are 0, so requests go nowhere"
            self._add(route, path, "route/no-weight", reason, "give one backend a weight above 0")

    def retries(self, route: Placed[HTTPRoute], rule: Rule, index: int) -> None:
        if rule.retry and rule.retry.codes and not route.value.is_idempotent(rule):
            self._add(
                route,
                ("spec", "rules", index, "retry", "codes"),
                "route/retry-not-idempotent",
                "an answer means that the request was processed; sending it again does it twice",
                f'mark the rule with the annotation {IDEMPOTENT}: "true" if that is harmless, '
                "or remove codes: attempts that were not processed are retried anyhow",
            )

    def _reference(
        self, name: Name, route: Placed[HTTPRoute], ref: ParentRef | BackendRef, path: Path
    ) -> bool:
        """Check that a reference leads to an HTTP service of the route's namespace."""
        target = Name(ref.namespace or name.namespace, ref.name)
        parent = self.catalogue.parent(target)
        if target.namespace != name.namespace:
            reason = "references to another namespace are not built (they need its consent)"
            remedy = f"keep the route in {target.namespace}"
            self._add(route, (*path, "namespace"), "route/namespace", reason, remedy)
        elif parent is None:
            reason = f"there is no service {target}"
            remedy = "add it, or correct the name"
            self._add(route, (*path, "name"), "route/unknown-service", reason, remedy)
        elif parent.value.spec.protocol == "tcp":
            reason = f"{target} is declared tcp at {parent.place('spec', 'protocol')}: no requests"
            remedy = "declare http, http2 or grpc there, or remove this"
            self._add(route, (*path, "name"), "route/opaque-service", reason, remedy)
        elif ref.port not in {None, parent.value.spec.port}:
            reason = f"the port of {target} is {parent.value.spec.port}"
            self._add(route, (*path, "port"), "route/port", reason, "name that or none")
        else:
            return True
        return False

    def _add(
        self, route: Placed[HTTPRoute], path: Path, code: str, reason: str, remedy: str
    ) -> None:
        self.diagnostics.add(route.place(*path), code, reason, remedy)


def _canonical(match: RouteMatch) -> RouteMatch:
    """Write a match so that two that match the same requests by their form are equal."""
    path = match.path
    if path.type == "PathPrefix" and path.value != "/":
        path = path.model_copy(update={"value": path.value.rstrip("/")})
    return match.model_copy(
        update={
            "path": path,
            "headers": tuple(sorted(match.headers, key=lambda header: header.name)),
            "query_params": tuple(sorted(match.query_params, key=lambda param: param.name)),
        }
    )
