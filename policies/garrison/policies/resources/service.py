"""`Service`: who serves, where, and in which protocol. Nothing of it is guessed."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from garrison.policies.resources.fields import Account, Label, Metadata, Port, Shape, Words

Protocol = Literal["http", "http2", "grpc", "tcp"]


def _is_address(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no IP address") from None
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise ValueError(f"{text!r} is no address of one endpoint")
    if str(address) != text:
        raise ValueError(f"{text!r} is written {address}")
    return text


class Endpoint(Shape):
    """Where one instance's sidecar takes connections from the mesh."""

    address: Annotated[str, AfterValidator(_is_address)] = Field(description="An IP address.")
    port: Port = Field(description="The inbound port of the sidecar, mostly 15006.")
    labels: Words = Field(default={}, description="By these a version is selected.")


class ServiceSpec(Shape):
    """A service, or (with `versionOf`) some endpoints of one under a name of their own."""

    protocol: Protocol | None = Field(
        default=None,
        description="What the application speaks: http is HTTP/1.1. Required of a service. "
        "tcp can be declared, but nothing carries it yet.",
    )
    port: Port | None = Field(
        default=None, description="The port by which callers name it (host:port). Required."
    )
    identities: tuple[Account, ...] = Field(
        default=(), description="NAMESPACE/ACCOUNT of each workload that serves it. Required."
    )
    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=10_000)
    client_port: Port | None = Field(
        default=None,
        description="Callers' sidecars also listen for this service alone on this port.",
    )
    version_of: Label | None = Field(
        default=None, description="The service, of this namespace, that this is a version of."
    )
    labels: Words | None = Field(
        default=None, description="With versionOf: labels that select its endpoints."
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> ServiceSpec:
        own = [
            ("protocol", self.protocol is not None),
            ("port", self.port is not None),
            ("identities", bool(self.identities)),
            ("endpoints", bool(self.endpoints)),
        ]
        if self.version_of is None:
            missing = [name for name, given in own if not given]
            if missing:
                raise ValueError(f"a service needs {', '.join(missing)}")
            if self.labels is not None:
                raise ValueError("labels belong to a version, which says versionOf")
            return self
        extra = [name for name, given in own if given]
        if extra or self.client_port is not None:
            names = ", ".join(extra) or "clientPort"
            raise ValueError(f"a version takes {names} from the service that it is a version of")
        if not self.labels:
            raise ValueError("a version needs labels that select its endpoints")
        return self


class Service(Shape):
    """A destination in the mesh."""

    api_version: Literal["garrison.dev/v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec
