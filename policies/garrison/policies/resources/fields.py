"""Types of single fields, shared by all kinds. Each parses to a value that cannot be wrong."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # RFC 1123 §2.1, one label
_LABEL = re.compile(LABEL.removesuffix("$") + r"\Z")
_ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DURATION = re.compile(r"([0-9]{1,5}(?:h|ms|m|s)){1,4}")  # GEP-2257
_TERM = re.compile(r"([0-9]{1,5})(h|ms|m|s)")
_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


class Shape(BaseModel):
    """Base of everything read from a file: frozen; no unknown fields, no silent conversions."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
    )


class Name(NamedTuple):
    """A service or route: `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Write it as policy does."""
        return f"{self.namespace}/{self.name}"


def parse_duration(text: object) -> timedelta:
    """Parse a Gateway API duration (GEP-2257).

    >>> parse_duration("1m30s").total_seconds()
    90.0
    """
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError("a duration such as 500ms, 10s or 1m30s is wanted")
    return sum((int(count) * _UNITS[unit] for count, unit in _TERM.findall(text)), timedelta())


def _write_duration(duration: timedelta) -> str:
    """Write a duration as it is parsed, in the largest unit that is exact."""
    for unit, length in _UNITS.items():
        if duration % length == timedelta(0) and duration >= length:
            return f"{duration // length}{unit}"
    return "0s"


def _is_positive(duration: timedelta) -> timedelta:
    if duration <= timedelta(0):
        raise ValueError("a duration above 0s is wanted")
    return duration


def _is_label(text: str) -> str:
    if not _LABEL.match(text):
        raise ValueError(
            f"{text[:80]!r} is no name: up to 63 of a-z 0-9 -, beginning and ending with a "
            "letter or digit"
        )
    return text


def _parse_workload(text: object) -> Name:
    if isinstance(text, str):
        match text.split("/"):
            case [namespace, account] if _LABEL.match(namespace) and _ACCOUNT.fullmatch(account):
                return Name(namespace, account)
    raise ValueError("NAMESPACE/ACCOUNT is wanted, such as bookstore/web")


Label = Annotated[str, AfterValidator(_is_label), Field(json_schema_extra={"pattern": LABEL})]
Port = Annotated[int, Field(ge=1, le=65535)]
Duration = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    PlainSerializer(_write_duration),
    WithJsonSchema({"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}),
]
PositiveDuration = Annotated[Duration, AfterValidator(_is_positive)]
Account = Annotated[
    Name,
    PlainValidator(_parse_workload),
    WithJsonSchema({"type": "string", "pattern": r"^[a-z0-9-]+/[a-z0-9.-]+$"}),
]


def _are_words(words: dict[str, str]) -> dict[str, str]:
    for word in (*words, *words.values()):
        if len(word) > 253 or not word.isprintable():  # noqa: PLR2004 -- as in Kubernetes
            raise ValueError(f"{word[:80]!r} is longer than 253 or not printable")
    return words


Words = Annotated[dict[str, str], AfterValidator(_are_words)]


class Metadata(Shape):
    """`metadata`, as in Kubernetes. The namespace is never guessed."""

    name: Label
    namespace: Label
    labels: Words = Field(default={}, description="Free; garrison gives them no meaning.")
    annotations: dict[str, str] = Field(
        default={}, description="Free, but for those that begin with garrison.dev/."
    )
