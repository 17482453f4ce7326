"""The compiled authorization of a mesh: rules for each destination, who may call it, and why."""

from collections.abc import Collection
from dataclasses import dataclass

from envoy.config.rbac.v3.rbac_pb2 import RBAC

from garrison.authz.errors import Diagnostic
from garrison.authz.schema import Request
from garrison.authz.sources import AuthorizationSources


@dataclass(frozen=True, slots=True)
class Rules:
    """What a destination enforces: `deny` first, then `allow`; no policy to allow denies all."""

    deny: RBAC
    allow: RBAC


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A line that did not match: where it is, its text, and what of it the request lacks."""

    rule: str
    text: str
    effect: str
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, and the line that made it (`file:line` and its text), or the `nearest` ones."""

    allowed: bool
    rule: str | None
    text: str | None
    nearest: tuple[NearMiss, ...]


class Compiled:
    """Rules of every destination; `findings` are lines that no destination or principal meets."""

    findings: tuple[Diagnostic, ...]

    def rules(self, destination: str) -> Rules:
        """Render the rules of `namespace/service`; raises UnknownDestinationError."""
        raise NotImplementedError

    def callers(self, destination: str) -> frozenset[str]:
        """Name the registered principals that some line lets call `destination`."""
        raise NotImplementedError

    def explain(self, request: Request) -> Explanation:
        """Decide `request` and say which line decided, or which came nearest."""
        raise NotImplementedError


def compile_authorization(
    sources: AuthorizationSources,
    trust_domain: str,
    destinations: Collection[str],
    principals: Collection[str],
) -> Compiled:
    """Compile for `destinations` (`namespace/service`) and registered `principals`.

    Principals are written `namespace/account`. Raises AuthorizationRefusedError with every mistake.
    """
    raise NotImplementedError
