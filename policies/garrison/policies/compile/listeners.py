"""Listeners: the door of a service, the forward proxy of its calls, and a door for one callee."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.core.v3 import base_pb2, config_source_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (  # noqa: E501
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from google.protobuf.wrappers_pb2 import BoolValue
from spiffe import TrustDomain

from garrison.policies.binding import Address
from garrison.policies.compile import authorization, routes, tls
from garrison.policies.compile.wire import duration, from_ads, packed, socket_address
from garrison.policies.mesh import Service
from garrison.xds.resource import type_url_of

INBOUND = "inbound"
OUTBOUND = "outbound"
IDLE_TIMEOUT = timedelta(seconds=300)
_HTTP = "envoy.filters.network.http_connection_manager"


def inbound(service: Service, trust_domain: TrustDomain, address: Address) -> listener_pb2.Listener:
    """Make the door of `service`: mutual TLS, deny and allow rules, then the application."""
    manager = _manager(INBOUND)
    rules = (authorization.deny_name(service.name), authorization.allow_name(service.name))
    manager.http_filters.extend([*(_rules(name) for name in rules), _router()])
    manager.route_config.CopyFrom(routes.to_application(service))
    manager.forward_client_cert_details = HttpConnectionManager.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    listener = _listener(INBOUND, address, manager)
    listener.traffic_direction = base_pb2.TrafficDirection.INBOUND
    listener.filter_chains[0].transport_socket.CopyFrom(tls.downstream(trust_domain))
    return listener


def outbound(name: str, address: Address) -> listener_pb2.Listener:
    """Make a door for the application's own calls, routed by the RouteConfiguration `name`."""
    manager = _manager(name)
    manager.http_filters.append(_router())
    manager.rds.CopyFrom(Rds(config_source=from_ads(), route_config_name=name))
    listener = _listener(name, address, manager)
    listener.traffic_direction = base_pb2.TrafficDirection.OUTBOUND
    return listener


def _listener(name: str, address: Address, manager: HttpConnectionManager) -> listener_pb2.Listener:
    chain = listener_components_pb2.FilterChain(
        filters=[listener_components_pb2.Filter(name=_HTTP, typed_config=packed(manager))]
    )
    return listener_pb2.Listener(name=name, address=socket_address(address), filter_chains=[chain])


def _manager(name: str) -> HttpConnectionManager:
    """Set what makes Envoy see the one canonical request that garrison-proxy sees."""
    return HttpConnectionManager(
        stat_prefix=name,
        normalize_path=BoolValue(value=True),
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManager.REJECT_REQUEST,
        strip_trailing_host_dot=True,
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=duration(IDLE_TIMEOUT),
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
        ),
    )


def _rules(name: str) -> HttpFilter:
    """Take rules by extension discovery, so that a revocation reaches open connections too."""
    source = config_source_pb2.ExtensionConfigSource(
        config_source=from_ads(), type_urls=[type_url_of(rbac_pb2.RBAC)]
    )
    return HttpFilter(name=name, config_discovery=source)


def _router() -> HttpFilter:
    return HttpFilter(name="envoy.filters.http.router", typed_config=packed(router_pb2.Router()))
