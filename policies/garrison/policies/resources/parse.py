"""A file's documents to resources, or to diagnostics that name the field.

The shapes are pydantic's; its errors are translated here, once, into places of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from garrison.policies.diagnostics import Diagnostics, Place
from garrison.policies.resources.documents import Document, Path, field_name, parse_documents
from garrison.policies.resources.http_route import IDEMPOTENT, HTTPRoute
from garrison.policies.resources.mesh import Mesh
from garrison.policies.resources.not_built import remedy_of_unknown
from garrison.policies.resources.registration import RegistrationEntry
from garrison.policies.resources.service import Service
from garrison.policies.resources.traffic_policy import TrafficPolicy

Resource = Mesh | Service | HTTPRoute | TrafficPolicy | RegistrationEntry
ResourceT_co = TypeVar("ResourceT_co", bound=Resource, covariant=True)

KINDS: Mapping[str, type[Resource]] = {
    kind.__name__: kind for kind in (Mesh, Service, HTTPRoute, TrafficPolicy, RegistrationEntry)
}
_OWN = "garrison.dev/"
_ANNOTATIONS: Mapping[str, frozenset[str]] = {"HTTPRoute": frozenset({IDEMPOTENT})}


@dataclass(frozen=True, slots=True)
class Placed(Generic[ResourceT_co]):
    """A resource and where it is written."""

    value: ResourceT_co
    document: Document

    def place(self, *path: str | int) -> Place:
        """Name one of its fields."""
        return self.document.place(path)


def parse_resources(file: str, text: str, diagnostics: Diagnostics) -> list[Placed[Resource]]:
    """Parse every resource of a YAML file; findings go to `diagnostics`."""
    resources = []
    for document in parse_documents(file, text, diagnostics):
        resource = _parse(document, diagnostics)
        if resource is not None:
            resources.append(resource)
    return resources


def _parse(document: Document, diagnostics: Diagnostics) -> Placed[Resource] | None:
    value = document.value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    shape = KINDS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        shown = f"the kind {str(kind)[:80]!r} is not known" if kind else "says no kind"
        remedy = f"give one of the kinds {', '.join(KINDS)}"
        diagnostics.add(document.place(("kind",)), "resource/kind", shown, remedy)
        return None
    try:
        resource = Placed(shape.model_validate(value), document)
    except ValidationError as error:
        for details in _causes(error):
            _report(shape.__name__, document, details, diagnostics)
        return None
    return resource if _has_known_annotations(resource, diagnostics) else None


def _causes(error: ValidationError) -> list[ErrorDetails]:
    """Leave out that a list is too short where it is so only for its refused items."""
    found = error.errors(include_url=False, include_context=False)
    inside = {details["loc"][:length] for details in found for length in range(len(details["loc"]))}
    return [each for each in found if each["type"] != "too_short" or each["loc"] not in inside]


def _report(kind: str, document: Document, details: ErrorDetails, diagnostics: Diagnostics) -> None:
    path: Path = details["loc"]
    place = document.place(path)
    match details["type"]:
        case "extra_forbidden":
            reason, remedy = remedy_of_unknown(kind, path)
            diagnostics.add(place, "resource/unknown-field", reason, remedy)
        case "missing":
            diagnostics.add(place, "resource/missing-field", "is required", "give it")
        case _:
            reason = _reason(details)
            diagnostics.add(place, "resource/field", reason, f"correct {field_name(path) or kind}")


def _reason(details: ErrorDetails) -> str:
    message = details["msg"].removeprefix("Value error, ")
    match details["type"]:
        case "string_type":
            return "a text is wanted; quote it"
        case "int_type":
            return "a whole number is wanted, without quotes"
        case "tuple_type":
            return "a list is wanted"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "fields are wanted here"
        case "literal_error":
            return message.removeprefix("Input should be ") + " is wanted"
    return message[:1].lower() + message[1:]


def _has_known_annotations(resource: Placed[Resource], diagnostics: Diagnostics) -> bool:
    kind = resource.value.kind
    known = _ANNOTATIONS.get(kind, frozenset())
    annotations = resource.value.metadata.annotations
    unknown = [name for name in annotations if name.startswith(_OWN) and name not in known]
    for name in unknown:
        diagnostics.add(
            resource.place("metadata", "annotations", name),
            "resource/unknown-annotation",
            f"is no annotation of {kind}",
            f"known are: {', '.join(sorted(known)) or 'none'}",
        )
    return not unknown
