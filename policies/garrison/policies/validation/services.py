"""Services: identities that somebody can have, addresses of one service, versions of something."""

from __future__ import annotations

from garrison.policies.catalogue import Catalogue
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.resources import Path, Placed, Service
from garrison.policies.resources.fields import Name

RESERVED_PORTS = range(15000, 15100)  # the sidecar's own


def check_services(catalogue: Catalogue, diagnostics: Diagnostics) -> None:
    """Find services that nobody can serve, that share what they may not, or versions of nothing."""
    claims = _Claims(diagnostics)
    registered = {entry.value.spec.identity for entry in catalogue.entries.values()}
    for name, service in catalogue.services.items():
        if service.value.spec.version_of is not None:
            _check_version(catalogue, name, service, diagnostics)
            continue
        _check_identities(service, registered, diagnostics)
        _check_client_port(service, diagnostics)
        claims.of_service(service)


def selects(labels: dict[str, str], of: dict[str, str]) -> bool:
    """Tell whether an endpoint's labels, `of`, hold all of `labels`."""
    return labels.items() <= of.items()


class _Claims:
    """What only one service may have, and where the first one took it."""

    def __init__(self, diagnostics: Diagnostics) -> None:
        self._diagnostics = diagnostics
        self._taken: dict[tuple[str, object], tuple[Placed[Service], Path]] = {}

    def of_service(self, service: Placed[Service]) -> None:
        spec = service.value.spec
        for index, identity in enumerate(spec.identities):
            self._claim("identity", identity, service, ("spec", "identities", index))
        for index, endpoint in enumerate(spec.endpoints):
            address = f"{endpoint.address}:{endpoint.port}"
            self._claim("endpoint", address, service, ("spec", "endpoints", index, "address"))
        if spec.client_port is not None:
            self._claim("clientPort", spec.client_port, service, ("spec", "clientPort"))

    def _claim(self, what: str, value: object, service: Placed[Service], path: Path) -> None:
        first, first_path = self._taken.setdefault((what, value), (service, path))
        if (first, first_path) != (service, path):
            self._diagnostics.add(
                service.place(*path),
                f"service/shared-{what.lower().replace('clientport', 'client-port')}",
                f"the {what} {value} is also at {first.place(*first_path)}",
                "give each service its own: by it a connection is told apart",
            )


def _check_identities(
    service: Placed[Service], registered: set[Name], diagnostics: Diagnostics
) -> None:
    for index, identity in enumerate(service.value.spec.identities):
        if identity not in registered:
            diagnostics.add(
                service.place("spec", "identities", index),
                "service/unregistered-identity",
                f"no RegistrationEntry gives anybody the identity {identity}",
                f"add a RegistrationEntry with spec.identity {identity}",
            )


def _check_client_port(service: Placed[Service], diagnostics: Diagnostics) -> None:
    if service.value.spec.client_port in RESERVED_PORTS:
        diagnostics.add(
            service.place("spec", "clientPort"),
            "service/reserved-port",
            f"{RESERVED_PORTS.start} to {RESERVED_PORTS.stop - 1} are the sidecar's own",
            "take another port",
        )


def _check_version(
    catalogue: Catalogue, name: Name, version: Placed[Service], diagnostics: Diagnostics
) -> None:
    parent = catalogue.parent(name)
    if parent is None:
        diagnostics.add(
            version.place("spec", "versionOf"),
            "service/unknown-parent",
            f"there is no service {name.namespace}/{version.value.spec.version_of} "
            "that is not itself a version",
            "name a service of this namespace",
        )
        return
    labels = version.value.spec.labels or {}
    if not any(selects(labels, endpoint.labels) for endpoint in parent.value.spec.endpoints):
        diagnostics.add(
            version.place("spec", "labels"),
            "service/empty-version",
            f"no endpoint at {parent.place('spec', 'endpoints')} has these labels",
            "correct the labels here or there",
        )
