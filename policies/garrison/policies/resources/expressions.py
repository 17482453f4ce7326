"""Paths and regular expressions of route matches, held to what every proxy understands alike.

A path that no canonical request can have would match nothing, so it is refused: what a segment may
hold as it is (RFC 3986 §3.3) is never encoded in it. Expressions are the part that RE2 and Rust's
regex read the same.
"""

from __future__ import annotations

import re

MAX_REGEX = 512
_REGEX_ESCAPES = frozenset("dDwWsS.+*?()[]{}|^$/-\\")
_PATH = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})*)+")
_ENCODED = re.compile(r"%([0-9A-F]{2})")
_NEVER_ENCODED = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/\\\x00-]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,256}")  # RFC 9110 §5.6.2, without _
_REPEAT = re.compile(r"\{([0-9]*),?([0-9]*)\}")
_MAX_REPEAT = 100


def check_path(path: str) -> str:
    """Return `path`; raise ValueError if no canonical request has it."""
    if len(path) > 1024:  # noqa: PLR2004 -- as in Gateway API
        raise ValueError("the path is longer than 1024 bytes")
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{path[:80]!r} is no canonical path: it begins with /, has no query, and encodes "
            "other characters as %XX with capitals"
        )
    if "//" in path or not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError(f"{path[:80]!r} is not canonical: proxies resolve //, . and .. before")
    for encoded in _ENCODED.findall(path):
        if _NEVER_ENCODED.fullmatch(chr(int(encoded, 16))):
            raise ValueError(f"%{encoded} is decoded or refused before routes are matched")
    return path


def check_header_name(name: str) -> str:
    """Return `name` in lower case; raise ValueError if no request that is let in has it."""
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name[:80]!r} is no header name (and names with _ are refused)")
    if name.lower() in {"host", "content-length", "transfer-encoding", "connection"}:
        raise ValueError(f"{name!r} cannot be matched: it belongs to the connection")
    return name.lower()


def check_regex(pattern: str) -> str:
    """Return `pattern`; raise ValueError where proxies would differ on it or refuse it."""
    if not pattern or len(pattern) > MAX_REGEX or not pattern.isascii():
        raise ValueError(f"an expression of 1 to {MAX_REGEX} ASCII characters is wanted")
    _check_portable(pattern)
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from None
    return pattern


def _check_portable(pattern: str) -> None:
    in_class = False
    position = 0
    while position < len(pattern):
        character, following = pattern[position], pattern[position + 1 : position + 2]
        if character == "\\":
            if following not in _REGEX_ESCAPES:
                raise ValueError(f"\\{following} is not understood by all proxies alike")
            position += 1
        elif in_class:
            if character == "[" or (character in "&-~|" and following == character):
                raise ValueError(f"{character!r} in a class is not read alike: write \\{character}")
            in_class = character != "]"
        elif character == "[":
            in_class = True
            position += pattern[position + 1 : position + 2] == "^"
            if pattern[position + 1 : position + 2] == "]":
                raise ValueError("a class that begins with ] is not read alike: write \\]")
        else:
            _check_outside_class(pattern, position)
        position += 1


def _check_outside_class(pattern: str, position: int) -> None:
    rest = pattern[position:]
    if rest.startswith("(?") and not rest.startswith("(?:"):
        raise ValueError("of the groups that begin with (? only (?: is understood by all proxies")
    if rest[0] in "*+?}" and rest[1:2] == "+":
        raise ValueError("possessive repetition is not understood by all proxies")
    repeat = _REPEAT.match(rest)
    if repeat and any(int(bound[:6] or 0) > _MAX_REPEAT for bound in repeat.groups()):
        raise ValueError(f"a repetition of more than {_MAX_REPEAT} is refused")
