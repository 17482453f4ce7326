//! What the proxy takes from the policy server, and by which name it refuses everything else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may
#![allow(clippy::semicolon_if_nothing_returned, clippy::default_trait_access)] // one change a line
#![allow(clippy::unnecessary_wraps, clippy::wildcard_imports)]

mod support;

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::{
    Thresholds, thresholds::RetryBudget,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::{
    HttpProtocolOptions, Metadata, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as Effect;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, RetryPolicy, Route, RouteAction, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions as Upstream;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration as Span, UInt32Value};
use envoy_types::util::pack_any;
use garrison_proxy::mesh::route::{Action, Forward, PathMatch, RouteTable};
use garrison_proxy::xds::resource::{Kind, Resource};
use garrison_proxy::xds::staging::check_whole;
use proptest::prelude::*;
use support::resources::*;

fn decode(any: &Any) -> Result<Resource, String> {
    let kind = Kind::of_type_url(&any.type_url).unwrap();
    Resource::decode(kind, any)
        .map(|(_, resource)| resource)
        .map_err(|refused| refused.fault.to_string())
}

fn refusals(resources: &[Any]) -> Vec<String> {
    check_whole(resources)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn cluster_with(change: impl FnOnce(&mut Cluster)) -> Result<Resource, String> {
    let mut message = cluster("bookstore/catalog");
    change(&mut message);
    decode(&pack_any(message))
}

fn upstream_with(change: impl FnOnce(&mut UpstreamTlsContext)) -> Result<Resource, String> {
    let mut context = upstream_tls();
    change(&mut context);
    cluster_with(|cluster| cluster.transport_socket = Some(transport_socket(pack_any(context))))
}

fn inbound_with(
    change: impl FnOnce(&mut HttpConnectionManager, &mut DownstreamTlsContext),
) -> Result<Resource, String> {
    let (mut manager, mut context) = (inbound_manager(), downstream_tls());
    change(&mut manager, &mut context);
    decode(&pack_any(inbound(15006, manager, context)))
}

fn route_with(change: impl FnOnce(&mut Route)) -> Result<RouteTable, String> {
    let mut message = routes("outbound", &["catalog.bookstore"], "bookstore/catalog");
    change(&mut message.virtual_hosts[0].routes[0]);
    match decode(&pack_any(message))? {
        Resource::Routes(table) => Ok(std::sync::Arc::into_inner(table).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn action_with(change: impl FnOnce(&mut RouteAction)) -> Result<RouteTable, String> {
    let mut message = action("bookstore/catalog");
    change(&mut message);
    route_with(|route| *route = support::resources::route(message))
}

fn span(seconds: i64) -> Option<Span> {
    Some(Span { seconds, nanos: 0 })
}

fn assert_names<T: std::fmt::Debug>(outcome: Result<T, String>, field: &str) {
    let refusal = outcome.expect_err(field);
    assert!(refusal.contains(field), "{refusal:?} does not name {field}");
}

#[test]
fn whole_client_is_accepted() {
    assert_eq!(refusals(&whole()), Vec::<String>::new());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table of cases")]
fn set_fields_that_are_not_supported_are_named() {
    assert_names(
        cluster_with(|c| c.ignore_health_on_host_removal = true),
        "Cluster.ignore_health_on_host_removal is not supported",
    );
    assert_names(
        cluster_with(|c| c.upstream_config = Some(TypedExtensionConfig::default())),
        "Cluster.upstream_config",
    );
    assert_names(
        cluster_with(|c| {
            c.outlier_detection = Some(OutlierDetection {
                detect_degraded_hosts: Some(BoolValue { value: true }),
                ..Default::default()
            })
        }),
        "OutlierDetection.detect_degraded_hosts",
    );
    assert_names(
        upstream_with(|t| t.allow_renegotiation = true),
        "UpstreamTlsContext.allow_renegotiation",
    );
    assert_names(
        inbound_with(|m, _| m.via = "x".to_owned()),
        "HttpConnectionManager.via",
    );
    assert_names(
        inbound_with(|m, _| m.http_filters[0].is_optional = true),
        "HttpFilter.is_optional",
    );
    assert_names(
        inbound_with(|_, t| t.prefer_client_ciphers = true),
        "DownstreamTlsContext.prefer_client_ciphers",
    );
    assert_names(
        route_with(|r| r.stat_prefix = "x".to_owned()),
        "Route.stat_prefix",
    );
    assert_names(
        route_with(|r| r.r#match.as_mut().unwrap().grpc = Some(Default::default())),
        "RouteMatch.grpc",
    );
    assert_names(
        action_with(|a| a.prefix_rewrite = "/x".to_owned()),
        "RouteAction.prefix_rewrite",
    );
    assert_names(
        action_with(|a| {
            a.retry_policy = Some(RetryPolicy {
                refresh_cluster_on_retry: true,
                ..Default::default()
            })
        }),
        "RetryPolicy.refresh_cluster_on_retry",
    );
}

#[test]
fn attack_g8_fields_newer_than_this_proxy_are_refused() {
    let unknown = [0x82, 0x7d, 0x01, 0x78]; // field 2000, one byte
    let mut any = pack_any(cluster("bookstore/catalog"));
    any.value.extend(unknown);
    assert_names(
        decode(&any),
        "Cluster has fields that this proxy does not know",
    );
    // Nested in a payload of a payload.
    let mut context = pack_any(upstream_tls());
    context.value.extend(unknown);
    let outcome =
        cluster_with(|cluster| cluster.transport_socket = Some(transport_socket(context)));
    assert_names(
        outcome,
        "UpstreamTlsContext has fields that this proxy does not know",
    );
}

#[test]
fn other_types_are_refused_where_one_is_expected() {
    let other = pack_any(Upstream::default());
    assert_names(
        cluster_with(|cluster| cluster.transport_socket = Some(transport_socket(other))),
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions\" is not supported here",
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table of cases")]
fn what_would_weaken_tls_is_refused() {
    let common = |t: &mut DownstreamTlsContext,
                  change: fn(
        &mut envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::CommonTlsContext,
    )| {
        change(t.common_tls_context.as_mut().unwrap());
    };
    assert_names(
        inbound_with(|_, t| t.require_client_certificate = Some(BoolValue { value: false })),
        "DownstreamTlsContext.require_client_certificate",
    );
    assert_names(
        inbound_with(|_, t| t.require_client_certificate = None),
        "require_client_certificate",
    );
    assert_names(
        inbound_with(|_, t| {
            common(t, |c| {
                c.tls_params.as_mut().unwrap().tls_minimum_protocol_version = 3
            })
        }),
        "TlsParameters.tls_minimum_protocol_version",
    );
    assert_names(
        inbound_with(|_, t| common(t, |c| c.validation_context_type = None)),
        "combined_validation_context",
    );
    assert_names(
        inbound_with(|_, t| {
            *t = DownstreamTlsContext {
                common_tls_context: Some(common_tls(MatchPattern::Prefix("spiffe://".to_owned()))),
                ..t.clone()
            }
        }),
        "no prefix of a whole trust domain",
    );
    assert_names(
        upstream_with(|t| {
            t.common_tls_context = Some(common_tls(MatchPattern::Prefix("spiffe://a/".to_owned())))
        }),
        "must be exact SPIFFE IDs",
    );
    let mut plain = inbound(15006, inbound_manager(), downstream_tls());
    plain.filter_chains[0].transport_socket = None;
    assert_names(decode(&pack_any(plain)), "FilterChain.transport_socket");
}

#[test]
fn what_would_weaken_canonicalization_is_refused() {
    assert_names(
        inbound_with(|m, _| m.normalize_path = None),
        "HttpConnectionManager.normalize_path",
    );
    assert_names(
        inbound_with(|m, _| m.merge_slashes = false),
        "merge_slashes",
    );
    assert_names(
        inbound_with(|m, _| m.path_with_escaped_slashes_action = 1),
        "HttpConnectionManager.path_with_escaped_slashes_action",
    );
    assert_names(
        inbound_with(|m, _| m.common_http_protocol_options = Some(HttpProtocolOptions::default())),
        "HttpProtocolOptions.headers_with_underscores_action",
    );
    assert_names(
        inbound_with(|m, _| m.forward_client_cert_details = 4),
        "HttpConnectionManager.forward_client_cert_details",
    );
}

#[test]
fn inbound_without_both_kinds_of_rules_is_refused() {
    let field = "HttpConnectionManager.http_filters";
    assert_names(inbound_with(|m, _| m.http_filters = vec![router()]), field);
    assert_names(
        inbound_with(|m, _| m.http_filters = vec![rules_filter(ALLOW), router()]),
        field,
    );
    assert_names(
        inbound_with(|m, _| {
            m.http_filters = vec![rules_filter(ALLOW), rules_filter(DENY), router()]
        }),
        field,
    );
    assert_names(
        inbound_with(|m, _| m.http_filters = vec![rules_filter(DENY), rules_filter(ALLOW)]),
        field,
    );
    assert_names(
        inbound_with(|m, _| {
            m.http_filters = vec![router(), rules_filter(DENY), rules_filter(ALLOW)]
        }),
        field,
    );
    let other = "authz/bookstore/orders/allow";
    assert_names(
        inbound_with(|m, _| m.http_filters[1] = rules_filter(other)),
        field,
    );
}

#[test]
fn rules_of_the_wrong_effect_or_none_are_refused() {
    assert_names(
        decode(&pack_any(rules(DENY, Effect::Allow))),
        "RBAC.rules.action",
    );
    assert_names(
        decode(&pack_any(rules(ALLOW, Effect::Deny))),
        "RBAC.rules.action",
    );
    assert_names(
        decode(&pack_any(rules(ALLOW, Effect::Log))),
        "RBAC.rules.action",
    );
    assert_names(
        decode(&pack_any(rules("authz/x", Effect::Allow))),
        "TypedExtensionConfig.name",
    );
    let mut empty = rules(ALLOW, Effect::Allow);
    empty.typed_config = Some(pack_any(Rbac::default()));
    assert_names(decode(&pack_any(empty)), "RBAC.rules: is required");
}

fn forward(table: &RouteTable) -> &Forward {
    match &table.virtual_hosts[0].routes[0].action {
        Action::Forward(forward) => forward,
        other @ Action::Respond { .. } => panic!("{other:?}"),
    }
}

#[test]
fn routes_keep_their_meaning() {
    let table = action_with(|action| {
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: [("v1", 90), ("v2", 10)]
                .map(|(name, weight)| ClusterWeight {
                    name: name.to_owned(),
                    weight: Some(UInt32Value { value: weight }),
                    ..ClusterWeight::default()
                })
                .into(),
            ..WeightedCluster::default()
        }));
        action.retry_policy = Some(RetryPolicy {
            retry_on: "connect-failure,retriable-status-codes".to_owned(),
            retriable_status_codes: vec![503],
            num_retries: Some(UInt32Value { value: 2 }),
            ..RetryPolicy::default()
        });
    })
    .unwrap();
    let forward = forward(&table);
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    let weights: Vec<_> = forward
        .clusters
        .iter()
        .map(|one| (&*one.name, one.weight))
        .collect();
    assert_eq!(weights, [("v1", 90), ("v2", 10)]);
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!(
        (retry.max_retries, retry.on.connect_failure, retry.on.reset),
        (2, true, false)
    );
    assert_eq!(
        table
            .by_domain
            .keys()
            .map(AsRef::as_ref)
            .collect::<Vec<&str>>(),
        ["catalog.bookstore"]
    );
}

/// As in Envoy.
#[test]
fn a_timeout_of_zero_is_none() {
    let table = action_with(|action| action.timeout = span(0)).unwrap();
    let forward = forward(&table);
    assert_eq!(forward.timeout, None);
}

#[test]
fn unusable_values_in_routes_are_refused() {
    let retry = |policy| action_with(move |action| action.retry_policy = Some(policy));
    assert_names(
        retry(RetryPolicy {
            retry_on: "always".to_owned(),
            ..Default::default()
        }),
        "RetryPolicy.retry_on",
    );
    assert_names(
        retry(RetryPolicy {
            retry_on: "retriable-status-codes".to_owned(),
            ..Default::default()
        }),
        "RetryPolicy.retriable_status_codes",
    );
    assert_names(
        retry(RetryPolicy {
            retry_on: "reset".to_owned(),
            num_retries: Some(UInt32Value { value: 99 }),
            ..Default::default()
        }),
        "RetryPolicy.num_retries",
    );
    assert_names(
        action_with(|action| action.timeout = span(-1)),
        "RouteAction.timeout",
    );
    assert_names(
        action_with(|action| {
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(
                WeightedCluster::default(),
            ));
        }),
        "WeightedCluster.clusters",
    );
}

#[test]
fn only_headers_and_one_method_are_matched() {
    let host = |name: &str| HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    };
    for name in ["host", ":authority", ":path", "", "a b"] {
        let outcome =
            route_with(|route| route.r#match.as_mut().unwrap().headers = vec![host(name)]);
        assert_names(outcome, "HeaderMatcher.name");
    }
    let method = |pattern| HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ignore_case: false,
        })),
        ..HeaderMatcher::default()
    };
    let get = method(MatchPattern::Exact("GET".to_owned()));
    let table =
        route_with(|route| route.r#match.as_mut().unwrap().headers = vec![get.clone()]).unwrap();
    assert_eq!(
        table.virtual_hosts[0].routes[0].matcher.methods.as_deref(),
        Some(&[http::Method::GET][..])
    );
    for headers in [
        vec![get.clone(), get],
        vec![method(MatchPattern::Prefix("G".to_owned()))],
    ] {
        let outcome = route_with(|route| route.r#match.as_mut().unwrap().headers = headers);
        assert_names(outcome, "HeaderMatcher[:method]");
    }
}

#[test]
fn attack_g2_g6_expressions_match_whole_and_are_bounded() {
    let with = |regex: &str| {
        let matcher = RegexMatcher {
            regex: regex.to_owned(),
            engine_type: None,
        };
        route_with(|route| {
            route.r#match.as_mut().unwrap().path_specifier = Some(PathSpecifier::SafeRegex(matcher))
        })
    };
    let table = with("/a|/b").unwrap();
    let PathMatch::Regex(regex) = &table.virtual_hosts[0].routes[0].matcher.path else {
        panic!()
    };
    assert!(regex.is_match("/a") && regex.is_match("/b"));
    assert!(!regex.is_match("/ax") && !regex.is_match("x/b") && !regex.is_match("/b\n"));
    for bad in [
        "",
        "(",
        "a)|(b",
        r"(?=a)",
        r"(a)\1",
        "((a{100}){100}){100}",
        &"a".repeat(5000),
    ] {
        assert_names(with(bad), "RegexMatcher.regex");
    }
}

#[test]
fn hosts_are_exact_lower_case_and_given_once() {
    let with =
        |domains: &[&str]| decode(&pack_any(routes("outbound", domains, "bookstore/catalog")));
    assert!(with(&["*"]).is_ok() && with(&["a.b:8080"]).is_ok());
    for domain in ["A.b", "*.b", "a*", "", "a b", "a/b"] {
        assert_names(with(&[domain]), "VirtualHost.domains");
    }
    assert_names(with(&["a.b", "a.b"]), "given twice");
    assert_names(with(&["*", "*"]), "given twice");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table of cases")]
fn unusable_values_in_clusters_are_refused() {
    assert_names(cluster_with(|c| c.lb_policy = 2), "Cluster.lb_policy");
    assert_names(
        cluster_with(|c| c.cluster_discovery_type = None),
        "Cluster.type",
    );
    assert_names(
        cluster_with(|c| c.connect_timeout = span(0)),
        "Cluster.connect_timeout",
    );
    assert_names(cluster_with(|c| c.name.clear()), "Cluster.name");
    assert_names(
        cluster_with(|c| {
            c.metadata = Some(Metadata {
                filter_metadata: [("envoy.lb".to_owned(), marker_struct())].into(),
                ..Metadata::default()
            })
        }),
        "Metadata.filter_metadata",
    );
    let breakers = |thresholds: Vec<Thresholds>| {
        let breakers = CircuitBreakers {
            thresholds,
            ..CircuitBreakers::default()
        };
        cluster_with(move |c| c.circuit_breakers = Some(breakers))
    };
    assert!(breakers(vec![Thresholds::default()]).is_ok());
    assert_names(
        breakers(vec![Thresholds {
            priority: 1,
            ..Default::default()
        }]),
        "Thresholds.priority",
    );
    assert_names(
        breakers(vec![Thresholds::default(), Thresholds::default()]),
        "CircuitBreakers.thresholds",
    );
    let percent = |value| {
        breakers(vec![Thresholds {
            retry_budget: Some(RetryBudget {
                budget_percent: Some(envoy_types::pb::envoy::r#type::v3::Percent { value }),
                ..RetryBudget::default()
            }),
            ..Thresholds::default()
        }])
    };
    assert!(percent(20.0).is_ok());
    assert_names(percent(f64::NAN), "RetryBudget.budget_percent");
    assert_names(percent(101.0), "RetryBudget.budget_percent");
}

fn marker_struct() -> envoy_types::pb::google::protobuf::Struct {
    let value = envoy_types::pb::google::protobuf::value::Kind::BoolValue(true);
    let value = envoy_types::pb::google::protobuf::Value { kind: Some(value) };
    envoy_types::pb::google::protobuf::Struct {
        fields: [("canary".to_owned(), value)].into(),
    }
}

#[test]
fn unusable_endpoints_are_refused() {
    let with = |ip: &str, port| {
        let mut message = endpoints("x", &[1]);
        let Some(
            envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier::Endpoint(
                endpoint,
            ),
        ) = &mut message.endpoints[0].lb_endpoints[0].host_identifier
        else {
            panic!()
        };
        endpoint.address = Some(address(ip, port));
        decode(&pack_any(message))
    };
    assert!(with("10.0.0.1", 80).is_ok() && with("::1", 80).is_ok());
    assert_names(with("catalog.bookstore", 80), "SocketAddress.address");
    assert_names(with("10.0.0.1", 0), "SocketAddress.port_value");
    assert_names(with("10.0.0.1", 65_536), "SocketAddress.port_value");
}

#[test]
fn references_that_do_not_resolve_are_refused() {
    for (missing, complaint) in [
        (2, "there is no ClusterLoadAssignment \"bookstore/catalog\""),
        (0, "there is no Cluster \"bookstore/catalog\""),
        (1, "there is no Cluster \"application\""),
        (5, "there is no RouteConfiguration \"outbound\""),
        (
            6,
            "there is no TypedExtensionConfig \"authz/bookstore/catalog/deny\"",
        ),
        (
            7,
            "there is no TypedExtensionConfig \"authz/bookstore/catalog/allow\"",
        ),
        (8, "without it nothing is enforced"),
    ] {
        let mut resources = whole();
        resources.remove(missing);
        let refusals = refusals(&resources);
        assert!(
            refusals.iter().any(|refusal| refusal.contains(complaint)),
            "{refusals:?}"
        );
    }
    let mut resources = whole();
    resources.push(pack_any(listener("outbound/x", 15001, outbound_manager())));
    assert_names(
        Err::<(), _>(refusals(&resources).join("")),
        "is also listener",
    );
    let mut resources = whole();
    resources.push(resources[0].clone());
    assert_names(
        Err::<(), _>(refusals(&resources).join("")),
        "is given twice",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), kind in 0..5_usize) {
        let type_url = Kind::ALL[kind].type_url();
        let _ = decode(&Any { type_url, value: bytes });
    }

    #[test]
    fn damaged_resources_do_not_panic(which in 0..9_usize, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut resources = whole();
        let value = &mut resources[which].value;
        let length = value.len();
        value[at.index(length)] = to;
        let _ = check_whole(&resources);
    }

    #[test]
    fn truncated_resources_are_refused_or_smaller(which in 0..9_usize, at in any::<prop::sample::Index>()) {
        let mut resources = whole();
        let length = resources[which].value.len();
        resources[which].value.truncate(at.index(length));
        let _ = check_whole(&resources);
    }
}
