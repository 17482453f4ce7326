"""globMatch: shell patterns over canonical paths, as wcmatch matches them for pycasbin.

Within a segment `*` and `?` match anything but a slash; a segment that begins with one of them does
not match a leading dot. A segment `**` is any number of segments without a leading dot. The
pattern's end may be followed by a slash. Braces, brackets and escapes are read differently between
engines and refused.
"""

from typing import Final

from garrison.authz.errors import RefusedError
from garrison.authz.predicates import Names, Pattern
from garrison.authz.regular import escape
from garrison.authz.sources import Place

_REFUSED: Final = frozenset("[]{}\\!~|()")
_PLAIN_SEGMENT: Final = "/[^/.][^/]*"


def glob_match(text: str, place: Place) -> Names | Pattern:
    """Compile a glob over paths; raises RefusedError."""
    first, *segments = text.split("/")
    if first or not segments:
        raise RefusedError(
            "glob-unsupported",
            place,
            f"{text!r} does not begin with a slash, as every path does",
            "begin the pattern with /",
        )
    if bad := _REFUSED.intersection(text):
        raise RefusedError(
            "glob-unsupported",
            place,
            f"engines read {min(bad)!r} in a glob differently",
            "use *, ? and **, and a line for each alternative",
        )
    if "/**/**" in text:
        raise RefusedError(
            "glob-unsupported", place, f"{text!r} repeats **", "write ** once: it is any depth"
        )
    regex = "".join(_segment(segment, place) for segment in segments)
    end = "" if text.endswith("/") else "/?"
    samples = tuple(_sample(text, star, deep) for star, deep in (("x", "x"), ("x1", "x/y")))
    return Pattern(regex + end, text, samples)


def _segment(segment: str, place: Place) -> str:
    if segment == "**":
        return f"(?:{_PLAIN_SEGMENT})*"
    if "**" in segment:
        raise RefusedError(
            "glob-unsupported",
            place,
            f"** is only part of the segment {segment!r}",
            "let ** be a whole segment, or write *",
        )
    if segment == "*":
        return _PLAIN_SEGMENT
    if segment[:1] in ("*", "?"):
        return f"/(?:{'|'.join(_undotted(segment))})"
    return "/" + _inner(segment)


def _undotted(tokens: str) -> list[str]:
    """List what `tokens` match where the segment may not begin with a dot."""
    first, rest = tokens[:1], tokens[1:]
    if first == "?":
        return ["[^/.]" + _inner(rest)]
    if first == "*":
        return ["[^/.][^/]*" + _inner(rest), *_undotted(rest)]
    return [] if first in ("", ".") else [escape(first) + _inner(rest)]


def _inner(tokens: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(token, escape(token)) for token in tokens)


def _sample(text: str, star: str, deep: str) -> str:
    return text.replace("**", deep).replace("*", star).replace("?", "x")
