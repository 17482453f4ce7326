"""The tokens of a matcher.

pycasbin turns a matcher into Python by replacing text: `&&`, `||`, `!`, `r.`, `p.`, also inside of
string literals. What such a replacement would spoil is refused here, so that the text means the
same to every engine.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from garrison.authz.errors import RefusedError
from garrison.authz.sources import Place, Text

MAX_EXPRESSION_CHARACTERS: Final = 4_000


class TokenKind(Enum):
    """What a token is."""

    NAME = "name"
    STRING = "string"
    NUMBER = "number"
    OPERATOR = "operator"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A token, its text (of a string: its value) and where it begins and ends in the source."""

    kind: TokenKind
    text: str
    place: Place
    start: int
    end: int


_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
    | (?P<string>'[^']*'|"[^"]*")
    | (?P<number>[0-9]+(?:\.[0-9]+)?)
    | (?P<operator>&&|\|\||==|!=|<=|>=|\*\*|//|=~|!~|\?\?|[-!<>()\[\],+*/%&|^~?:=.])
    )""",
    re.VERBOSE,
)
_ARITHMETIC: Final = frozenset(("+", "-", "*", "/", "%", "**", "//", "&", "|", "^", "~"))
_SPOILT: Final = re.compile(r"&&|\|\||!|#|\b[rp][0-9]*\.|\beval\(")
_WORD: Final = re.compile(r"[A-Za-z0-9_.]")


def tokenize(source: Text) -> list[Token]:
    """Split an expression into tokens, the last of them END; raises RefusedError."""
    text = source.value
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise RefusedError(
            "matcher-size",
            source.place(0),
            f"the expression has more than {MAX_EXPRESSION_CHARACTERS} characters",
            "move what differs between lines into the policy",
        )
    tokens: list[Token] = []
    position = 0
    while text[position:].strip():
        token = _next(source, position)
        _check(source, token)
        tokens.append(token)
        position = token.end
    end = len(text.rstrip())
    tokens.append(Token(TokenKind.END, "the end", source.place(end), end, end))
    return tokens


def _next(source: Text, position: int) -> Token:
    found = _TOKEN.match(source.value, position)
    if found is None or found.lastgroup is None:
        at = position + len(source.value[position:]) - len(source.value[position:].lstrip())
        raise RefusedError(
            "matcher-syntax",
            source.place(at),
            f"{source.value[at]!r} begins nothing that a matcher can hold",
            "strings are quoted and closed, fields are r.name and p.name",
        )
    kind = TokenKind(found.lastgroup)
    text = found[kind.value]
    return Token(
        kind,
        text[1:-1] if kind is TokenKind.STRING else text,
        source.place(found.start(kind.value)),
        found.start(kind.value),
        found.end(),
    )


def _check(source: Text, token: Token) -> None:
    if token.kind is TokenKind.STRING:
        _check_string(token)
    elif token.kind is TokenKind.OPERATOR:
        _check_operator(source, token)


def _check_string(token: Token) -> None:
    if found := _SPOILT.search(token.text):
        raise RefusedError(
            "matcher-string",
            token.place,
            f"{found[0]!r} inside of a string is replaced by pycasbin as if it were code",
            "move the string into a column of the policy",
        )
    if "\\" in token.text:
        raise RefusedError(
            "matcher-string",
            token.place,
            "engines read a backslash in a string differently",
            "use a character class such as [.], or a column of the policy",
        )


def _check_operator(source: Text, token: Token) -> None:
    text = source.value
    if token.text in _ARITHMETIC:
        raise RefusedError(
            "matcher-arithmetic",
            token.place,
            f"{token.text!r} computes, and rules only compare",
            "put the result into the policy",
        )
    if token.text in ("=~", "!~", "??", "?", ":", "=", "."):
        raise RefusedError(
            "matcher-operator",
            token.place,
            f"{token.text!r} is not an operator of every Casbin engine",
            "use ==, !=, in, &&, || and !, and regexMatch for a regular expression",
        )
    around = text[token.start - 1 : token.start] + text[token.end : token.end + 1]
    if token.text in ("&&", "||") and any(map(_WORD.match, around)):
        raise RefusedError(
            "matcher-spacing",
            token.place,
            f"pycasbin joins {token.text!r} with the word beside it",
            "put blanks around it",
        )
