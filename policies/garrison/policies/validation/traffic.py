"""Traffic policies: each for a service that exists, each service with at most one."""

from __future__ import annotations

from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics, Place
from garrison.policies.resources.fields import Name


def check_traffic_policies(catalogue: Catalogue, diagnostics: Diagnostics) -> None:
    """Find policies of services that do not exist or carry nothing, and two for one service."""
    taken: dict[Name, Place] = {}
    for policy_name, policy in catalogue.policies.items():
        for index, target in enumerate(policy.value.spec.target_refs):
            name = Name(policy_name.namespace, target.name)
            place = policy.place("spec", "targetRefs", index, "name")
            parent = catalogue.parent(name)
            if parent is None:
                reason, remedy = f"there is no service {name}", "name a service of this namespace"
                diagnostics.add(place, "traffic/unknown-service", reason, remedy)
            elif parent.value.spec.protocol == "tcp":
                reason = f"{name} is tcp, which nothing carries yet"
                diagnostics.add(place, "traffic/opaque-service", reason, "remove the policy")
            first = taken.setdefault(name, place)
            if first is not place:
                diagnostics.add(
                    place,
                    "traffic/conflict",
                    f"{name} has a policy already, at {first}",
                    "keep one policy for each service",
                )
