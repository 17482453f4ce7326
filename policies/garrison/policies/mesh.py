"""The resolved whole of a commit: every name leads to the thing, every default is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spiffe import SpiffeId, TrustDomain

from garrison.identity.registration import RegistrationEntry
from garrison.identity.spiffe_id import parse_trust_domain, workload
from garrison.policies.catalogue import Catalogue
from garrison.policies.resources import HTTPRoute, Placed
from garrison.policies.resources.fields import Name
from garrison.policies.resources.http_route import RouteMatch, Rule
from garrison.policies.resources.service import Endpoint
from garrison.policies.resources.traffic_policy import TrafficSettings
from garrison.policies.validation.services import selects

Protocol = Literal["http", "http2", "grpc", "tcp"]


@dataclass(frozen=True, slots=True)
class Service:
    """A service, or a version of one (`parent` differs from `name` then)."""

    name: Name
    parent: Name
    protocol: Protocol
    port: int
    client_port: int | None
    identities: tuple[SpiffeId, ...]
    endpoints: tuple[Endpoint, ...]
    traffic: TrafficSettings

    @property
    def is_version(self) -> bool:
        """Tell whether it is some endpoints of another service."""
        return self.parent != self.name

    @property
    def is_carried(self) -> bool:
        """Tell whether the sidecars can carry its protocol yet."""
        return self.protocol != "tcp"


@dataclass(frozen=True, slots=True)
class Backend:
    """A share of a rule's requests; weights are relative to their sum, which is above 0."""

    service: Name
    weight: int


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One rule of an HTTPRoute. `name` is NAMESPACE/HTTPROUTE#RULE, `place` is file:line."""

    name: str
    place: str
    matches: tuple[RouteMatch, ...]
    backends: tuple[Backend, ...]
    rule: Rule
    is_idempotent: bool


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a commit says of services, routes and identities.

    `rules` holds, by service, those of its HTTPRoutes; a service without a route is not in it.
    `served` holds, by identity, the one service that it serves.
    """

    trust_domain: TrustDomain
    services: Mapping[Name, Service]
    rules: Mapping[Name, tuple[RouteRule, ...]]
    entries: tuple[RegistrationEntry, ...]
    served: Mapping[SpiffeId, Name]

    def destinations(self, name: Name) -> frozenset[Name]:
        """Return the services, as authorization knows them, that a call to `name` can end at."""
        rules = self.rules.get(name)
        if rules is None:
            return frozenset({self.services[name].parent})
        backends = (backend for rule in rules for backend in rule.backends if backend.weight)
        return frozenset(self.services[backend.service].parent for backend in backends)


def resolve(catalogue: Catalogue) -> Mesh:
    """Resolve resources that validation found nothing wrong with."""
    trust_domain = parse_trust_domain(catalogue.meshes[0].value.spec.trust_domain)
    services = _services(catalogue, trust_domain)
    return Mesh(
        trust_domain=trust_domain,
        services=services,
        rules=_rules(catalogue),
        entries=tuple(entry.value.entry_in(trust_domain) for entry in catalogue.entries.values()),
        served={
            identity: service.name
            for service in services.values()
            if not service.is_version
            for identity in service.identities
        },
    )


def _services(catalogue: Catalogue, trust_domain: TrustDomain) -> dict[Name, Service]:
    policies: dict[Name, TrafficSettings] = {
        Name(name.namespace, target.name): policy.value.spec
        for name, policy in catalogue.policies.items()
        for target in policy.value.spec.target_refs
    }
    services = {}
    for name, placed in catalogue.services.items():
        parent = Name(name.namespace, placed.value.spec.version_of or name.name)
        spec = catalogue.services[parent].value.spec
        if spec.protocol is None or spec.port is None:
            raise AssertionError(f"{parent} was not validated")  # its shape requires both
        labels = placed.value.spec.labels or {}
        services[name] = Service(
            name=name,
            parent=parent,
            protocol=spec.protocol,
            port=spec.port,
            client_port=placed.value.spec.client_port,
            identities=tuple(workload(trust_domain, *identity) for identity in spec.identities),
            endpoints=tuple(each for each in spec.endpoints if selects(labels, each.labels)),
            traffic=policies.get(name) or policies.get(parent) or TrafficSettings(),
        )
    return services


def _rules(catalogue: Catalogue) -> dict[Name, tuple[RouteRule, ...]]:
    rules: dict[Name, tuple[RouteRule, ...]] = {}
    for name, route in sorted(catalogue.routes.items()):
        resolved = tuple(
            _rule(name, route, index, rule) for index, rule in enumerate(route.value.spec.rules)
        )
        for ref in route.value.spec.parent_refs:
            parent = Name(name.namespace, ref.name)
            rules[parent] = rules.get(parent, ()) + resolved
    return rules


def _rule(name: Name, route: Placed[HTTPRoute], index: int, rule: Rule) -> RouteRule:
    return RouteRule(
        name=f"{name}#{rule.name or index}",
        place=str(route.place("spec", "rules", index)),
        matches=rule.matches,
        backends=tuple(
            Backend(Name(name.namespace, ref.name), ref.weight) for ref in rule.backend_refs
        ),
        rule=rule,
        is_idempotent=route.value.is_idempotent(rule),
    )
