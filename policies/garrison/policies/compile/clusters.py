"""Clusters: how a service is reached, balanced, given up on, and who must answer there."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.cluster.v3 import circuit_breaker_pb2, outlier_detection_pb2
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from envoy.type.v3 import percent_pb2
from google.protobuf.wrappers_pb2 import UInt32Value
from spiffe import TrustDomain

from garrison.policies.binding import Address
from garrison.policies.compile import endpoints, tls
from garrison.policies.compile.wire import duration, from_ads, packed
from garrison.policies.mesh import Protocol, Service
from garrison.policies.resources.traffic_policy import Circuit, OutlierDetection

APPLICATION = "application"
APPLICATION_CONNECT_TIMEOUT = timedelta(seconds=1)
_METADATA = "garrison"
_BALANCING = {
    "LeastLatency": Cluster.LEAST_REQUEST,
    "RoundRobin": Cluster.ROUND_ROBIN,
    "Random": Cluster.RANDOM,
}


def of_service(service: Service, trust_domain: TrustDomain) -> Cluster:
    """Make the cluster of a service, or of a version of it."""
    cluster = Cluster(
        name=str(service.name),
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(
            eds_config=from_ads(), service_name=str(service.name)
        ),
        connect_timeout=duration(service.traffic.connect_timeout),
        lb_policy=_BALANCING[service.traffic.load_balancing.algorithm],
        circuit_breakers=_circuit_breakers(service.traffic.circuit),
        outlier_detection=_outlier_detection(service.traffic.outlier_detection),
        transport_socket=tls.upstream(
            trust_domain, service.identities, f"{service.parent.name}.{service.parent.namespace}"
        ),
    )
    cluster.metadata.filter_metadata[_METADATA].update({"service": str(service.parent)})
    _set_protocol(cluster, _between_sidecars(service.protocol))
    return cluster


def of_application(service: Service, address: Address) -> Cluster:
    """Make the cluster of the application beside the sidecar of `service`."""
    cluster = Cluster(
        name=APPLICATION,
        type=Cluster.STATIC,
        load_assignment=endpoints.of_addresses(APPLICATION, [address]),
        connect_timeout=duration(APPLICATION_CONNECT_TIMEOUT),
        lb_policy=Cluster.ROUND_ROBIN,
    )
    _set_protocol(cluster, _explicit(service.protocol))
    return cluster


def _set_protocol(cluster: Cluster, options: HttpProtocolOptions) -> None:
    extension = HttpProtocolOptions.DESCRIPTOR.full_name
    cluster.typed_extension_protocol_options[extension].CopyFrom(packed(options))


def _between_sidecars(protocol: Protocol) -> HttpProtocolOptions:
    """Let ALPN choose for HTTP/1.1 services; what needs HTTP/2 is carried by nothing else."""
    if protocol != "http":
        return _explicit(protocol)
    return HttpProtocolOptions(
        auto_config=HttpProtocolOptions.AutoHttpConfig(
            http_protocol_options=protocol_pb2.Http1ProtocolOptions(),
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions(),
        )
    )


def _explicit(protocol: Protocol) -> HttpProtocolOptions:
    """Speak what the service declares: `http` is HTTP/1.1, the others are HTTP/2."""
    if protocol == "http":
        config = HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=protocol_pb2.Http1ProtocolOptions()
        )
    else:
        config = HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
        )
    return HttpProtocolOptions(explicit_http_config=config)


def _circuit_breakers(circuit: Circuit) -> circuit_breaker_pb2.CircuitBreakers:
    budget = circuit.retry_budget
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=UInt32Value(value=circuit.max_connections),
        max_pending_requests=UInt32Value(value=circuit.max_pending_requests),
        max_requests=UInt32Value(value=circuit.max_requests),
        retry_budget=circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget(
            budget_percent=percent_pb2.Percent(value=budget.percent),
            min_retry_concurrency=UInt32Value(value=budget.min_concurrency),
        ),
    )
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])


def _outlier_detection(outlier: OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    return outlier_detection_pb2.OutlierDetection(
        consecutive_5xx=UInt32Value(value=outlier.consecutive_errors),
        interval=duration(outlier.interval),
        base_ejection_time=duration(outlier.base_ejection_time),
        max_ejection_time=duration(outlier.max_ejection_time),
        max_ejection_percent=UInt32Value(value=outlier.max_ejection_percent),
    )
