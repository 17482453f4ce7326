"""Endpoints: where the instances of a service, or of a version of it, are."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from garrison.policies.binding import Address
from garrison.policies.compile.wire import socket_address
from garrison.policies.mesh import Service


def assignment(service: Service) -> endpoint_pb2.ClusterLoadAssignment:
    """List the endpoints of a service under its cluster's name."""
    addresses = (Address(endpoint.address, endpoint.port) for endpoint in service.endpoints)
    return of_addresses(str(service.name), addresses)


def of_addresses(name: str, addresses: Iterable[Address]) -> endpoint_pb2.ClusterLoadAssignment:
    """List addresses in one locality, equal in weight."""
    locality = endpoint_components_pb2.LocalityLbEndpoints(
        lb_endpoints=[
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(address=socket_address(address)),
                health_status=health_check_pb2.HealthStatus.HEALTHY,
                load_balancing_weight=UInt32Value(value=1),
            )
            for address in addresses
        ]
    )
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[locality])
