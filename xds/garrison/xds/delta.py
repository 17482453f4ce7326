"""The incremental protocol variant: DeltaDiscoveryRequest and DeltaDiscoveryResponse.

Follows https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol ("Incremental xDS").
"""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

from garrison.xds import wire
from garrison.xds.client import Acknowledged, Refused
from garrison.xds.stream import Outgoing, Stream

WHOLE_STATE = False
_LABEL, _TYPE_URL, _NONCE, _REMOVED = 1, 4, 5, 6


def parse(data: bytes) -> discovery_pb2.DeltaDiscoveryRequest:
    """Parse a request; raises `google.protobuf.message.DecodeError`."""
    return discovery_pb2.DeltaDiscoveryRequest.FromString(data)


def on_request(
    stream: Stream, request: discovery_pb2.DeltaDiscoveryRequest
) -> Acknowledged | Refused | None:
    """Take one request: it may answer a response, change the subscription, or both."""
    subscription, is_first = stream.subscription(request.type_url)
    answer = None
    if request.response_nonce:
        refusal = request.error_detail.message if request.HasField("error_detail") else None
        answer = stream.answer(subscription, request.response_nonce, refusal)
    claimed = dict(request.initial_resource_versions) if is_first else {}
    stream.check_names(request.resource_names_subscribe, claimed, claimed.values())
    subscription.claim(claimed, stream.known(subscription))
    subscription.unsubscribe(request.resource_names_unsubscribe)
    subscription.subscribe(request.resource_names_subscribe, claimed)
    if claimed or request.resource_names_subscribe or request.resource_names_unsubscribe:
        stream.check_size(subscription)
    return answer


def encode(outgoing: Outgoing) -> bytes:
    """Join the response from the resources' own bytes."""
    chunks = [
        wire.field(_LABEL, outgoing.label.encode()),
        wire.field(_TYPE_URL, outgoing.type_url.encode()),
        wire.field(_NONCE, outgoing.nonce.encode()),
    ]
    for each in outgoing.update.carried:
        chunks += (each.delta_head, each.body)
    chunks += (wire.field(_REMOVED, name.encode()) for name in outgoing.update.removed)
    return b"".join(chunks)
