//! Route tables (`envoy.config.route.v3.RouteConfiguration`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use http::{HeaderName, Method, StatusCode};

use super::{Fault, duration, matcher, non_empty, open, positive, required, take, uint};
use crate::mesh::route::{
    Action, Forward, HeaderMatch, PathMatch, QueryMatch, RetryOn, RetryPolicy, Route, RouteMatch,
    RouteTable, ValueMatch, VirtualHost, WeightedCluster,
};

/// What Envoy does where a route says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_BACK_OFF: Duration = Duration::from_millis(25);
const MAX_RETRIES: u32 = 10;
const MAX_BODY_BYTES: usize = 4096;

pub fn table(configuration: pb::RouteConfiguration) -> Result<RouteTable, Fault> {
    take!(configuration, "RouteConfiguration" => pb::RouteConfiguration { name, virtual_hosts } unsupported {
        vhds, internal_only_headers, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
        request_headers_to_remove, most_specific_header_mutations_wins, validate_clusters,
        max_direct_response_body_size_bytes, cluster_specifier_plugins, request_mirror_policies,
        ignore_port_in_host_matching, vhost_header, ignore_path_parameters_in_path_matching,
        typed_per_filter_config, metadata, route_specifiers
    });
    let mut table = RouteTable {
        name: non_empty(name, "RouteConfiguration.name")?.into(),
        by_domain: HashMap::new(),
        any_domain: None,
        virtual_hosts: Vec::with_capacity(virtual_hosts.len()),
    };
    for host in virtual_hosts {
        add_virtual_host(&mut table, host)?;
    }
    Ok(table)
}

fn add_virtual_host(table: &mut RouteTable, host: pb::VirtualHost) -> Result<(), Fault> {
    const DOMAINS: &str = "VirtualHost.domains";
    take!(host, "VirtualHost" => pb::VirtualHost { name, domains, routes, include_request_attempt_count } unsupported {
        matcher, require_tls, virtual_clusters, rate_limits, request_headers_to_add, request_headers_to_remove,
        response_headers_to_add, response_headers_to_remove, cors, typed_per_filter_config,
        include_attempt_count_in_response, retry_policy, retry_policy_typed_config, hedge_policy,
        include_is_timeout_retry_header, per_request_buffer_limit_bytes, request_body_buffer_limit,
        request_mirror_policies, metadata, route_specifiers
    });
    // The attempt is always counted in `x-envoy-attempt-count`; Envoy has to be told.
    let _ = include_request_attempt_count;
    let index = table.virtual_hosts.len();
    for domain in domains {
        let taken = if domain == "*" {
            table.any_domain.replace(index).is_some()
        } else {
            check_domain(&domain)?;
            match table.by_domain.entry(domain.clone().into()) {
                Entry::Vacant(vacant) => {
                    vacant.insert(index);
                    false
                }
                Entry::Occupied(_) => true,
            }
        };
        if taken {
            return Err(Fault::invalid(
                DOMAINS,
                format!("{domain:?} is given twice"),
            ));
        }
    }
    let routes = routes
        .into_iter()
        .map(|route| Ok(Arc::new(self::route(route)?)));
    table.virtual_hosts.push(VirtualHost {
        name: non_empty(name, "VirtualHost.name")?.into(),
        routes: routes.collect::<Result<_, Fault>>()?,
    });
    Ok(())
}

/// An exact host, in the form in which requests' hosts are compared: lower case, no wildcard.
fn check_domain(domain: &str) -> Result<(), Fault> {
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if domain.is_empty() || !domain.bytes().all(known) {
        let reason = format!("{domain:?} is neither * nor a lower-case host");
        return Err(Fault::invalid("VirtualHost.domains", reason));
    }
    Ok(())
}

fn route(route: pb::Route) -> Result<Route, Fault> {
    take!(route, "Route" => pb::Route { name, r#match, action } unsupported {
        metadata, decorator, typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
        response_headers_to_add, response_headers_to_remove, tracing, per_request_buffer_limit_bytes,
        stat_prefix, request_body_buffer_limit, route_specifiers
    });
    let action = match required(action, "Route.action")? {
        pb::route::Action::Route(action) => Action::Forward(forward(action)?),
        pb::route::Action::DirectResponse(response) => respond(response)?,
        pb::route::Action::Redirect(_) => {
            return Err(Fault::Unsupported("Route.redirect".to_owned()));
        }
        pb::route::Action::FilterAction(_) => {
            return Err(Fault::Unsupported("Route.filter_action".to_owned()));
        }
        pb::route::Action::NonForwardingAction(_) => {
            return Err(Fault::Unsupported("Route.non_forwarding_action".to_owned()));
        }
    };
    Ok(Route {
        name: non_empty(name, "Route.name")?.into(),
        matcher: route_match(required(r#match, "Route.match")?)?,
        action,
    })
}

fn route_match(matcher: pb::RouteMatch) -> Result<RouteMatch, Fault> {
    use pb::route_match::PathSpecifier::{
        ConnectMatcher, Path, PathMatchPolicy, PathSeparatedPrefix, Prefix, SafeRegex,
    };
    take!(matcher, "RouteMatch" => pb::RouteMatch { headers, query_parameters, path_specifier } unsupported {
        case_sensitive, runtime_fraction, cookies, grpc, tls_context, dynamic_metadata, filter_state
    });
    let path = match required(path_specifier, "RouteMatch.path_specifier")? {
        Path(path) => PathMatch::Exact(path.into()),
        Prefix(path) => PathMatch::Prefix(path.into()),
        PathSeparatedPrefix(path) => PathMatch::SegmentPrefix(path.into()),
        SafeRegex(regex) => PathMatch::Regex(matcher::whole_match(regex)?),
        ConnectMatcher(_) => {
            return Err(Fault::Unsupported("RouteMatch.connect_matcher".to_owned()));
        }
        PathMatchPolicy(_) => {
            return Err(Fault::Unsupported(
                "RouteMatch.path_match_policy".to_owned(),
            ));
        }
    };
    let mut methods = None;
    let mut header_matches = Vec::with_capacity(headers.len());
    for header in headers {
        if header.name == ":method" {
            add_method(&mut methods, header)?;
        } else {
            header_matches.push(header_match(header)?);
        }
    }
    let query = query_parameters.into_iter().map(query_match);
    Ok(RouteMatch {
        path,
        methods,
        headers: header_matches.into(),
        query: query.collect::<Result<_, Fault>>()?,
    })
}

/// The method is one of the canonical request's own fields, not a header.
fn add_method(methods: &mut Option<Box<[Method]>>, header: pb::HeaderMatcher) -> Result<(), Fault> {
    const FIELD: &str = "HeaderMatcher[:method]";
    let HeaderMatch { value, invert, .. } =
        header_value(header, HeaderName::from_static("method"))?;
    let ValueMatch::Exact(name) = value else {
        return Err(Fault::invalid(FIELD, "must be an exact match"));
    };
    let method = Method::from_str(&name)
        .map_err(|_| Fault::invalid(FIELD, format!("{name:?} is no method")))?;
    if invert || methods.replace([method].into()).is_some() {
        return Err(Fault::invalid(FIELD, "must be one, not inverted"));
    }
    Ok(())
}

fn header_match(header: pb::HeaderMatcher) -> Result<HeaderMatch, Fault> {
    match HeaderName::from_bytes(header.name.as_bytes()) {
        Ok(name) if name != http::header::HOST => header_value(header, name),
        Ok(_) | Err(_) => Err(Fault::invalid(
            "HeaderMatcher.name",
            format!("{:?} is no name of a header other than host", header.name),
        )),
    }
}

fn header_value(header: pb::HeaderMatcher, name: HeaderName) -> Result<HeaderMatch, Fault> {
    use pb::header_matcher::HeaderMatchSpecifier::{
        ContainsMatch, ExactMatch, PrefixMatch, PresentMatch, RangeMatch, SafeRegexMatch,
        StringMatch, SuffixMatch,
    };
    take!(header, "HeaderMatcher" => pb::HeaderMatcher { name: _name, invert_match, header_match_specifier }
        unsupported { treat_missing_header_as_empty });
    let (value, invert) = match required(header_match_specifier, "HeaderMatcher.string_match")? {
        StringMatch(string) => (matcher::value(string)?, invert_match),
        PresentMatch(present) => (ValueMatch::Present, invert_match == present),
        ExactMatch(_) | SafeRegexMatch(_) | RangeMatch(_) | PrefixMatch(_) | SuffixMatch(_)
        | ContainsMatch(_) => {
            let reason = "must be string_match or present_match";
            return Err(Fault::invalid(
                "HeaderMatcher.header_match_specifier",
                reason,
            ));
        }
    };
    Ok(HeaderMatch {
        name,
        value,
        invert,
    })
}

fn query_match(parameter: pb::QueryParameterMatcher) -> Result<QueryMatch, Fault> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier::{PresentMatch, StringMatch};
    take!(parameter, "QueryParameterMatcher" => pb::QueryParameterMatcher { name, query_parameter_match_specifier }
        unsupported {});
    let value = match required(
        query_parameter_match_specifier,
        "QueryParameterMatcher.string_match",
    )? {
        StringMatch(string) => matcher::value(string)?,
        PresentMatch(true) => ValueMatch::Present,
        PresentMatch(false) => {
            return Err(Fault::invalid(
                "QueryParameterMatcher.present_match",
                "must be true",
            ));
        }
    };
    Ok(QueryMatch {
        name: non_empty(name, "QueryParameterMatcher.name")?.into(),
        value,
    })
}

fn respond(response: pb::DirectResponseAction) -> Result<Action, Fault> {
    const BODY: &str = "DirectResponseAction.body";
    take!(response, "DirectResponseAction" => pb::DirectResponseAction { status, body } unsupported { body_format });
    let status = u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| {
            Fault::invalid(
                "DirectResponseAction.status",
                format!("{status} is no final status"),
            )
        })?;
    let body = match body {
        None => String::new(),
        Some(source) => {
            take!(source, "DataSource" => core::DataSource { specifier } unsupported { watched_directory });
            match required(specifier, BODY)? {
                Specifier::InlineString(text) if text.len() <= MAX_BODY_BYTES => text,
                _ => {
                    return Err(Fault::invalid(
                        BODY,
                        format!("must be inline_string up to {MAX_BODY_BYTES} bytes"),
                    ));
                }
            }
        }
    };
    Ok(Action::Respond {
        status,
        body: body.into(),
    })
}

fn forward(action: pb::RouteAction) -> Result<Forward, Fault> {
    use pb::route_action::ClusterSpecifier::{
        Cluster, ClusterHeader, ClusterSpecifierPlugin, InlineClusterSpecifierPlugin,
        WeightedClusters,
    };
    take!(action, "RouteAction" => pb::RouteAction { timeout, retry_policy, cluster_specifier } unsupported {
        cluster_not_found_response_code, metadata_match, prefix_rewrite, regex_rewrite, path_rewrite_policy,
        path_rewrite, append_x_forwarded_host, idle_timeout, flush_timeout, early_data_policy,
        retry_policy_typed_config, request_mirror_policies, priority, rate_limits, include_vh_rate_limits,
        hash_policy, cors, max_grpc_timeout, grpc_timeout_offset, upgrade_configs, internal_redirect_policy,
        internal_redirect_action, max_internal_redirects, hedge_policy, max_stream_duration, host_rewrite_specifier
    });
    let clusters = match required(cluster_specifier, "RouteAction.cluster")? {
        Cluster(name) => [WeightedCluster {
            name: non_empty(name, "RouteAction.cluster")?.into(),
            weight: 1,
        }]
        .into(),
        WeightedClusters(clusters) => weighted(clusters)?,
        ClusterHeader(_) => {
            return Err(Fault::Unsupported("RouteAction.cluster_header".to_owned()));
        }
        ClusterSpecifierPlugin(_) | InlineClusterSpecifierPlugin(_) => {
            return Err(Fault::Unsupported(
                "RouteAction.cluster_specifier_plugin".to_owned(),
            ));
        }
    };
    let timeout = match timeout
        .map(|value| duration(value, "RouteAction.timeout"))
        .transpose()?
    {
        None => Some(DEFAULT_TIMEOUT),
        Some(Duration::ZERO) => None,
        Some(timeout) => Some(timeout),
    };
    Ok(Forward {
        clusters,
        timeout,
        retry: retry_policy.map(retry).transpose()?,
    })
}

fn weighted(clusters: pb::WeightedCluster) -> Result<Box<[WeightedCluster]>, Fault> {
    const FIELD: &str = "WeightedCluster.clusters";
    take!(clusters, "WeightedCluster" => pb::WeightedCluster { clusters } unsupported {
        total_weight, runtime_key_prefix, random_value_specifier
    });
    let mut total = 0_u32;
    let mut weighted = Vec::with_capacity(clusters.len());
    for cluster in clusters {
        take!(cluster, "ClusterWeight" => pb::weighted_cluster::ClusterWeight { name, weight } unsupported {
            cluster_header, metadata_match, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier
        });
        let weight = uint(weight, 0);
        total = total
            .checked_add(weight)
            .ok_or_else(|| Fault::invalid(FIELD, "the sum of the weights is too large"))?;
        weighted.push(WeightedCluster {
            name: non_empty(name, "ClusterWeight.name")?.into(),
            weight,
        });
    }
    if total == 0 {
        return Err(Fault::invalid(FIELD, "the sum of the weights is 0"));
    }
    Ok(weighted.into())
}

fn retry(policy: pb::RetryPolicy) -> Result<RetryPolicy, Fault> {
    take!(policy, "RetryPolicy" => pb::RetryPolicy {
        retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts,
        retriable_status_codes, retry_back_off
    } unsupported {
        per_try_idle_timeout, retry_priority, retry_options_predicates, rate_limited_retry_back_off,
        retriable_headers, retriable_request_headers, refresh_cluster_on_retry
    });
    // Another endpoint is chosen wherever there is one: how often Envoy looks for it has no meaning here.
    let _ = host_selection_retry_max_attempts;
    for predicate in retry_host_predicate {
        previous_hosts(predicate)?;
    }
    let max_retries = uint(num_retries, 1);
    if max_retries > MAX_RETRIES {
        return Err(Fault::invalid(
            "RetryPolicy.num_retries",
            format!("is over {MAX_RETRIES}"),
        ));
    }
    let (base_interval, max_interval) = back_off(retry_back_off)?;
    let zero_is_none = |timeout: Duration| (!timeout.is_zero()).then_some(timeout);
    let per_try = per_try_timeout.map(|value| duration(value, "RetryPolicy.per_try_timeout"));
    Ok(RetryPolicy {
        max_retries,
        per_try_timeout: per_try.transpose()?.and_then(zero_is_none),
        base_interval,
        max_interval,
        on: conditions(&retry_on, &retriable_status_codes)?,
    })
}

fn previous_hosts(predicate: pb::retry_policy::RetryHostPredicate) -> Result<(), Fault> {
    use pb::retry_policy::retry_host_predicate::ConfigType::TypedConfig;
    take!(predicate, "RetryHostPredicate" => pb::retry_policy::RetryHostPredicate { name, config_type } unsupported {});
    let Some(TypedConfig(config)) = config_type else {
        return Err(Fault::Unsupported(format!(
            "RetryHostPredicate {name:?} without configuration"
        )));
    };
    let PreviousHostsPredicate {} = open(&config)?;
    Ok(())
}

fn back_off(
    back_off: Option<pb::retry_policy::RetryBackOff>,
) -> Result<(Duration, Duration), Fault> {
    let Some(back_off) = back_off else {
        return Ok((DEFAULT_BACK_OFF, DEFAULT_BACK_OFF * 10));
    };
    take!(back_off, "RetryBackOff" => pb::retry_policy::RetryBackOff { base_interval, max_interval } unsupported {});
    let base = positive(
        base_interval,
        DEFAULT_BACK_OFF,
        "RetryBackOff.base_interval",
    )?;
    let most = positive(
        max_interval,
        base.saturating_mul(10),
        "RetryBackOff.max_interval",
    )?;
    if most < base {
        return Err(Fault::invalid(
            "RetryBackOff.max_interval",
            "is less than base_interval",
        ));
    }
    Ok((base, most))
}

fn conditions(retry_on: &str, statuses: &[u32]) -> Result<RetryOn, Fault> {
    let mut on = RetryOn::default();
    let mut by_status = false;
    for condition in retry_on.split(',').map(str::trim) {
        match condition {
            "connect-failure" => on.connect_failure = true,
            "refused-stream" => on.refused_stream = true,
            "reset-before-request" => on.reset_before_request = true,
            "reset" => (on.reset, on.reset_before_request) = (true, true),
            "gateway-error" => on.gateway_error = true,
            "5xx" => {
                // Envoy's meaning: a 5xx, or no answer at all.
                on.server_error = true;
                (on.connect_failure, on.refused_stream) = (true, true);
                (on.reset, on.reset_before_request) = (true, true);
            }
            "retriable-status-codes" => by_status = true,
            _ => {
                return Err(Fault::invalid(
                    "RetryPolicy.retry_on",
                    format!("{condition:?} is not supported"),
                ));
            }
        }
    }
    if by_status == statuses.is_empty() {
        let reason = "go with retry_on retriable-status-codes, and it with them";
        return Err(Fault::invalid("RetryPolicy.retriable_status_codes", reason));
    }
    let statuses = statuses.iter().map(|status| {
        u16::try_from(*status)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| {
                Fault::invalid(
                    "RetryPolicy.retriable_status_codes",
                    format!("{status} is no status"),
                )
            })
    });
    on.statuses = statuses.collect::<Result<_, Fault>>()?;
    Ok(on)
}
