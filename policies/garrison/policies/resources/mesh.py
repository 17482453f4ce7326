"""`Mesh`: what holds for the whole repository. There is exactly one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from garrison.identity.spiffe_id import SpiffeIdRejectedError, parse_trust_domain
from garrison.policies.resources.fields import Label, Shape, Words


def _is_trust_domain(text: str) -> str:
    try:
        return parse_trust_domain(text).name
    except SpiffeIdRejectedError as error:
        raise ValueError(str(error)) from error


TrustDomainName = Annotated[
    str, AfterValidator(_is_trust_domain), Field(json_schema_extra={"pattern": "^[a-z0-9._-]+$"})
]


class MeshMetadata(Shape):
    """A mesh is in no namespace."""

    name: Label
    labels: Words = Field(default={})
    annotations: dict[str, str] = Field(default={})


class MeshSpec(Shape):
    """What every part of the mesh must agree on."""

    trust_domain: TrustDomainName = Field(
        description="The SPIFFE trust domain of all its workloads."
    )


class Mesh(Shape):
    """The mesh that this repository describes."""

    api_version: Literal["garrison.dev/v1"]
    kind: Literal["Mesh"]
    metadata: MeshMetadata
    spec: MeshSpec
