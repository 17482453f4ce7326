"""Policy files: Casbin's CSV, line by line, each line with where it came from.

pycasbin splits at commas outside of brackets, strips the fields, keeps quotes, skips lines of a
kind that the model does not define, and takes a trailing comment for part of the last field. Where
that is a trap the line is refused.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from garrison.authz.errors import RefusedError, Report
from garrison.authz.model import Model
from garrison.authz.sources import Place, SourceFile, Text

MAX_LINES: Final = 200_000
MAX_LINE_CHARACTERS: Final = 4_000

SHIPPED_RELATION: Final = "g2"

_SPLIT: Final = re.compile(r"[,\[\]()]")
_BRACKETS: Final = {")": "(", "]": "["}


def _shipped(name: str) -> SourceFile:
    return SourceFile(f"garrison:{name}", files("garrison.authz").joinpath(name).read_text("ascii"))


DEFAULT_MODEL: Final = _shipped("model.conf")
METHOD_GROUPS: Final = _shipped("methods.csv")
SHIPPED_GROUPS: Final = frozenset(
    line.split(", ")[2] for line in METHOD_GROUPS.text.splitlines() if line.startswith("g2, ")
)


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A line of the policy: its columns by the model's names, and the rule's name `file:line`."""

    place: Place
    text: str
    columns: Mapping[str, Text]
    allows: bool

    @property
    def rule(self) -> str:
        """Name the line as rules, logs and explanations do."""
        return f"{self.place.file}:{self.place.line}"


@dataclass(frozen=True, slots=True)
class RoleLine:
    """A link of a role definition: the first name has the second's role, perhaps in a domain."""

    relation: str
    place: Place
    text: str
    values: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """All lines of all files, in the order of paths; the order means nothing to the effects."""

    lines: tuple[PolicyLine, ...]
    roles: tuple[RoleLine, ...]


def parse_policy(model: Model, sources: tuple[SourceFile, ...], report: Report) -> Policy:
    """Read policy files; what is wrong goes into `report`."""
    lines: list[PolicyLine] = []
    roles: list[RoleLine] = []
    for source in sorted(sources, key=lambda source: source.path):
        for place, text in _texts(source, report):
            try:
                parsed = _line(model, place, text)
            except RefusedError as refused:
                report.note(refused)
                continue
            if isinstance(parsed, PolicyLine):
                lines.append(parsed)
            else:
                roles.append(parsed)
    if len(lines) + len(roles) > MAX_LINES:
        report.refuse(
            "policy-size",
            lines[-1].place if lines else roles[-1].place,
            f"the policy has more than {MAX_LINES} lines",
            "give groups of principals a role",
        )
    return Policy(tuple(lines), tuple(roles))


def _texts(source: SourceFile, report: Report) -> Iterator[tuple[Place, str]]:
    for number, raw in enumerate(source.text.split("\n"), start=1):
        text = raw.strip()
        if not text or text.startswith("#"):
            continue
        place = Place(source.path, number, len(raw) - len(raw.lstrip()) + 1)
        if not text.isascii() or not text.replace("\t", " ").isprintable():
            report.refuse(
                "policy-characters",
                place,
                "only printable ASCII has one meaning in a policy line",
                "spell it in ASCII; a comment line may hold anything",
            )
        elif len(text) > MAX_LINE_CHARACTERS:
            report.refuse(
                "policy-size", place, "the line is too long to be read", "split it into lines"
            )
        else:
            yield place, text


def _line(model: Model, place: Place, text: str) -> PolicyLine | RoleLine:
    kind, *values = _fields(place, text)
    expected = len(model.policy) if kind.value == "p" else model.roles.get(kind.value)
    if expected is None:
        raise RefusedError(
            "policy-kind",
            place,
            f"the model defines no {kind.value!r}, and Casbin skips such a line without a word",
            f"begin the line with {', '.join(('p', *model.roles))}, or a comment with #",
        )
    if len(values) != expected:
        wanted = ", ".join(model.policy if kind.value == "p" else "_" * expected)
        raise RefusedError(
            "policy-fields",
            place,
            f"the line has {len(values)} fields after {kind.value}, the model {expected}",
            f"write {kind.value}, {wanted}",
        )
    if kind.value != "p":
        return RoleLine(kind.value, place, text, tuple(values))
    columns = dict(zip(model.policy, values, strict=True))
    return PolicyLine(place, text, columns, _allows(columns))


def _allows(columns: Mapping[str, Text]) -> bool:
    effect = columns.get("eft")
    if effect is None or effect.value == "allow":
        return True
    if effect.value == "deny":
        return False
    raise RefusedError(
        "policy-effect",
        effect.place(0),
        f"{effect.value!r} is no effect, and Casbin lets such a line decide nothing",
        "write allow or deny",
    )


def _fields(place: Place, text: str) -> list[Text]:
    for char, code, remedy in (
        ("#", "policy-trailing-comment", "give the comment a line of its own"),
        ('"', "policy-quotes", "leave the quotes out; a string in a rule takes single ones"),
    ):
        if char in text:
            raise RefusedError(
                code,
                Place(place.file, place.line, place.column + text.index(char)),
                f"Casbin takes {char} for part of the field",
                remedy,
            )
    fields, start = [], 0
    for end in _commas(place, text):
        field = text[start:end]
        column = place.column + start + len(field) - len(field.lstrip())
        fields.append(Text(field.strip(), ((0, Place(place.file, place.line, column)),)))
        start = end + 1
    return fields


def _commas(place: Place, text: str) -> Iterator[int]:
    """Find the commas outside of brackets, and the end of the line."""
    opened: list[str] = []
    for found in _SPLIT.finditer(text):
        char = found[0]
        if char in "([":
            opened.append(char)
        elif char == "," and not opened:
            yield found.start()
        elif char != "," and (not opened or opened.pop() != _BRACKETS[char]):
            opened = [char]
            break
    if opened:
        raise RefusedError(
            "policy-brackets",
            place,
            "the brackets of the line are not in pairs, and Casbin splits fields by them",
            "close each ( and [, or move the pattern into the matcher",
        )
    yield len(text)
