"""All resources of a commit by kind and name, each name once: what the checks look things up in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from garrison.policies.diagnostics import Diagnostics, Place
from garrison.policies.resources import (
    HTTPRoute,
    Mesh,
    Placed,
    RegistrationEntry,
    Resource,
    Service,
    TrafficPolicy,
)
from garrison.policies.resources.fields import Name

Kind = TypeVar("Kind", HTTPRoute, RegistrationEntry, Service, TrafficPolicy)
ByName = dict[Name, Placed[Kind]]


@dataclass(slots=True)
class Catalogue:
    """Resources of a commit. `services` holds versions too."""

    meshes: list[Placed[Mesh]] = field(default_factory=list)
    services: ByName[Service] = field(default_factory=dict)
    routes: ByName[HTTPRoute] = field(default_factory=dict)
    policies: ByName[TrafficPolicy] = field(default_factory=dict)
    entries: ByName[RegistrationEntry] = field(default_factory=dict)

    def own_services(self) -> Iterator[tuple[Name, Placed[Service]]]:
        """Go through the services that are not a version of another."""
        return ((n, s) for n, s in self.services.items() if s.value.spec.version_of is None)

    def parent(self, name: Name) -> Placed[Service] | None:
        """Return the service, for a version the one that it is of; None if it does not exist."""
        service = self.services.get(name)
        if service and service.value.spec.version_of:
            service = self.services.get(Name(name.namespace, service.value.spec.version_of))
            return service if service and service.value.spec.version_of is None else None
        return service


def catalogue_of(resources: Iterable[Placed[Resource]], diagnostics: Diagnostics) -> Catalogue:
    """Sort resources by kind and name; two of one name, and any but one Mesh, are findings."""
    found = Catalogue()
    for each in resources:
        match each.value:
            case Mesh():
                found.meshes.append(Placed(each.value, each.document))
            case Service():
                _add(found.services, Placed(each.value, each.document), diagnostics)
            case HTTPRoute():
                _add(found.routes, Placed(each.value, each.document), diagnostics)
            case TrafficPolicy():
                _add(found.policies, Placed(each.value, each.document), diagnostics)
            case RegistrationEntry():
                _add(found.entries, Placed(each.value, each.document), diagnostics)
    _check_one_mesh(found.meshes, diagnostics)
    return found


def _add(by_name: ByName[Kind], placed: Placed[Kind], diagnostics: Diagnostics) -> None:
    metadata = placed.value.metadata
    name = Name(metadata.namespace, metadata.name)
    first = by_name.setdefault(name, placed)
    if first is not placed:
        diagnostics.add(
            placed.place("metadata", "name"),
            "resource/duplicate",
            f"the {placed.value.kind} {name} is also at {first.place('metadata', 'name')}",
            "rename or remove one of the two",
        )


def _check_one_mesh(meshes: list[Placed[Mesh]], diagnostics: Diagnostics) -> None:
    if not meshes:
        diagnostics.add(
            Place("mesh.yaml"),
            "mesh/missing",
            "the repository has no Mesh",
            "add a resource of kind Mesh that says spec.trustDomain",
        )
    for extra in meshes[1:]:
        diagnostics.add(
            extra.place("kind"),
            "mesh/duplicate",
            f"there is a Mesh at {meshes[0].place('kind')} already",
            "keep one: a repository is one mesh",
        )
