"""JSON that every reader understands in one way (RFC 8259 §4, §6): what is ambiguous is refused.

A security decision on JSON must not depend on which of two members of one name a parser takes, nor
on numbers that JSON does not have.
"""

import json
from typing import NoReturn

from garrison.identity.errors import RejectedError


class JsonRejectedError(RejectedError):
    """A text is not one unambiguous JSON object."""


def parse_object(text: bytes) -> dict[str, object]:
    """Parse UTF-8 text of one object.

    Raises `JsonRejectedError`; the caller bounds the size.
    """
    try:
        parsed = json.loads(
            text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise JsonRejectedError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(parsed, dict):
        raise JsonRejectedError("not a JSON object")
    return parsed


def _without_duplicates(members: list[tuple[str, object]]) -> dict[str, object]:
    parsed = dict(members)
    if len(parsed) != len(members):
        raise JsonRejectedError("a JSON object has two members of one name")
    return parsed


def _no_constant(name: str) -> NoReturn:
    raise JsonRejectedError(f"{name} is not JSON")
