"""Mutual TLS 1.3 between sidecars: whose certificate is shown, and whose is believed.

The two secrets' names are the contract: `svid` is the node's own, `spiffe://TD` the trust bundle,
which the CA alone hands out. Trust domain and bundle are bound to each other by the URI prefix, or
the exact URIs, beside the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.wrappers_pb2 import BoolValue
from spiffe import SpiffeId, TrustDomain

from garrison.policies.compile.wire import packed

TRANSPORT_SOCKET = "envoy.transport_sockets.tls"
SVID_SECRET = "svid"  # noqa: S105 -- the name of a secret
CA_CLUSTER = "garrison-ca"
_ALPN = ("h2", "http/1.1")


def downstream(trust_domain: TrustDomain) -> base_pb2.TransportSocket:
    """Accept any workload of the trust domain; what it may do is authorization's to say."""
    prefix = string_pb2.StringMatcher(prefix=f"spiffe://{trust_domain}/")
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=_common(trust_domain, [prefix]),
        require_client_certificate=BoolValue(value=True),
    )
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=packed(context))


def upstream(
    trust_domain: TrustDomain, identities: Iterable[SpiffeId], sni: str
) -> base_pb2.TransportSocket:
    """Accept exactly the identities that serve a service."""
    exact = [string_pb2.StringMatcher(exact=str(identity)) for identity in identities]
    context = tls_pb2.UpstreamTlsContext(common_tls_context=_common(trust_domain, exact), sni=sni)
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=packed(context))


def _common(
    trust_domain: TrustDomain, names: Iterable[string_pb2.StringMatcher]
) -> tls_pb2.CommonTlsContext:
    accepted = common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=[
            common_pb2.SubjectAltNameMatcher(
                san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=name
            )
            for name in names
        ]
    )
    return tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
            tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        ),
        alpn_protocols=_ALPN,
        tls_certificate_sds_secret_configs=[secret_pb2.SdsSecretConfig(name=SVID_SECRET)],
        combined_validation_context=tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
            default_validation_context=accepted,
            validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(
                name=f"spiffe://{trust_domain}", sds_config=_from_ca()
            ),
        ),
    )


def _from_ca() -> config_source_pb2.ConfigSource:
    grpc = grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CA_CLUSTER)
    )
    return config_source_pb2.ConfigSource(
        api_config_source=config_source_pb2.ApiConfigSource(
            api_type=config_source_pb2.ApiConfigSource.GRPC,
            transport_api_version=config_source_pb2.ApiVersion.V3,
            grpc_services=[grpc],
        ),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )
