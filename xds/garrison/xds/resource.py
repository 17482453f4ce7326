"""A resource, encoded once, and the immutable set of them that one client is to have.

The version of a resource is the hash of its content (xDS protocol, "Resource Versions"): any
replica can tell what a client of another has. Bytes are shared by all streams.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from garrison.xds import wire

if TYPE_CHECKING:
    from google.protobuf.message import Message

TYPE_URL_PREFIX = "type.googleapis.com/"
_RESPONSE_RESOURCES = 2  # DiscoveryResponse.resources, DeltaDiscoveryResponse.resources
_RESOURCE_VERSION, _RESOURCE_RESOURCE, _RESOURCE_NAME = 1, 2, 3
_ANY_TYPE_URL, _ANY_VALUE = 1, 2


@dataclass(frozen=True, slots=True)
class Resource:
    """A named message, encoded.

    `delta_head + body` is its field in a delta response, `state_head + body` in the other kind.
    """

    name: str
    version: str
    body: bytes = field(repr=False)  # the serialized google.protobuf.Any
    delta_head: bytes = field(repr=False)
    state_head: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, message: Message) -> Resource:
        """Encode `message` under `name`; equal messages have equal versions."""
        value = message.SerializeToString(deterministic=True)
        return cls.encoded(name, type_url_of(type(message)), value)

    @classmethod
    def encoded(cls, name: str, type_url: str, value: bytes) -> Resource:
        """Take an already serialized message of the type `type_url`."""
        body = wire.field(_ANY_TYPE_URL, type_url.encode()) + wire.field(_ANY_VALUE, value)
        version = hashlib.sha256(body).hexdigest()[:40]
        inner = (
            wire.field(_RESOURCE_VERSION, version.encode())
            + wire.field(_RESOURCE_NAME, name.encode())
            + wire.field_head(_RESOURCE_RESOURCE, len(body))
        )
        delta_head = wire.field_head(_RESPONSE_RESOURCES, len(inner) + len(body)) + inner
        state_head = wire.field_head(_RESPONSE_RESOURCES, len(body))
        return cls(name, version, body, delta_head, state_head)


def type_url_of(kind: type[Message]) -> str:
    """Return the type URL by which xDS names messages of this kind."""
    return TYPE_URL_PREFIX + kind.DESCRIPTOR.full_name


@dataclass(frozen=True, slots=True)
class View:
    """All that one client is to have, and the name of that state (a commit, a sequence number).

    `resources` maps a type's URL to its resources by name. Neither mapping may change afterwards.
    """

    label: str
    resources: Mapping[str, Mapping[str, Resource]]

    @classmethod
    def of(cls, label: str, by_type: Mapping[str, Iterable[Resource]]) -> View:
        """Index resources by their names."""
        named = {url: {each.name: each for each in found} for url, found in by_type.items()}
        return cls(label, named)
