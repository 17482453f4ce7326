"""The request that authorization sees: its fields and their types.

A model may use any of these fields, in any order; a matcher that uses another one is refused.
`src` is `namespace/account` for the mesh's own trust domain, `trust.domain//namespace/account` for
another one and `unauthenticated` for none. `path` is the canonical one, without its query. A header
that is absent is the empty string.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

# RFC 9110 §9.3 and RFC 5789: what a rule can name. Every other method is OTHER.
METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
OTHER_METHOD: Final = "OTHER"

UNAUTHENTICATED: Final = "unauthenticated"

# Set by the proxy itself or removed before anything reads them (docs/seams.md).
_RESERVED_HEADER = re.compile(
    r"(?:x-forwarded-|x-garrison-|x-envoy-|proxy-).*"
    r"|host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|content-length"
)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]{1,64}")

# pchar of RFC 3986 §3.3, and the escapes that are left: of what is neither pchar, a slash, a
# backslash nor a control (`proxy/src/http/target.rs`).
_CHARACTERS = "A-Za-z0-9._~!$&'()*+,;=:@\\-"
_ESCAPE = "%(?:2[0235]|3[CEF]|5[BDE]|60|7[BCD]|[89A-F][0-9A-F])"
_SEGMENT = re.compile(f"(?:[{_CHARACTERS}]|{_ESCAPE})*")
_DOT_SEGMENT = re.compile(r"\.{1,2}(?:;.*)?")

# Every canonical path is spelt like this, written as RE2 and Rust read it, too.
CANONICAL_SPELLING: Final = f"(?:[{_CHARACTERS}/]|{_ESCAPE})*"


class Kind(Enum):
    """What a request field is; it decides which tests can be carried exactly."""

    PRINCIPAL = "a principal"
    DESTINATION = "a service"
    METHOD = "a method"
    PATH = "a path"
    HEADERS = "a map of headers"
    HEADER = "a header"
    ADDRESS = "an IP address"

    # Members are single, so identity will do; Enum's own hash is a call into Python.
    __hash__ = object.__hash__


FIELDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "src": Kind.PRINCIPAL,
        "dst": Kind.DESTINATION,
        "method": Kind.METHOD,
        "path": Kind.PATH,
        "headers": Kind.HEADERS,
        "ip": Kind.ADDRESS,
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the request; `header` names one where `kind` is HEADER."""

    kind: Kind
    header: str = ""

    def __str__(self) -> str:
        """Name it as a matcher does."""
        return f"header {self.header}" if self.header else _NAMES[self.kind]


_NAMES: Final = {kind: name for name, kind in FIELDS.items()}

DST: Final = Field(Kind.DESTINATION)
METHOD: Final = Field(Kind.METHOD)
PATH: Final = Field(Kind.PATH)
ADDRESS: Final = Field(Kind.ADDRESS)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a destination's proxy sees it after canonicalization."""

    src: str
    dst: str
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    ip: str = "127.0.0.1"

    def value(self, of: Field) -> str:
        """Read one field, a method outside METHODS as OTHER."""
        match of.kind:
            case Kind.PRINCIPAL:
                return self.src
            case Kind.DESTINATION:
                return self.dst
            case Kind.METHOD:
                return known_method(self.method)
            case Kind.PATH:
                return self.path
            case Kind.ADDRESS:
                return self.ip
            case Kind.HEADER | Kind.HEADERS:
                return self.headers.get(of.header, "")


def known_method(method: str) -> str:
    """Return `method`, or OTHER: what is not known must not equal the name of a group."""
    return method if method in METHODS else OTHER_METHOD


def is_header_name(name: str) -> bool:
    """Tell whether a matcher may read this header: lower case, and not one that the mesh sets."""
    return bool(_HEADER_NAME.fullmatch(name)) and not _RESERVED_HEADER.fullmatch(name)


def is_canonical(path: str) -> bool:
    """Tell whether a request's path can be this one (one canonical form, else it is refused)."""
    first, *segments = path.split("/")
    return not first and bool(segments) and all(map(is_segment, segments)) and "//" not in path


def is_segment(segment: str) -> bool:
    """Tell whether a canonical path can have this segment."""
    return bool(_SEGMENT.fullmatch(segment)) and not _DOT_SEGMENT.fullmatch(segment)


def is_path_text(text: str) -> bool:
    """Tell whether `text` can be a piece of a canonical path, whatever stands around it."""
    return "//" not in text and all(map(_SEGMENT.fullmatch, text.split("/")))
