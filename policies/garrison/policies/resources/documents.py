"""YAML to plain values that know their lines.

Built from parser events, not by PyYAML's constructor: nothing of a document is ever executed or
expanded (aliases, tags and merge keys are refused), size and depth are bounded before memory is
spent, and plain scalars follow the core schema of YAML 1.2 (§10.3.2): `no` is a word, not false.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from garrison.policies.diagnostics import Diagnostics, Place

MAX_DEPTH = 24
MAX_NODES = 300_000

Path = tuple[str | int, ...]
Value = str | int | float | bool | None | tuple["Value", ...] | Mapping[str, "Value"]

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_WORDS: Mapping[str, bool | None] = {
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value (sequences are tuples) and the line of each field."""

    file: str
    line: int
    value: Value
    lines: Mapping[Path, int]

    def place(self, path: Path = ()) -> Place:
        """Name the field at `path`; where it is absent, with the line of what should hold it."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return Place(self.file, self.lines.get(known, self.line), field_name(path))


def field_name(path: Path) -> str:
    """Write a path as people do.

    >>> field_name(("spec", "rules", 0, "matches"))
    'spec.rules[0].matches'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def parse_documents(file: str, text: str, diagnostics: Diagnostics) -> tuple[Document, ...]:
    """Parse all documents of a file; empty ones are left out. Findings go to `diagnostics`.

    After a finding nothing of the file is returned: half a file is no policy.
    """
    try:
        return tuple(_Builder(file, yaml.parse(text, Loader=yaml.CSafeLoader)).documents())
    except _UnusableError as error:
        diagnostics.add(error.place, error.code, error.reason, error.remedy)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        reason = f"not YAML: {error.problem or error.context or 'cannot be parsed'}"
        diagnostics.add(Place(file, line), "yaml/syntax", reason, "correct the YAML")
    except yaml.YAMLError:
        reason = "not YAML: holds a character that YAML forbids"
        diagnostics.add(Place(file), "yaml/syntax", reason, "remove control characters")
    return ()


class _UnusableError(Exception):
    def __init__(self, place: Place, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.place, self.code, self.reason, self.remedy = place, code, reason, remedy


@dataclass(slots=True)
class _Builder:
    file: str
    events: Iterator[Event]
    lines: dict[Path, int] = field(default_factory=dict)
    nodes: int = 0

    def documents(self) -> Iterator[Document]:
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                self.lines = {}
                first = next(self.events)
                value = self._value(first, ())
                if value is not None:
                    yield Document(self.file, _line(first), value, self.lines)

    def _value(self, event: Event, path: Path) -> Value:
        self._check(event, path)
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        return tuple(
            self._item(item, (*path, index)) for index, item in enumerate(self._until_end())
        )

    def _item(self, event: Event, path: Path) -> Value:
        self.lines[path] = _line(event)
        return self._value(event, path)

    def _mapping(self, path: Path) -> Value:
        result: dict[str, Value] = {}
        for event in self._until_end():
            self._check(event, path)
            if not isinstance(event, ScalarEvent):
                raise self._unusable(
                    event, path, "yaml/key", "a key is not a word", "use plain words as keys"
                )
            key = event.value
            if key in result:
                first = f"first on line {self.lines[*path, key]}"
                raise self._unusable(
                    event,
                    (*path, key),
                    "yaml/duplicate-key",
                    f"the key {key!r} is given twice, {first}",
                    "keep one of the two",
                )
            self.lines[*path, key] = _line(event)
            result[key] = self._value(next(self.events), (*path, key))
        return result

    def _until_end(self) -> Iterator[Event]:
        for event in self.events:
            if isinstance(event, CollectionEndEvent):
                return
            yield event

    def _check(self, event: Event, path: Path) -> None:
        self.nodes += 1
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise self._unusable(
                event, path, "yaml/alias", "anchors and aliases are refused", "write the value out"
            )
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag:
            raise self._unusable(
                event, path, "yaml/tag", f"the tag {event.tag!r} is refused", "remove the tag"
            )
        if len(path) > MAX_DEPTH or self.nodes > MAX_NODES:
            limit = f"deeper than {MAX_DEPTH} levels or over {MAX_NODES} values"
            raise self._unusable(event, path[:3], "yaml/size", limit, "split the file")

    def _unusable(
        self, event: Event, path: Path, code: str, reason: str, remedy: str
    ) -> _UnusableError:
        return _UnusableError(
            Place(self.file, _line(event), field_name(path)), code, reason, remedy
        )


def _line(event: Event) -> int:
    mark: Any = event.start_mark
    return int(mark.line) + 1


def _scalar(event: ScalarEvent) -> Value:
    text: str = event.value
    if event.style is not None and event.style != "":
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
