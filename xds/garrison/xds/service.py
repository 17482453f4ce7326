"""Which gRPC service is served and how its types are sent: the data by which our users differ."""

from __future__ import annotations

from dataclasses import dataclass

WILDCARD = "*"  # xDS protocol, "How the client specifies what resources to return"


@dataclass(frozen=True, slots=True)
class TypeRule:
    """How resources of one type are sent.

    url: the type's URL.
    wildcard_if_unnamed: a first request without names means all (LDS and CDS of old; `*` always).
    warms: the URL of a type before this one, whose resources are put to use only with their
        namesakes of this type: when one changed, its namesake is sent again, and what a client asks
        for by name does not wait for that type's ACK. (Envoy holds back the ACK of clusters until
        it has had the endpoints of each new or changed one.)
    last: names that are sent when a client has everything else, and again after anything else was
        sent; only to clients that subscribe to all types. Their ACK says that all before was taken.
    anew: what a client says at the start of a stream that it has is sent all the same: a claim is
        no ACK, and whoever counts ACKs would miss each client that came back with a new SVID.
    """

    url: str
    wildcard_if_unnamed: bool = False
    warms: str | None = None
    last: frozenset[str] = frozenset()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Method:
    """The two streaming methods of an xDS service."""

    service: str
    delta: str
    state_of_the_world: str


AGGREGATED = Method(
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "DeltaAggregatedResources",
    "StreamAggregatedResources",
)
SECRETS = Method("envoy.service.secret.v3.SecretDiscoveryService", "DeltaSecrets", "StreamSecrets")


@dataclass(frozen=True, slots=True)
class Service:
    """An xDS service: its methods, and its types in the order in which they are sent."""

    method: Method
    types: tuple[TypeRule, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may make us hold."""

    streams: int = 20_000
    streams_of_one_identity: int = 2_000
    held_bytes: int = 1024 * 1024 * 1024  # of clients' own making, by all streams together
    held_bytes_of_one_identity: int = 64 * 1024 * 1024
    names: int = 20_000  # named in subscriptions to one type
    name_characters: int = 512  # of a resource's name or version
    node_field_characters: int = 512
    metadata_fields: int = 64
    request_bytes: int = 1024 * 1024  # enough to claim 10,000 resources; gRPC buffers one a stream
    response_bytes: int = 3 * 1024 * 1024  # a delta response beyond goes in parts; gRPC takes 4 MiB
    first_request_seconds: float = 15.0
    write_seconds: float = 60.0  # for a client to take one response
    reason_characters: int = 2_000  # of a NACK
