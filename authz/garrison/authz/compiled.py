"""The compiled authorization of a mesh: rules for each destination, who may call it, and why."""

import gc
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from envoy.config.rbac.v3.rbac_pb2 import RBAC, Policy

from garrison.authz.compilation import Compilation, CompiledLine, compile_sources
from garrison.authz.disjunction import Disjunction
from garrison.authz.errors import Diagnostic, Report, UnknownDestinationError
from garrison.authz.explain import Explanation, explain
from garrison.authz.rendering import Renderer, filter_rules, misspelt_paths
from garrison.authz.schema import Kind, Request
from garrison.authz.slices import Slices, Universe, admits_strangers
from garrison.authz.sources import AuthorizationSources
from garrison.authz.spelling import MISSPELT_RULE, asks_for_spelling


@dataclass(frozen=True, slots=True)
class Rules:
    """What a destination enforces: `deny` first, then `allow`; no policy to allow denies all."""

    deny: RBAC
    allow: RBAC


class Compiled:
    """Rules of every destination; `findings` are lines that no destination or principal meets."""

    def __init__(
        self,
        compilation: Compilation,
        trust_domain: str,
        destinations: Collection[str],
        principals: Collection[str],
    ) -> None:
        """Index the lines by destination."""
        self.compilation = compilation
        self.trust_domain = trust_domain
        self.destinations = tuple(sorted(destinations))
        self.principals = Universe(principals, Kind.PRINCIPAL)
        self._slices = Slices(Universe(destinations, Kind.DESTINATION))
        self._renderer = Renderer(trust_domain)
        self._policies: dict[tuple[int, Disjunction], Policy] = {}
        lines = compilation.lines
        self._spelt = frozenset(
            index for index, line in enumerate(lines) if asks_for_spelling(line.disjunction)
        )
        report = Report()
        for index, each in enumerate(lines):
            reached = self._slices.add(index, each.disjunction)
            self._look(each, report, reached=reached)
        self.findings: tuple[Diagnostic, ...] = tuple(report.diagnostics)

    def rules(self, destination: str) -> Rules:
        """Render the rules of `namespace/service`; raises UnknownDestinationError."""
        parts: dict[bool, list[tuple[str, Policy]]] = {True: [], False: []}
        lines = self.slice_lines(destination)
        for index, line, disjunction in lines:
            policy = self._rendered(index, disjunction)
            parts[line.line.allows].append((line.line.rule, policy))
        if any(index in self._spelt for index, _, _ in lines):
            parts[False].append((MISSPELT_RULE, misspelt_paths()))
        return Rules(filter_rules(RBAC.DENY, parts[False]), filter_rules(RBAC.ALLOW, parts[True]))

    def callers(self, destination: str) -> frozenset[str]:
        """Name the registered principals that some line lets call `destination`."""
        found: set[str] = set()
        for _, line, disjunction in self.slice_lines(destination):
            for conjunction in disjunction if line.line.allows else ():
                found |= self.principals.satisfying(self.principals.split(conjunction)[0])
        return frozenset(found)

    def explain(self, request: Request) -> Explanation:
        """Decide `request` and say which line decided, or which came nearest."""
        self._known(request.dst)
        return explain(self.compilation.lines, request)

    def lines_of(self, destination: str) -> list[int]:
        """List the numbers of a destination's lines."""
        return self._slices.lines_of(destination)

    def slice_lines(self, destination: str) -> list[tuple[int, CompiledLine, Disjunction]]:
        """List the lines of a destination by number, and what is left of each there."""
        self._known(destination)
        lines = self.compilation.lines
        return [
            (index, lines[index], disjunction)
            for index, disjunction in self._slices.of(destination)
        ]

    def _known(self, destination: str) -> None:
        if destination not in self._slices.destinations.names:
            raise UnknownDestinationError(f"no service is called {destination!r}")

    def _rendered(self, index: int, disjunction: Disjunction) -> Policy:
        found = self._policies.get((index, disjunction))
        if found is None:
            found = self._renderer.policy(
                disjunction, allows=self.compilation.lines[index].line.allows
            )
            self._policies[index, disjunction] = found
        return found

    def _look(self, compiled: CompiledLine, report: Report, *, reached: bool) -> None:
        line = compiled.line
        if not reached:
            report.refuse(
                "line-without-destination",
                line.place,
                "the line speaks of no service of this mesh",
                "name a service, namespace/service, that is defined",
            )
        conditions = [self.principals.split(each)[0] for each in compiled.disjunction]
        if not any(self.principals.satisfying(own) or admits_strangers(own) for own in conditions):
            report.refuse(
                "line-without-principal",
                line.place,
                "the line speaks of no registered principal",
                "register the principal, or correct its name",
            )


def compile_authorization(
    sources: AuthorizationSources,
    trust_domain: str,
    destinations: Collection[str],
    principals: Collection[str],
) -> Compiled:
    """Compile for `destinations` (`namespace/service`) and registered `principals`.

    Principals are written `namespace/account`. Raises AuthorizationRefusedError with every mistake.
    """
    with _uncollected():
        compilation = compile_sources(sources, trust_domain)
        return Compiled(compilation, trust_domain, destinations, principals)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put off the search for cycles: there are none, and it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
