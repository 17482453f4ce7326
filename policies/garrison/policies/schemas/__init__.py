"""The JSON Schemas of the resource kinds (draft 2020-12), for editors and other people's checks.

They are generated from the types that parse the files; `python -m garrison.policies.schemas` writes
them here, and a test holds them equal. A schema knows shapes, not what `garrison check` knows of
the whole repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files

from pydantic.json_schema import GenerateJsonSchema

from garrison.policies.resources import KINDS


class _Untitled(GenerateJsonSchema):
    """Leaves out titles that only repeat the names of fields."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 -- pydantic's own
        return False


def published() -> Iterator[tuple[str, str]]:
    """Go through the name and text of each published file, as it should be."""
    for kind, shape in KINDS.items():
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://garrison.dev/schemas/{kind}.json",
            **shape.model_json_schema(schema_generator=_Untitled),
        }
        yield f"{kind}.json", json.dumps(schema, indent=2, sort_keys=True) + "\n"


def shipped(kind: str) -> str:
    """Return the schema of a kind as it is shipped."""
    return files(__name__).joinpath(f"{kind}.json").read_text(encoding="utf-8")
