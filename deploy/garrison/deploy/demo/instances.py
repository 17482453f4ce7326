"""What runs where: one instance for each endpoint that the repository gives to a service.

An identity that serves nothing has an instance too, which only calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from garrison.identity.errors import RejectedError
from garrison.policies.commit_files import CommitFiles
from garrison.policies.diagnostics import Diagnostics
from garrison.policies.resources import RegistrationEntry, Resource, Service, parse_resources

APPLICATION_PORT = 8080
OUTBOUND_PORT = 15001
ADMIN_PORT = 15000
POLICY_IDENTITY = "garrison/policy-server"
CALLERS_FROM = 201  # last numbers of the addresses of those that only call
SUBJECT = "sub"  # the selector key that an OIDC attestor gives a token's subject


@dataclass(frozen=True, slots=True)
class Instance:
    """One application and the sidecar beside it, on an address of their own."""

    name: str  # catalog-2
    service: str  # bookstore/catalog; of one that only calls the identity, ops/admin
    version: str
    address: str
    inbound_port: int | None  # None: it only calls
    identity: str  # bookstore/catalog

    @property
    def inbound(self) -> str:
        """Where the mesh reaches the sidecar."""
        return f"{self.address}:{self.inbound_port}"

    @property
    def application(self) -> str:
        """Where the sidecar reaches the application, if there is one."""
        return f"{self.address}:{APPLICATION_PORT}"

    @property
    def outbound(self) -> str:
        """Where the application reaches the mesh: its HTTP_PROXY."""
        return f"{self.address}:{OUTBOUND_PORT}"

    @property
    def admin(self) -> str:
        """Where people and Prometheus look at the sidecar."""
        return f"{self.address}:{ADMIN_PORT}"


@dataclass(frozen=True, slots=True)
class Population:
    """Everything that the repository says runs, and the tokens' subjects of all its identities."""

    trust_domain: str
    instances: tuple[Instance, ...]
    subjects: Mapping[str, str]  # by NAMESPACE/ACCOUNT


def population(files: CommitFiles) -> Population:
    """Read the services and the registration entries of a commit; raise `RejectedError`."""
    diagnostics = Diagnostics()
    resources = [
        placed.value
        for name, text in sorted(files.texts.items())
        if name.endswith(".yaml")
        for placed in parse_resources(name, text, diagnostics)
    ]
    if diagnostics:
        raise RejectedError("\n".join(str(finding) for finding in diagnostics.in_order()))
    subjects = dict(_subjects(resources))
    serving = tuple(_serving(resources))
    instances = (*serving, *_calling(serving, subjects))
    return Population(_trust_domain(resources), instances, subjects)


def _trust_domain(resources: list[Resource]) -> str:
    for resource in resources:
        if resource.kind == "Mesh":
            return resource.spec.trust_domain
    raise RejectedError("the repository has no Mesh")


def _subjects(resources: list[Resource]) -> Iterator[tuple[str, str]]:
    for entry in resources:
        if isinstance(entry, RegistrationEntry):
            for selector in entry.spec.parsed_selectors():
                if selector.key == SUBJECT:
                    yield str(entry.spec.identity), selector.value


def _serving(resources: list[Resource]) -> Iterator[Instance]:
    numbers: Counter[str] = Counter()
    for service in resources:
        if not isinstance(service, Service):
            continue
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        for endpoint in service.spec.endpoints:
            numbers[name] += 1
            yield Instance(
                name=f"{service.metadata.name}-{numbers[name]}",
                service=name,
                version=endpoint.labels.get("version", "v1"),
                address=endpoint.address,
                inbound_port=endpoint.port,
                identity=str(service.spec.identities[0]),
            )


def _calling(serving: tuple[Instance, ...], identities: Iterable[str]) -> Iterator[Instance]:
    known = {POLICY_IDENTITY, *(instance.identity for instance in serving)}
    network = ip_network(f"{serving[0].address}/24", strict=False)
    callers = [identity for identity in identities if identity not in known]
    for number, identity in enumerate(callers, CALLERS_FROM):
        name = identity.partition("/")[2]
        yield Instance(f"{name}-1", identity, "v1", str(network[number]), None, identity)
