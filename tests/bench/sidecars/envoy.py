"""A pair of Envoys, set up by hand from Envoy's documentation, with nothing that is not asked for.

The upstream TLS context stops at TLS 1.2 unless told otherwise; key exchanges are BoringSSL's, with
X25519MLKEM768 put first. Sessions are not resumed, as nowhere here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from garrison.deploy.demo.processes import Program
from tests.bench.repository import (
    CALLEE,
    CALLER,
    GRPC_HOST,
    HTTP_HOST,
    METHOD,
    PREFIXES,
    ROUTED,
    TRUST_DOMAIN,
)
from tests.bench.sidecars.topology import H1, H2, Kind, Plan

Json = dict[str, Any]
_API = "type.googleapis.com/envoy"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_NETWORK = f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def programs(plan: Plan) -> tuple[Program, Program]:
    return _program(plan, "client", _client(plan)), _program(plan, "server", _server(plan))


ENVOY = Kind("envoy", (H2, H1), programs, authorizes=True)


def _program(plan: Plan, side: str, static: Json) -> Program:
    name = f"envoy-{plan.protocol.replace('/', '')}-{side}"
    config = plan.directory / f"{name}.json"
    config.write_text(json.dumps({"static_resources": static}), encoding="utf-8")
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
    return Program(name, (str(plan.program), "-c", str(config), *options))


def _client(plan: Plan) -> Json:
    routes = [
        {"match": {"path_separated_prefix": each}, "route": {"cluster": "api"}} for each in ROUTED
    ]
    hosts = [
        {"name": "api", "domains": [HTTP_HOST], "routes": routes},
        {"name": "rpc", "domains": [GRPC_HOST], "routes": [_everything("rpc")]},
    ]
    tls = _upstream_tls(plan)
    ports = plan.ports
    return {
        "listeners": [
            _listener("outbound", ports.entrance, _manager(hosts, [])),
            _listener("outbound-grpc", ports.grpc_entrance, _manager(hosts, [])),
        ],
        "clusters": [
            _cluster("api", ports.door, plan.protocol, tls(HTTP_HOST, plan.protocol)),
            _cluster("rpc", ports.grpc_door, H2, tls(GRPC_HOST, H2)),
        ],
    }


def _server(plan: Plan) -> Json:
    def door(name: str, address: str, rules: Json) -> Json:
        hosts = [{"name": name, "domains": ["*"], "routes": [_everything(name)]}]
        manager = _manager(hosts, [rules]) | {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"uri": True},
        }
        listener = _listener(name, address, manager)
        listener["filter_chains"][0]["transport_socket"] = _downstream_tls(plan)
        return listener

    return {
        "listeners": [
            door("http", plan.ports.door, _rules("GET", [{"prefix": f"{p}/"} for p in PREFIXES])),
            door("grpc", plan.ports.grpc_door, _rules("POST", [{"exact": METHOD}])),
        ],
        "clusters": [
            _cluster("http", plan.applications.http, H1, None),
            _cluster("grpc", plan.applications.grpc, H2, None),
        ],
    }


def _everything(cluster: str) -> Json:
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster}}


def _listener(name: str, address: str, manager: Json) -> Json:
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": _address(address), "filter_chains": [{"filters": filters}]}


def _manager(hosts: list[Json], filters: list[Json]) -> Json:
    router = _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
    return {
        "@type": _NETWORK,
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [*filters, router],
        "normalize_path": True,
        "merge_slashes": True,
    }


def _rules(method: str, paths: list[Json]) -> Json:
    """One policy for each line, as the policy server would have it."""
    asks = {"header": {"name": ":method", "string_match": {"exact": method}}}
    caller = {"authenticated": {"principal_name": {"exact": _spiffe_id(CALLER)}}}
    policies = {
        f"bench.csv:{number}": {
            "permissions": [{"and_rules": {"rules": [asks, {"url_path": {"path": path}}]}}],
            "principals": [caller],
        }
        for number, path in enumerate(paths, start=1)
    }
    rules = {"action": "ALLOW", "policies": policies}
    return _typed("rbac", "extensions.filters.http.rbac.v3.RBAC", rules=rules)


def _cluster(name: str, address: str, protocol: str, tls: Json | None) -> Json:
    explicit = "http2_protocol_options" if protocol == H2 else "http_protocol_options"
    options = {"@type": f"type.googleapis.com/{_OPTIONS}", "explicit_http_config": {explicit: {}}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}]
    cluster: Json = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        "typed_extension_protocol_options": {_OPTIONS: options},
    }
    return cluster | ({"transport_socket": tls} if tls else {})


def _upstream_tls(plan: Plan) -> Any:  # noqa: ANN401 - a function of two names
    def tls(host: str, alpn: str) -> Json:
        server = {"san_type": "URI", "matcher": {"exact": _spiffe_id(CALLEE)}}
        common = _common_tls(plan.identities.client, alpn, server)
        context = {"common_tls_context": common, "sni": host, "max_session_keys": 0}
        name = "extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        return _typed("envoy.transport_sockets.tls", name, **context)

    return tls


def _downstream_tls(plan: Plan) -> Json:
    anybody = {"san_type": "URI", "matcher": {"prefix": f"spiffe://{TRUST_DOMAIN}/"}}
    return _typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=_common_tls(plan.identities.server, f"{H2},{H1}", anybody),
        require_client_certificate=True,
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )


def _common_tls(identity: Path, alpn: str, peer: Json) -> Json:
    certificate = {
        "certificate_chain": {"filename": str(identity / "svid.pem")},
        "private_key": {"filename": str(identity / "key.pem")},
    }
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["X25519MLKEM768", "X25519"],
        },
        "alpn_protocols": alpn.split(","),
        "tls_certificates": [certificate],
        "validation_context": {
            "trusted_ca": {"filename": str(identity / "roots.pem")},
            "match_typed_subject_alt_names": [peer],
        },
    }


def _typed(name: str, kind: str, **fields: object) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_API}.{kind}", **fields}}


def _spiffe_id(identity: str) -> str:
    namespace, _, account = identity.partition("/")
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


def _address(target: str) -> Json:
    host, _, port = target.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
