"""The state-of-the-world protocol variant: DiscoveryRequest and DiscoveryResponse.

Follows https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. A response is always all
that the client is to have of the type; its version is `LABEL/HASH` of what it carries.
"""

from __future__ import annotations

import hashlib

from envoy.service.discovery.v3 import discovery_pb2

from garrison.xds import wire
from garrison.xds.client import Acknowledged, Refused
from garrison.xds.stream import Outgoing, Stream

WHOLE_STATE = True
_VERSION, _TYPE_URL, _NONCE = 1, 4, 5


def parse(data: bytes) -> discovery_pb2.DiscoveryRequest:
    """Parse a request; raises `google.protobuf.message.DecodeError`."""
    return discovery_pb2.DiscoveryRequest.FromString(data)


def on_request(
    stream: Stream, request: discovery_pb2.DiscoveryRequest
) -> Acknowledged | Refused | None:
    """Take one request: the names wanted from now on, and the answer to the response that it names.

    One that answers an older response is ignored whole: its sender will answer the newer one.
    """
    subscription, is_first = stream.subscription(request.type_url)
    answer = None
    if request.response_nonce and not is_first:
        if request.response_nonce != subscription.last_nonce:
            return None
        refusal = request.error_detail.message if request.HasField("error_detail") else None
        answer = stream.answer(subscription, request.response_nonce, refusal)
    stream.check_names(request.resource_names)
    subscription.replace(request.resource_names)
    stream.check_size(subscription)
    return answer


def encode(outgoing: Outgoing) -> bytes:
    """Join the response from the resources' own bytes."""
    content = "\n".join(f"{each.name}\0{each.version}" for each in outgoing.update.carried)
    digest = hashlib.sha256(content.encode()).hexdigest()[:40]
    chunks = [
        wire.field(_VERSION, f"{outgoing.label}/{digest}".encode()),
        wire.field(_TYPE_URL, outgoing.type_url.encode()),
        wire.field(_NONCE, outgoing.nonce.encode()),
    ]
    for each in outgoing.update.carried:
        chunks += (each.state_head, each.body)
    return b"".join(chunks)
