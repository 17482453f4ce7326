"""The request that authorization sees: its fields and their types.

A model may use any of these fields, in any order; a matcher that uses another one is refused.
`src` is `namespace/account` for the mesh's own trust domain, `trust.domain//namespace/account` for
another one and `unauthenticated` for none. `path` is the canonical one, without its query. A header
that is absent is the empty string.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a destination's proxy sees it after canonicalization."""

    src: str
    dst: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    ip: str = "127.0.0.1"
