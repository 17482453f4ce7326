"""Small messages that several types are made of."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy.config.core.v3 import address_pb2, config_source_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from garrison.policies.binding import Address


def packed(message: Message) -> Any:
    """Wrap a message as `typed_config` fields want it; equal messages give equal bytes."""
    wrapped = Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def duration(value: timedelta) -> Duration:
    """Write a duration."""
    result = Duration()
    result.FromTimedelta(value)
    return result


def socket_address(address: Address) -> address_pb2.Address:
    """Write a TCP address."""
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=address.host, port_value=address.port)
    )


def from_ads() -> config_source_pb2.ConfigSource:
    """Say that a resource comes by the same stream as this one."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )
