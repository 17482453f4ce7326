"""Principals: how policy writes them, and the SPIFFE IDs that they stand for (docs/seams.md).

`namespace/account` is `spiffe://TD/ns/namespace/sa/account` of the mesh's own trust domain TD, and
`trust.domain//namespace/account` the same of another one. The translation is one of text, so that
equality and prefixes hold of the one exactly when they hold of the other, and never through a
regular expression. A namespace has no dot and the name of another trust domain has one, so that
`shop/*` is never the prefix of a principal of a trust domain called `shop`.
"""

import re
from typing import Final

from garrison.authz.schema import UNAUTHENTICATED

# SPIFFE-ID §2.1 and §2.3.
_NAME: Final = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"
_NAMESPACE: Final = "[A-Za-z0-9_-]+"
_DOTTED: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+"
_DOMAIN: Final = rf"(?:(?P<domain>{_DOTTED})//)?(?P<namespace>{_NAMESPACE})"
_PRINCIPAL: Final = re.compile(rf"{_DOMAIN}/(?P<account>{_NAME})")
_PREFIX: Final = re.compile(rf"{_DOMAIN}/(?P<account>[A-Za-z0-9._-]*)")
_NAMEABLE: Final = re.compile(rf"{_DOMAIN}/[^/]")
_SCHEME: Final = "spiffe://"
_ROLE: Final = re.compile(r"[A-Za-z0-9._-]+")
_SPIFFE: Final = re.compile(
    r"spiffe://(?P<domain>[^/]+)/ns/(?P<namespace>[^/]+)/sa/(?P<account>.+)"
)


def is_principal(name: str) -> bool:
    """Tell whether `name` is written as a principal: `namespace/account`, perhaps of a domain."""
    return bool(_PRINCIPAL.fullmatch(name))


def is_source(name: str) -> bool:
    """Tell whether a request can come from `name`."""
    return name == UNAUTHENTICATED or is_principal(name)


def is_principal_prefix(prefix: str) -> bool:
    """Tell whether `prefix` covers whole principals of one namespace: it has its slash already."""
    return bool(_PREFIX.fullmatch(prefix))


def is_role(name: str) -> bool:
    """Tell whether `name` can be a role: one word, so that no principal is ever called so."""
    return bool(_ROLE.fullmatch(name)) and name != UNAUTHENTICATED


def domain_of(name: str) -> str | None:
    """Return the trust domain that a principal or a prefix of some names, if it names one."""
    found = _PREFIX.match(name)
    return found["domain"] if found else None


def spiffe_id(name: str, trust_domain: str) -> str:
    """Spell a principal, or a prefix of principals, as SPIFFE ID or prefix of SPIFFE IDs."""
    if name.startswith(_SCHEME):
        return name
    found = _PREFIX.match(name)
    if found is None:
        raise ValueError(name)
    rest = name[found.start("account") :]
    return f"spiffe://{found['domain'] or trust_domain}/ns/{found['namespace']}/sa/{rest}"


def source_of(spiffe_id: str | None, trust_domain: str) -> str:
    """Name a peer as policy does; an ID that policy has no name for stands as it is."""
    if spiffe_id is None:
        return UNAUTHENTICATED
    found = _SPIFFE.fullmatch(spiffe_id)
    if found is None:
        return spiffe_id
    name = f"{found['namespace']}/{found['account']}"
    if found["domain"] != trust_domain:
        name = f"{found['domain']}//{name}"
    return name if _NAMEABLE.match(name) else spiffe_id
