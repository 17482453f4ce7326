r"""regexMatch: a regular expression of Python, rewritten for engines that run in linear time.

`regexMatch` is Python's `re.match`: anchored at the start only. RBAC matches a whole value, so
`.*` follows the expression. The text is never passed on: what Python parsed is printed anew in the
subset that Python, RE2 and Rust's regex read alike. Values are printable ASCII:
classes such as `\d` are spelled for that.
"""

import warnings
from collections.abc import Callable, Iterable

# The parser that defines what pycasbin's `re.match` means; it has no public name.
from re import _constants as codes  # type: ignore[attr-defined] # private, see above
from re import _parser as parser  # type: ignore[attr-defined] # private, see above
from re import error as RegexError  # noqa: N812 - a class by any other name
from typing import Any, Final

from garrison.authz.errors import RefusedError
from garrison.authz.predicates import Pattern
from garrison.authz.sources import Place

MAX_REGEX_CHARACTERS: Final = 1_000
MAX_REPETITIONS: Final = 1_000
# RE2 repeats nested repetitions a thousand times altogether; as many states are room for more
# than a path needs (docs/seams.md: Envoy must be told, or it refuses over a hundred).
MAX_STATES: Final = 1_000

_META: Final = frozenset("\\.+*?()|[]{}^$")
_CLASS_META: Final = frozenset("\\[]^-&~")
_CATEGORIES: Final = {
    codes.CATEGORY_DIGIT: "0-9",
    codes.CATEGORY_WORD: "0-9A-Za-z_",
    codes.CATEGORY_SPACE: "\\t ",
}
_NEGATED: Final = {
    codes.CATEGORY_NOT_DIGIT: codes.CATEGORY_DIGIT,
    codes.CATEGORY_NOT_WORD: codes.CATEGORY_WORD,
    codes.CATEGORY_NOT_SPACE: codes.CATEGORY_SPACE,
}
_ANCHORS: Final = {
    codes.AT_BEGINNING: "^",
    codes.AT_BEGINNING_STRING: "^",
    codes.AT_END: "$",
    codes.AT_END_STRING: "$",
}
_NAMES: Final = {
    codes.ASSERT: "look-around",
    codes.ASSERT_NOT: "look-around",
    codes.GROUPREF: "a back reference",
    codes.GROUPREF_EXISTS: "a conditional",
    codes.ATOMIC_GROUP: "an atomic group",
    codes.POSSESSIVE_REPEAT: "a possessive repetition",
}


def regex_match(text: str, place: Place) -> Pattern:
    """Compile the expression of `regexMatch`; raises RefusedError."""
    if len(text) > MAX_REGEX_CHARACTERS:
        raise _refused("regex-size", place, f"more than {MAX_REGEX_CHARACTERS} characters")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            tree = parser.parse(text)
    except (RegexError, RecursionError, OverflowError) as error:
        raise _refused("regex-syntax", place, str(error)) from error
    if warned:
        raise _refused("regex-unsupported", place, str(warned[0].message).lower())
    if tree.state.flags & ~parser.SRE_FLAG_UNICODE:
        raise _refused("regex-unsupported", place, "flags inside of the expression")
    if _states(tree) > MAX_STATES:
        raise _refused("regex-size", place, f"it repeats to more than {MAX_STATES} states")
    regex = f"(?:{_sequence(tree, place)}).*"
    return Pattern(regex, text, (_sample(tree, more=False), _sample(tree, more=True) + "x"))


def escape(text: str) -> str:
    """Spell literal text as a regular expression."""
    return "".join(f"\\{char}" if char in _META else char for char in text)


def _refused(code: str, place: Place, reason: str) -> RefusedError:
    remedy = "use groups, |, [classes], *, +, ?, {m,n}, ^ and $, or a path pattern"
    return RefusedError(code, place, f"the regular expression is not compiled: {reason}", remedy)


def _sequence(items: Iterable[tuple[Any, Any]], place: Place) -> str:
    return "".join(_item(code, argument, place) for code, argument in items)


def _item(code: Any, argument: Any, place: Place) -> str:  # noqa: ANN401 - re's tree is untyped
    if code not in _PRINTERS:
        raise _refused("regex-unsupported", place, _NAMES.get(code, str(code).lower()))
    return _PRINTERS[code](argument, place)


def _branch(argument: Any, place: Place) -> str:  # noqa: ANN401 - as above
    return "(?:" + "|".join(_sequence(branch, place) for branch in argument[1]) + ")"


def _group(argument: Any, place: Place) -> str:  # noqa: ANN401 - as above
    _, added, removed, body = argument
    if added or removed:
        raise _refused("regex-unsupported", place, "flags inside of the expression")
    return f"(?:{_sequence(body, place)})"


def _anchor(argument: Any, place: Place) -> str:  # noqa: ANN401 - as above
    if argument not in _ANCHORS:
        raise _refused("regex-unsupported", place, "a word boundary")
    return _ANCHORS[argument]


def _repeat(argument: Any, place: Place) -> str:  # noqa: ANN401 - as above
    least, most, body = argument
    inner = f"(?:{_sequence(body, place)})"
    if (least if most is codes.MAXREPEAT else most) > MAX_REPETITIONS:
        raise _refused("regex-size", place, f"more than {MAX_REPETITIONS} repetitions")
    if most is codes.MAXREPEAT:
        return inner + {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return inner + ("?" if (least, most) == (0, 1) else f"{{{least},{most}}}")


def _class(items: Any, place: Place) -> str:  # noqa: ANN401 - as above
    negated = items[0][0] is codes.NEGATE
    body = "".join(_class_item(code, argument, place) for code, argument in items[negated:])
    return f"[{'^' * negated}{body}]"


def _class_item(code: Any, argument: Any, place: Place) -> str:  # noqa: ANN401 - as above
    match code:
        case codes.LITERAL:
            return _class_char(argument, place)
        case codes.RANGE:
            return f"{_class_char(argument[0], place)}-{_class_char(argument[1], place)}"
        case codes.CATEGORY if argument in _CATEGORIES:
            return _CATEGORIES[argument]
        case codes.CATEGORY if argument in _NEGATED:
            return _complement(_NEGATED[argument])
        case _:
            raise _refused("regex-unsupported", place, str(code).lower())


def _complement(category: Any) -> str:  # noqa: ANN401 - as above
    """Spell out the printable ASCII characters that are not of a category."""
    return {
        codes.CATEGORY_DIGIT: "\\t -/:-\\~",
        codes.CATEGORY_WORD: "\\t -/:-@\\[-\\^`{-\\~",
        codes.CATEGORY_SPACE: "!-\\~",
    }[category]


def _char(code: int, place: Place) -> str:
    char = chr(code)
    if not char.isascii() or not char.isprintable():
        raise _refused("regex-unsupported", place, f"the character {char!r}, which is not ASCII")
    return char


def _class_char(code: int, place: Place) -> str:
    char = _char(code, place)
    return f"\\{char}" if char in _CLASS_META else char


_PRINTERS: Final[dict[Any, Callable[[Any, Place], str]]] = {
    codes.LITERAL: lambda argument, place: escape(_char(argument, place)),
    codes.NOT_LITERAL: lambda argument, place: f"[^{_class_char(argument, place)}]",
    codes.ANY: lambda _argument, _place: ".",
    codes.IN: _class,
    codes.BRANCH: _branch,
    codes.SUBPATTERN: _group,
    codes.MAX_REPEAT: _repeat,
    codes.MIN_REPEAT: _repeat,
    codes.AT: _anchor,
}


def _states(items: Iterable[tuple[Any, Any]]) -> int:
    total = 0
    for code, argument in items:
        match code:
            case codes.BRANCH:
                total += sum(map(_states, argument[1]))
            case codes.SUBPATTERN:
                total += _states(argument[3])
            case codes.MAX_REPEAT | codes.MIN_REPEAT:
                least, most, body = argument
                total += max(least, 1 if most is codes.MAXREPEAT else most, 1) * _states(body)
            case _:
                total += 1
    return total


def _sample(items: Iterable[tuple[Any, Any]], *, more: bool) -> str:
    """Write a string that the expression is likely to match: its least, or a little more."""
    return "".join(_sample_item(code, argument, more=more) for code, argument in items)


def _sample_item(code: Any, argument: Any, *, more: bool) -> str:  # noqa: ANN401 - as above
    match code:
        case codes.LITERAL:
            return chr(argument)
        case codes.BRANCH:
            return _sample(argument[1][-1 if more else 0], more=more)
        case codes.SUBPATTERN:
            return _sample(argument[3], more=more)
        case codes.MAX_REPEAT | codes.MIN_REPEAT:
            least, most, body = argument
            return _sample(body, more=more) * (min(least + more, 3, most) if most else 0)
        case codes.ANY | codes.NOT_LITERAL | codes.IN:
            return next((char for char in "x1-/ab" if _one(code, argument, char)), "y")
        case _:
            return ""


def _one(code: Any, argument: Any, char: str) -> bool:  # noqa: ANN401 - as above
    place = Place("", 0)
    return Pattern(_item(code, argument, place), "", ()).holds(char)
