"""A Casbin `model.conf`: its five sections, read as pycasbin reads them and no more leniently.

The file is the format of Casbin's own configuration reader: sections in brackets, `key = value`,
a backslash that continues a line, comment lines that begin with `#` or `;`. What engines read
differently, or skip without a word, is refused here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from garrison.authz.errors import RefusedError, Report
from garrison.authz.schema import FIELDS
from garrison.authz.sources import Place, SourceFile, Text

MAX_MODEL_CHARACTERS: Final = 20_000

_SECTIONS: Final = {
    "request_definition": "r",
    "policy_definition": "p",
    "role_definition": "g",
    "policy_effect": "e",
    "matchers": "m",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROLE_KEY = re.compile(r"g(?:[2-9])?")


class Effect(Enum):
    """The policy effects that two RBAC filters can carry."""

    ALLOW_OVERRIDE = "some(where (p.eft == allow))"
    ALLOW_AND_DENY = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose parts have been read; its matcher is text still."""

    source: SourceFile
    request: tuple[str, ...]
    policy: tuple[str, ...]
    roles: Mapping[str, int]
    effect: Effect
    matcher: Text


@dataclass(frozen=True, slots=True)
class _Definition:
    section: str
    key: str
    place: Place
    value: Text


def parse_model(source: SourceFile) -> Model:
    """Read a model; raises AuthorizationRefusedError with every mistake."""
    report = Report()
    definitions: dict[str, _Definition] = {}
    roles: dict[str, int] = {}
    try:
        for definition in _definitions(source, report):
            _take(definition, definitions, roles, report)
    except RefusedError as refused:
        report.note(refused)
    for section, key in _SECTIONS.items():
        if key != "g" and key not in definitions:
            report.refuse(
                "model-missing",
                Place(source.path, 1),
                f"section [{section}] does not define {key}",
                f"add [{section}] with a line `{key} = …`",
            )
    report.settle()
    request = _names(definitions["r"], report)
    policy = _names(definitions["p"], report)
    _check_request(definitions["r"], request, report)
    _check_policy(definitions["p"], policy, report)
    effect = _effect(definitions["e"], report)
    report.settle()
    return Model(source, request, policy, roles, effect, definitions["m"].value)


def _take(
    definition: _Definition,
    definitions: dict[str, _Definition],
    roles: dict[str, int],
    report: Report,
) -> None:
    key, expected = definition.key, _SECTIONS[definition.section]
    if key in definitions or key in roles:
        report.refuse(
            "model-duplicate",
            definition.place,
            f"{key} is defined twice, and Casbin keeps the last without a word",
            "keep one of them",
        )
    elif expected == "g" and _ROLE_KEY.fullmatch(key):
        roles[key] = _arity(definition, report)
    elif key == expected:
        definitions[key] = definition
    else:
        report.refuse(
            "model-key",
            definition.place,
            f"{key} is not compiled in [{definition.section}]",
            f"define {'g, g2 … g9' if expected == 'g' else expected} there",
        )


def _arity(definition: _Definition, report: Report) -> int:
    arity = {"_,_": 2, "_,_,_": 3}.get(re.sub(r"\s", "", definition.value.value))
    if arity is None:
        report.refuse(
            "model-role",
            definition.value.place(0),
            f"{definition.value.value!r} is no role definition that is compiled",
            "write `_, _`, or `_, _, _` for roles within a domain",
        )
    return arity or 2


def _names(definition: _Definition, report: Report) -> tuple[str, ...]:
    names: list[str] = []
    offset = 0
    for part in definition.value.value.split(","):
        name = part.strip()
        place = definition.value.place(offset + len(part) - len(part.lstrip()))
        if not _NAME.fullmatch(name) or name in names:
            report.refuse(
                "model-field",
                place,
                f"{name!r} is not a new name of a field",
                "list different names of letters, digits and underscores, separated by commas",
            )
        names.append(name)
        offset += len(part) + 1
    return tuple(names)


def _check_request(definition: _Definition, names: tuple[str, ...], report: Report) -> None:
    for name in names:
        if _NAME.fullmatch(name) and name not in FIELDS:
            report.refuse(
                "request-field",
                definition.value.place(definition.value.value.index(name)),
                f"a request of the mesh has no field {name}",
                f"use {', '.join(FIELDS)}",
            )


def _check_policy(definition: _Definition, names: tuple[str, ...], report: Report) -> None:
    if "priority" in names:
        report.refuse(
            "model-priority",
            definition.value.place(definition.value.value.index("priority")),
            "lines have no order under the effects that are compiled",
            "leave the priority column out and use deny lines",
        )


def _effect(definition: _Definition, report: Report) -> Effect:
    text = definition.value.value
    try:
        return Effect(text)
    except ValueError:
        pass
    place = definition.value.place(0)
    if "".join(text.split()) == "!some(where(p.eft==deny))":
        report.refuse(
            "effect-default-allow",
            place,
            "this effect allows every request that no line denies",
            f"write `e = {Effect.ALLOW_AND_DENY.value}`",
        )
    else:
        report.refuse(
            "effect-unsupported",
            place,
            f"the effect {text!r} is not compiled (Casbin compares its text, blanks too)",
            f"write `e = {Effect.ALLOW_AND_DENY.value}`",
        )
    return Effect.ALLOW_AND_DENY


def _definitions(source: SourceFile, report: Report) -> Iterator[_Definition]:
    if len(source.text) > MAX_MODEL_CHARACTERS:
        raise RefusedError(
            "model-size",
            Place(source.path, 1),
            f"the model has more than {MAX_MODEL_CHARACTERS} characters",
            "a model is a page; put what differs between lines into the policy",
        )
    section: str | None = ""
    for text in _joined_lines(source, report):
        if text.value.startswith("[") and text.value.endswith("]"):
            section = _section(text, report)
        elif section == "":
            report.refuse(
                "model-syntax",
                text.place(0),
                "this line stands before any section",
                "begin a section with its name in brackets, alone on its line",
            )
        elif section is not None:
            definition = _definition(section, text, report)
            if definition is not None:
                yield definition


def _section(text: Text, report: Report) -> str | None:
    name = text.value[1:-1]
    if name in _SECTIONS:
        return name
    report.refuse(
        "model-section",
        text.place(0),
        f"[{name}] is no section of a model, and Casbin would skip it without a word",
        f"use {', '.join(f'[{known}]' for known in _SECTIONS)}",
    )
    return None


def _definition(section: str, text: Text, report: Report) -> _Definition | None:
    key, equals, value = text.value.partition("=")
    start = len(key) + 1 + len(value) - len(value.lstrip())
    if not equals or not value.strip():
        report.refuse(
            "model-syntax", text.place(0), "this line defines nothing", "write `key = value`"
        )
        return None
    if "#" in value:
        report.refuse(
            "model-trailing-comment",
            text.place(text.value.index("#")),
            "engines differ on a comment behind a definition",
            "give the comment a line of its own",
        )
        return None
    return _Definition(section, key.strip(), text.place(0), _tail(text, start))


def _tail(text: Text, start: int) -> Text:
    pieces = tuple((offset - start, place) for offset, place in text.pieces if offset > start)
    return Text(text.value[start:].rstrip(), ((0, text.place(start)), *pieces))


def _joined_lines(source: SourceFile, report: Report) -> Iterator[Text]:
    value, pieces = "", list[tuple[int, Place]]()
    for number, raw in enumerate(source.text.split("\n"), start=1):
        line = raw.strip()
        place = Place(source.path, number, len(raw) - len(raw.lstrip()) + 1)
        plain = bool(line) and line[0] not in "#;"
        if pieces and (not plain or line.startswith("[")):
            report.refuse(
                "model-syntax",
                place,
                "a continued definition is broken by this line",
                "end the line before it without a backslash",
            )
            value, pieces = "", []
        if not plain:
            continue
        if not line.isascii() or not line.replace("\t", " ").isprintable():
            report.refuse(
                "model-characters", place, "only printable ASCII has one meaning", "spell it so"
            )
            continue
        pieces.append((len(value), place))
        value += line[:-1].rstrip() + " " if line.endswith("\\") else line
        if not line.endswith("\\"):
            yield Text(value, tuple(pieces))
            value, pieces = "", []
    if pieces:
        report.refuse(
            "model-syntax", pieces[-1][1], "the file ends in a continued line", "end the definition"
        )
