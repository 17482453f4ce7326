"""The published JSON Schemas are those of the types, and agree with them on the example."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from garrison.policies.resources import KINDS
from garrison.policies.schemas import published, shipped
from tests.policies.bookstore import example_texts
from tests.policies.test_resources import ALL


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_schemas_are_those_of_the_types(kind: str) -> None:
    assert shipped(kind) == dict(published())[f"{kind}.json"], (
        "run: python -m garrison.policies.schemas"
    )


def resources() -> list[dict[str, Any]]:
    texts = [text for path, text in example_texts().items() if path.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text)] + ALL


@pytest.mark.parametrize("resource", resources(), ids=lambda each: each["metadata"]["name"])
def test_schemas_accept_what_is_accepted_and_no_more(
    resource: dict[str, Any],
) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(shipped(resource["kind"])))
    validator.validate(resource)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**resource, "spec": {**resource["spec"], "unknown": 1}})
