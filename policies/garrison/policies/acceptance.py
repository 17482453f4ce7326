"""Before a commit is published, others than its compiler judge it.

pycasbin decides sample requests for every line as the compiled rules do, and the sidecar itself
accepts what each identity would get. One view stands for all nodes of an identity: they differ in
the addresses they listen on, and in nothing else. What was accepted once is not asked again, so a
commit costs what it changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from spiffe import SpiffeId

from garrison.authz import Compiled, Coverage, DisagreementError, check_against_casbin
from garrison.identity.spiffe_id import workload
from garrison.policies.binding import Address, Binding
from garrison.policies.diagnostics import Diagnostic, Diagnostics, Place
from garrison.policies.encoded import MARKER
from garrison.policies.errors import CommitRefusedError
from garrison.policies.sidecar import Refusal, Sidecar
from garrison.policies.snapshot import Snapshot
from garrison.xds.resource import Resource, View

log = structlog.get_logger()

BINDING = Binding(
    inbound=Address("127.0.0.1", 15006),
    application=Address("127.0.0.1", 8080),
    outbound=Address("127.0.0.1", 15001),
)
AT_ONCE = 2  # processes
MAX_BATCH_BYTES = 32 << 20  # of views that one process is asked about
MAX_REMEMBERED = 50_000  # accepted views; older ones are asked again


@dataclass(slots=True)
class Acceptance:
    """Asks Casbin and one executable, and remembers what they accepted."""

    sidecar: Sidecar
    # The newest rules that Casbin agreed with, by their digest, and what it was asked.
    _checked: tuple[bytes, Coverage] | None = None
    _accepted: dict[bytes, None] = field(default_factory=dict)

    def check(self, snapshot: Snapshot) -> Coverage:
        """Have the rules and every identity's view accepted; return what Casbin was asked.

        Raises `CommitRefusedError` with what is refused, or `SidecarFailedError` if the executable
        cannot say.
        """
        coverage = self._check_rules(snapshot)
        self._check_views(snapshot)
        return coverage

    def _check_rules(self, snapshot: Snapshot) -> Coverage:
        digest = _digest_of_rules(snapshot.authorization)
        if self._checked and self._checked[0] == digest:
            return self._checked[1]
        try:
            coverage = check_against_casbin(snapshot.authorization)
        except DisagreementError as error:
            raise _disagreement(snapshot.commit, error) from error
        self._checked = (digest, coverage)
        if not coverage.is_complete:
            log.warning(
                "casbin not asked about every line at every service",
                commit=snapshot.commit,
                **coverage.as_json(),
            )
        return coverage

    def _check_views(self, snapshot: Snapshot) -> None:
        asked: dict[bytes, tuple[SpiffeId, bytes]] = {}
        for identity in identities_of(snapshot):
            view = snapshot.view_for(identity, BINDING, "garrison-proxy")
            digest = _digest(view)
            if digest not in self._accepted:
                asked[digest] = (identity, _response(view))
        batches = _batches([response for _, response in asked.values()])
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = threads.map(self.sidecar.refusals, batches)
            found = [refusals for answer in answers for refusals in answer]
        diagnostics = Diagnostics()
        for (identity, _), refusals in zip(asked.values(), found, strict=True):
            _report(identity, refusals, diagnostics)
        if diagnostics:
            raise CommitRefusedError(snapshot.commit, diagnostics.in_order(), diagnostics.total)
        self._remember(asked)

    def _remember(self, digests: Iterable[bytes]) -> None:
        self._accepted.update(dict.fromkeys(digests))
        while len(self._accepted) > MAX_REMEMBERED:
            del self._accepted[next(iter(self._accepted))]


def identities_of(snapshot: Snapshot) -> list[SpiffeId]:
    """Return every identity for which a commit has something: it serves, or may call."""
    callers = (name.split("/") for name in snapshot.scopes)
    trust_domain = snapshot.mesh.trust_domain
    calling = {workload(trust_domain, namespace, account) for namespace, account in callers}
    return sorted(calling | snapshot.mesh.served.keys(), key=str)


def _digest_of_rules(authorization: Compiled) -> bytes:
    """Name everything that rules are made from."""
    digest = hashlib.sha256()
    compilation = authorization.compilation
    sources = [compilation.model.source, *compilation.files]
    texts = [part for source in sources for part in (source.path, source.text)]
    for part in (*texts, *authorization.destinations, *sorted(authorization.principals.names)):
        digest.update(f"{len(part)}:{part}".encode())
    return digest.digest()


def _disagreement(commit: str, error: DisagreementError) -> CommitRefusedError:
    file, _, line = error.rule.partition(":")
    place = Place(file, int(line) if line.isdecimal() else 0)
    remedy = "rewrite the line in another way, and report this"
    finding = Diagnostic(place, "authz/casbin-disagrees", str(error), remedy)
    return CommitRefusedError(commit, (finding,), 1)


def _batches(responses: list[bytes]) -> Iterator[list[bytes]]:
    """Divide what is asked among processes: few to start, and few bytes in the memory of each."""
    batch: list[bytes] = []
    size = 0
    most = min(MAX_BATCH_BYTES, sum(map(len, responses)) // AT_ONCE + 1)
    for response in responses:
        batch.append(response)
        size += len(response)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _resources(view: View) -> list[Resource]:
    return [resource for by_name in view.resources.values() for resource in by_name.values()]


def _response(view: View) -> bytes:
    return b"".join(resource.state_head + resource.body for resource in _resources(view))


def _digest(view: View) -> bytes:
    """Name what a view holds, whatever commit it is of: the marker alone differs between two."""
    digest = hashlib.sha256()
    for resource in _resources(view):
        if resource.name != MARKER:
            digest.update(f"{resource.name} {resource.version}\n".encode())
    return digest.digest()


def _report(identity: SpiffeId, refusals: Iterable[Refusal], diagnostics: Diagnostics) -> None:
    for refusal in refusals:
        kind = refusal.type_url.rpartition(".")[2]
        diagnostics.add(
            Place("(compiled)", 0, f"{kind} {refusal.name}"),
            "compiled/refused",
            f"the sidecar of {identity} would refuse it: {refusal.error}",
            "change what its name points to; or garrison-proxy is of another release",
        )
