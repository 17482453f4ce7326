"""Compiled messages have the shapes of docs/seams.md."""

from typing import Any

import pytest
from envoy.config.rbac.v3.rbac_pb2 import RBAC
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from garrison.policies.binding import Address
from garrison.policies.compile import authorization, clusters, endpoints, listeners, routes
from garrison.policies.resources.fields import Name
from tests.policies.test_validation import example, mesh_of, own_service, route

CATALOG = Name("bookstore", "catalog")
CANARY = Name("bookstore", "catalog-v2")
ORDERS = Name("bookstore", "orders")
MESH = mesh_of({})
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def shown(message: Message) -> dict[str, Any]:
    result: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return result


UPSTREAM_TLS = {
    "name": "envoy.transport_sockets.tls",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "catalog.bookstore",
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [{"name": "svid"}],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [
                        {
                            "san_type": "URI",
                            "matcher": {
                                "exact": "spiffe://bookstore.example/ns/bookstore/sa/catalog"
                            },
                        }
                    ]
                },
                "validation_context_sds_secret_config": {
                    "name": "spiffe://bookstore.example",
                    "sds_config": {
                        "resource_api_version": "V3",
                        "api_config_source": {
                            "api_type": "GRPC",
                            "transport_api_version": "V3",
                            "grpc_services": [{"envoy_grpc": {"cluster_name": "garrison-ca"}}],
                        },
                    },
                },
            },
        },
    },
}


def test_a_version_has_a_cluster_with_the_identity_and_name_of_its_service() -> None:
    cluster = shown(clusters.of_service(MESH.services[CANARY], MESH.trust_domain))
    assert cluster.pop("transport_socket") == UPSTREAM_TLS
    assert cluster == {
        "name": "bookstore/catalog-v2",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "resource_api_version": "V3"},
            "service_name": "bookstore/catalog-v2",
        },
        "connect_timeout": "0.500s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 256,
                    "max_pending_requests": 1024,
                    "max_requests": 512,
                    "retry_budget": {
                        "budget_percent": {"value": 20.0},
                        "min_retry_concurrency": 3,
                    },
                }
            ]
        },
        "outlier_detection": {
            "consecutive_5xx": 3,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_time": "5s",
            "max_ejection_percent": 50,
        },
        "metadata": {"filter_metadata": {"garrison": {"service": "bookstore/catalog"}}},
        "typed_extension_protocol_options": {
            HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                "auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
            }
        },
    }


def test_a_service_without_a_policy_has_limits_too() -> None:
    cluster = shown(clusters.of_service(MESH.services[ORDERS], MESH.trust_domain))
    (threshold,) = cluster["circuit_breakers"]["thresholds"]
    assert threshold["retry_budget"] == {
        "budget_percent": {"value": 20.0},
        "min_retry_concurrency": 3,
    }
    assert cluster["outlier_detection"]["consecutive_5xx"] == 5
    assert cluster["connect_timeout"] == "1s"


@pytest.mark.parametrize(
    ("protocol", "between", "to_application"),
    [
        ("http", "auto_config", "http_protocol_options"),
        ("http2", "http2_protocol_options", "http2_protocol_options"),
        ("grpc", "http2_protocol_options", "http2_protocol_options"),
    ],
)
def test_the_declared_protocol_is_spoken(protocol: str, between: str, to_application: str) -> None:
    mesh = mesh_of({"x.yaml": own_service("extra", protocol)})
    service = mesh.services[Name("bookstore", "extra")]
    outside = shown(clusters.of_service(service, mesh.trust_domain))
    inside = shown(clusters.of_application(service, Address("127.0.0.1", 8080)))
    key = "typed_extension_protocol_options"
    (options,) = outside[key].values()
    assert between in options.get("explicit_http_config", options)
    (options,) = inside[key].values()
    assert options["explicit_http_config"] == {to_application: {}}
    assert inside["type"] == "STATIC"
    assert "transport_socket" not in inside


def test_endpoints_are_those_of_the_version() -> None:
    assert shown(endpoints.assignment(MESH.services[CANARY])) == {
        "cluster_name": "bookstore/catalog-v2",
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {
                                "socket_address": {"address": "127.0.20.13", "port_value": 15006}
                            }
                        },
                        "health_status": "HEALTHY",
                        "load_balancing_weight": 1,
                    }
                ]
            }
        ],
    }


def test_inbound_asks_for_a_certificate_and_authorizes_before_it_forwards() -> None:
    listener = shown(
        listeners.inbound(MESH.services[CATALOG], MESH.trust_domain, Address("127.0.0.9", 15006))
    )
    (chain,) = listener["filter_chains"]
    tls = chain["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    (name,) = tls["common_tls_context"]["combined_validation_context"][
        "default_validation_context"
    ]["match_typed_subject_alt_names"]
    assert name == {"san_type": "URI", "matcher": {"prefix": "spiffe://bookstore.example/"}}
    (manager,) = (each["typed_config"] for each in chain["filters"])
    assert [each["name"] for each in manager["http_filters"]] == [
        "authz/bookstore/catalog/deny",
        "authz/bookstore/catalog/allow",
        "envoy.filters.http.router",
    ]
    for each in manager["http_filters"][:2]:
        assert each["config_discovery"] == {
            "config_source": {"ads": {}, "resource_api_version": "V3"},
            "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"],
        }
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert manager["set_current_client_cert_details"] == {"uri": True}
    assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    assert manager["normalize_path"] is True
    assert manager["merge_slashes"] is True
    (host,) = manager["route_config"]["virtual_hosts"]
    assert host["domains"] == ["*"]
    assert host["routes"][0]["route"] == {"cluster": "application", "timeout": "0s"}


def test_outbound_takes_its_routes_by_the_same_stream_and_no_certificate() -> None:
    listener = shown(listeners.outbound("outbound", Address("127.0.0.9", 15001)))
    (chain,) = listener["filter_chains"]
    assert "transport_socket" not in chain
    (manager,) = (each["typed_config"] for each in chain["filters"])
    assert manager["rds"] == {
        "config_source": {"ads": {}, "resource_api_version": "V3"},
        "route_config_name": "outbound",
    }
    assert [each["name"] for each in manager["http_filters"]] == ["envoy.filters.http.router"]


def test_rules_are_set_even_when_there_are_none() -> None:
    packed = authorization.rules("authz/x/allow", RBAC())
    rbac = rbac_pb2.RBAC()
    assert packed.typed_config.Unpack(rbac)
    assert rbac.HasField("rules")


def virtual_host(changes: dict[str, str | None], name: Name = ORDERS) -> dict[str, Any]:
    return shown(routes.virtual_host(mesh_of(changes), name, in_namespace=True))


def test_a_service_is_called_by_all_its_names() -> None:
    inside = virtual_host({})["domains"]
    outside = shown(routes.virtual_host(MESH, ORDERS, in_namespace=False))["domains"]
    assert set(inside) - set(outside) == {"orders", "orders:80"}
    assert outside == [
        "orders.bookstore",
        "orders.bookstore:80",
        "orders.bookstore.svc",
        "orders.bookstore.svc:80",
        "orders.bookstore.svc.cluster.local",
        "orders.bookstore.svc.cluster.local:80",
    ]


def test_without_a_route_all_requests_go_to_the_service() -> None:
    (default,) = virtual_host({})["routes"]
    retry = default["route"].pop("retry_policy")
    assert default == {
        "name": "bookstore/orders#default",
        "match": {"prefix": "/"},
        "route": {"cluster": "bookstore/orders", "timeout": "15s"},
    }
    assert retry["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    assert retry["num_retries"] == 2
    assert "retriable_status_codes" not in retry
    assert [each["name"] for each in retry["retry_host_predicate"]] == [
        "envoy.retry_host_predicates.previous_hosts"
    ]


def test_weights_timeouts_and_retries_of_an_idempotent_rule() -> None:
    (books,) = virtual_host({}, CATALOG)["routes"]
    retry = books["route"].pop("retry_policy")
    assert books["name"] == "bookstore/catalog#books"
    assert books["route"] == {
        "weighted_clusters": {
            "clusters": [
                {"name": "bookstore/catalog-v1", "weight": 90},
                {"name": "bookstore/catalog-v2", "weight": 10},
            ]
        },
        "timeout": "5s",
    }
    assert retry["retry_on"].split(",")[3:] == ["reset", "retriable-status-codes"]
    assert retry["retriable_status_codes"] == [502, 503, 504]
    assert retry["per_try_timeout"] == "2s"


def test_only_the_rule_that_is_marked_is_retried_after_an_answer() -> None:
    rules = (
        "{name: a, backendRefs: [{name: orders}], retry: {codes: [500], attempts: 3, backoff: 1s}},"
        "{name: b, backendRefs: [{name: orders}], matches: [{method: POST}]}"
    )
    text = route("r", rules, annotations="garrison.dev/idempotent: a")
    by_name = {each["name"]: each["route"] for each in virtual_host({"x.yaml": text})["routes"]}
    marked = by_name["bookstore/r#a"]["retry_policy"]
    assert marked["retriable_status_codes"] == [500]
    assert marked["num_retries"] == 3
    assert marked["retry_back_off"] == {"base_interval": "1s", "max_interval": "10s"}
    assert "reset," not in by_name["bookstore/r#b"]["retry_policy"]["retry_on"] + ","


def test_a_timeout_of_zero_is_no_limit_and_weight_zero_no_cluster() -> None:
    rule = "{backendRefs: [{name: orders}, {name: ratings, weight: 0}], timeouts: {request: 0s}}"
    (only,) = virtual_host({"x.yaml": route("r", rule)})["routes"]
    assert (only["route"]["cluster"], only["route"]["timeout"]) == ("bookstore/orders", "0s")


def test_the_most_specific_match_decides_whatever_its_place() -> None:
    matches = [
        "{}",
        "{method: GET}",
        "{path: {value: /a}}",
        "{path: {value: /a/b/}}",
        "{path: {value: /a/b}, headers: [{name: X-Canary, value: '1'}]}",
        "{path: {value: /a/b}, queryParams: [{name: q, value: '1'}]}",
        "{path: {value: /a/b}, method: PUT}",
        "{path: {type: RegularExpression, value: '/a/[0-9]+'}}",
        "{path: {type: Exact, value: /a}}",
    ]
    rules = ",".join(
        f"{{name: r{number}, backendRefs: [{{name: orders}}], matches: [{match}]}}"
        for number, match in enumerate(matches)
    )
    found = virtual_host({"x.yaml": route("r", rules)})["routes"]
    assert [each["name"].rpartition("#")[2] for each in found] == [
        "r8",
        "r7",
        "r6",
        "r4",
        "r5",
        "r3",
        "r2",
        "r1",
        "r0",
    ]
    by_name = {each["name"].rpartition("#")[2]: each["match"] for each in found}
    assert by_name["r3"] == {"path_separated_prefix": "/a/b"}
    assert by_name["r7"] == {"safe_regex": {"regex": "/a/[0-9]+"}}
    assert by_name["r8"] == {"path": "/a"}
    assert by_name["r1"] == {
        "prefix": "/",
        "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
    }
    assert by_name["r4"]["headers"] == [{"name": "x-canary", "string_match": {"exact": "1"}}]
    assert by_name["r5"]["query_parameters"] == [{"name": "q", "string_match": {"exact": "1"}}]


def test_the_same_mesh_gives_the_same_bytes() -> None:
    again = mesh_of(example("services/orders.yaml", "# Takes", "# took"))
    for name in MESH.services:
        one, other = (
            clusters.of_service(mesh.services[name], mesh.trust_domain).SerializeToString(
                deterministic=True
            )
            for mesh in (MESH, again)
        )
        assert one == other
