"""Whether it matters to a line how a path is spelt: with `@`, or with `%40`.

garrison-proxy decides canonical paths, in which whatever a segment may hold as it is stands as it
is (RFC 3986 §3.3). Envoy decodes the unreserved characters only (§6.2.2.2): it may see `%40` and
`%c3` where a line says `@` and `%C3`. What asks for unreserved characters, whole segments and all
that follows a prefix finds the same in both spellings, and is left alone.
"""

import re
from typing import Final

from garrison.authz.disjunction import Disjunction
from garrison.authz.predicates import Names, Pattern, Predicate
from garrison.authz.schema import PATH

# Of the policy that denies other spellings; no line of a file is called so.
MISSPELT_RULE: Final = "garrison:path-spelling"

_PLAIN_TEXT: Final = re.compile(r"[A-Za-z0-9._~/-]*")
# Literal text and wildcards as `patterns` writes them, a slash or the end after each wildcard.
_PLAIN_PATTERN: Final = re.compile(
    r"(?:(?:[A-Za-z0-9_~/-]|\\\.)*(?:\[\^/\]\+|\.\*)(?=/|$))*(?:[A-Za-z0-9_~/-]|\\\.)*"
)


def asks_for_spelling(disjunction: Disjunction) -> bool:
    """Tell whether a line asks of a path what another spelling of the same path can hide."""
    return any(
        literal.field == PATH and spelling_matters(literal.predicate)
        for conjunction in disjunction
        for literal in conjunction
    )


def spelling_matters(predicate: Predicate) -> bool:
    """Tell whether a predicate may hold of one spelling of a path and not of another."""
    match predicate:
        case Names(exact, prefixes):
            return not all(map(_PLAIN_TEXT.fullmatch, exact | prefixes))
        case Pattern(regex, _, _):
            return _PLAIN_PATTERN.fullmatch(regex) is None
        case _:
            return True
