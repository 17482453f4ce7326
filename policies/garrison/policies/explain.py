"""What a request would meet: its route, and at each destination the line that decides.

The path is made canonical by the sidecar's own code, and the rules are those that are compiled: the
answer is what would happen, not another opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spiffe import SpiffeId

from garrison.authz import Explanation, Request
from garrison.identity.spiffe_id import (
    SpiffeIdRejectedError,
    Workload,
    namespace_and_account,
    parse_spiffe_id,
    workload,
)
from garrison.policies.answer import NO_ROUTE, UNKNOWN_SERVICE, Answer
from garrison.policies.errors import ExplainError
from garrison.policies.mesh import Mesh
from garrison.policies.resources.fields import Name
from garrison.policies.routing import Routed, RoutedRequest, nearest, route
from garrison.policies.sidecar import Canonical, Sidecar
from garrison.policies.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Question:
    """A request as a person names it. `source` is a SPIFFE ID or NAMESPACE/ACCOUNT."""

    source: str
    service: str
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)


def explain(snapshot: Snapshot, question: Question, sidecar: Sidecar) -> Answer:
    """Say what a request would meet.

    Raises `ExplainError` if there can be no such request, `SidecarFailedError` if the executable
    cannot make it canonical.
    """
    source = _source(snapshot.mesh, question.source)
    service = _service(snapshot.mesh, question.service)
    caller = namespace_and_account(source)
    headers = [("host", f"{service.name}.{service.namespace}"), *question.headers.items()]
    canonical = sidecar.canonical(question.method, question.target, headers)
    lower = {name.lower(): value for name, value in question.headers.items()}
    request = RoutedRequest(question.method, canonical.path, canonical.query, lower)
    routed = None if canonical.refused else route(snapshot.mesh, service, request)
    lost = canonical.refused is None and routed is None
    return Answer(
        commit=snapshot.commit,
        source=source,
        service=service,
        method=question.method,
        path=canonical.path or question.target,
        route=routed,
        nearest_routes=nearest(snapshot.mesh, service, request) if lost else (),
        decisions=_decisions(snapshot, caller, routed, request),
        code=_code(canonical, routed, is_known=_is_known(snapshot, caller, service)),
        notes=tuple(_notes(snapshot, source, caller, service)),
    )


def _code(canonical: Canonical, routed: Routed | None, *, is_known: bool) -> str | None:
    if canonical.refused:
        return f"outbound/{canonical.refused}"
    if not is_known:
        return UNKNOWN_SERVICE
    return NO_ROUTE if routed is None else None


def _source(mesh: Mesh, text: str) -> SpiffeId:
    try:
        if "://" in text:
            source = parse_spiffe_id(text)
        else:
            namespace, slash, account = text.partition("/")
            if not slash:
                raise ExplainError(f"--from {text!r}: NAMESPACE/ACCOUNT or a SPIFFE ID is wanted")
            source = workload(mesh.trust_domain, namespace, account)
        namespace_and_account(source)
    except SpiffeIdRejectedError as error:
        raise ExplainError(f"--from {text!r}: {error}") from error
    if source.trust_domain != mesh.trust_domain:
        raise ExplainError(
            f"--from {text!r}: another trust domain than {mesh.trust_domain}, which no sidecar "
            "lets in yet"
        )
    return source


def _service(mesh: Mesh, text: str) -> Name:
    namespace, slash, name = text.partition("/")
    if not slash:
        name, _, namespace = text.partition(".")
    service = mesh.services.get(Name(namespace, name))
    if service is None:
        known = ", ".join(str(name) for name, each in mesh.services.items() if not each.is_version)
        raise ExplainError(f"--to {text!r}: no such service; there are: {known[:500]}")
    if service.is_version:
        raise ExplainError(f"--to {text!r}: a version of {service.parent}; callers name that")
    if not service.is_carried:
        raise ExplainError(f"--to {text!r}: declared {service.protocol}, which has no requests")
    return service.name


def _decisions(
    snapshot: Snapshot, caller: Workload, routed: Routed | None, request: RoutedRequest
) -> dict[Name, Explanation]:
    backends = routed.backends if routed else ()
    ends = dict.fromkeys(snapshot.mesh.services[backend.service].parent for backend in backends)
    return {
        end: snapshot.authorization.explain(
            Request(
                src=str(caller),
                dst=str(end),
                method=request.method,
                path=request.path,
                headers=request.headers,
            )
        )
        for end in ends
    }


def _notes(snapshot: Snapshot, source: SpiffeId, caller: Workload, service: Name) -> list[str]:
    notes = []
    if not any(entry.spiffe_id == source for entry in snapshot.mesh.entries):
        notes.append(f"no RegistrationEntry gives anybody the identity {caller}")
    if not _is_known(snapshot, caller, service):
        notes.append(
            f"no line lets {caller} call {service} at all, so its own sidecar is not told of it"
        )
    return notes


def _is_known(snapshot: Snapshot, caller: Workload, service: Name) -> bool:
    scope = snapshot.scopes.get(str(caller))
    return scope is not None and service in scope.hosts
