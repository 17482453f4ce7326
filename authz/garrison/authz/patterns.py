"""keyMatch, keyMatch2, keyMatch3, keyMatch5 and globMatch: patterns of one value.

Casbin turns keyMatch2, 3 and 5 into regular expressions by replacing text, and leaves every other
metacharacter alone: `.` matches anything, `/charges*` matches `/chargesss` but not `/charges/1`. So
a metacharacter is an error unless it is escaped; what then is left are literal text, one segment
(`:name` or `{name}`) and anything (`/*`).
"""

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, TypeAlias

from garrison.authz.errors import RefusedError
from garrison.authz.predicates import Names, Pattern
from garrison.authz.regular import escape
from garrison.authz.sources import Place


class Wild(Enum):
    """A part of a pattern that is not literal; the value is its regular expression."""

    SEGMENT = "[^/]+"
    ANYTHING = ".*"


Part: TypeAlias = str | Wild

_PLAIN: Final = re.compile(r"[^:.+()\[\]|^$?*{}\\]+")
_BRACED: Final = re.compile(r"\{[A-Za-z0-9_-]+\}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?=/|$)")
_SAMPLES: Final = (
    {Wild.SEGMENT: "x", Wild.ANYTHING: "x"},
    {Wild.SEGMENT: "x1", Wild.ANYTHING: "x/y"},
    {Wild.SEGMENT: "a-b", Wild.ANYTHING: ""},
)


def key_match(text: str, place: Place) -> Names:
    """Compile a keyMatch pattern: exact, or a prefix that ends in `*`."""
    prefix, star, rest = text.partition("*")
    if rest:
        raise RefusedError(
            "pattern-star",
            place,
            f"keyMatch ignores what follows the first * of {text!r}",
            "end the pattern with its *",
        )
    return Names(prefixes=frozenset((prefix,))) if star else Names(frozenset((text,)))


def key_match2(text: str, place: Place) -> Names | Pattern:
    """Compile a keyMatch2 pattern: `:name` is a segment, `/*` anything, `*` alone everything."""
    if text == "*":
        return _predicate([Wild.ANYTHING], text)
    return _predicate(_parts(text, place, _colon, "*.+()[]|^$?{}"), text)


def key_match3(text: str, place: Place) -> Names | Pattern:
    """Compile a keyMatch3 pattern: `{name}` is a segment, `/*` anything."""
    return _predicate(_parts(text, place, _braces, "*.+()[]|^$?"), text)


def key_match5(text: str, place: Place) -> Names | Pattern:
    """Compile a keyMatch5 pattern: as keyMatch3, but the last brace of a segment closes."""
    for segment in text.split("/"):
        if segment.count("{") > 1:
            raise RefusedError(
                "path-metacharacter",
                place,
                f"keyMatch5 reads {segment!r} as one parameter up to its last brace",
                "use one {name} in a segment",
            )
    return _predicate(_parts(text, place, _braces, "*.+()[]|^$?"), text)


def _predicate(parts: list[Part], text: str) -> Names | Pattern:
    match parts:
        case []:
            return Names(frozenset(("",)))
        case [str(only)]:
            return Names(frozenset((only,)))
        case [Wild.ANYTHING]:
            return Names(prefixes=frozenset(("",)))
        case [str(prefix), Wild.ANYTHING]:
            return Names(prefixes=frozenset((prefix,)))
    regex = "".join(escape(part) if isinstance(part, str) else part.value for part in parts)
    samples = tuple(
        "".join(part if isinstance(part, str) else filling[part] for part in parts)
        for filling in _SAMPLES
    )
    return Pattern(regex, text, samples)


_Parameter: TypeAlias = Callable[[str, int], int]


def _parts(text: str, place: Place, parameter: _Parameter, escapable: str) -> list[Part]:
    parts: list[Part] = []
    for part in _pieces(text, place, parameter, escapable):
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return parts


def _pieces(text: str, place: Place, parameter: _Parameter, escapable: str) -> Iterator[Part]:
    at = 0
    while at < len(text):
        char = text[at]
        if plain := _PLAIN.match(text, at):
            yield plain[0]
            at = plain.end()
        elif end := parameter(text, at):
            yield Wild.SEGMENT
            at = end
        elif char == "*" and at and text[at - 1] == "/":
            yield Wild.ANYTHING
            at += 1
        elif char == "\\" and text[at + 1 : at + 2] and text[at + 1] in escapable:
            yield text[at + 1]
            at += 2
        elif char == ":" and parameter is not _colon:
            yield char
            at += 1
        else:
            raise _metacharacter(text, at, place)


def _metacharacter(text: str, at: int, place: Place) -> RefusedError:
    remedy = {
        "*": "let * follow a slash, or end the pattern before it",
        ":": "name a parameter by letters, digits, _ and - up to the next slash",
        "{": "close a parameter's brace, or escape a literal one",
    }
    return RefusedError(
        "path-metacharacter",
        place,
        f"Casbin reads {text[at]!r} of {text!r} as part of a regular expression",
        remedy.get(text[at], f"write \\{text[at]} for the character itself"),
    )


def _colon(text: str, at: int) -> int:
    found = _NAME.match(text, at + 1) if text[at] == ":" else None
    return found.end() if found else 0


def _braces(text: str, at: int) -> int:
    found = _BRACED.match(text, at)
    return found.end() if found else 0
