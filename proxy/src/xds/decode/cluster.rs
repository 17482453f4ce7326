//! Clusters (`envoy.config.cluster.v3.Cluster`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstreams;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use envoy_types::pb::google::protobuf::{self as wkt, Any};

use super::{
    Fault, fixed, from_ads, garrison_metadata, is_set, non_empty, only, open, positive, required,
    take, transport_socket, uint,
};
use crate::mesh::cluster::{Balance, CircuitLimits, OutlierDetection, Transport, UpstreamProtocol};
use crate::mesh::{Cluster, Endpoint};

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster whose endpoints may still have to be found.
#[derive(Debug)]
pub struct Template {
    pub name: Arc<str>,
    pub endpoints: EndpointSource,
    service: Arc<str>,
    peers: Option<Box<[Arc<str>]>>,
    protocol: UpstreamProtocol,
    balance: Balance,
    connect_timeout: Duration,
    outlier: Option<OutlierDetection>,
    limits: CircuitLimits,
}

#[derive(Debug)]
pub enum EndpointSource {
    Static(Box<[Endpoint]>),
    /// The name of a `ClusterLoadAssignment`.
    Discovered(Arc<str>),
}

impl Template {
    pub fn with_endpoints(&self, endpoints: Box<[Endpoint]>) -> Cluster {
        Cluster {
            name: Arc::clone(&self.name),
            service: Arc::clone(&self.service),
            endpoints,
            transport: match &self.peers {
                Some(peers) => Transport::MutualTls {
                    peers: peers.clone(),
                },
                None => Transport::Plaintext,
            },
            protocol: self.protocol,
            balance: self.balance,
            connect_timeout: self.connect_timeout,
            outlier: self.outlier.clone(),
            limits: self.limits.clone(),
        }
    }
}

pub fn template(cluster: pb::Cluster) -> Result<Template, Fault> {
    take!(cluster, "Cluster" => pb::Cluster {
        name, eds_cluster_config, connect_timeout, lb_policy, load_assignment, circuit_breakers,
        typed_extension_protocol_options, outlier_detection, transport_socket, metadata, cluster_discovery_type
    } unsupported {
        transport_socket_matches, transport_socket_matcher, alt_stat_name, stats_matcher,
        per_connection_buffer_limit_bytes, per_connection_buffer_high_watermark_timeout, health_checks,
        max_requests_per_connection, upstream_http_protocol_options, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, dns_refresh_rate, dns_jitter, dns_failure_refresh_rate,
        respect_dns_ttl, dns_lookup_family, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
        typed_dns_resolver_config, wait_for_warm_on_init, cleanup_interval, upstream_bind_config, lb_subset_config,
        common_lb_config, protocol_selection, upstream_connection_options, close_connections_on_host_health_failure,
        ignore_health_on_host_removal, filters, load_balancing_policy, lrs_server, lrs_report_endpoint_metrics,
        track_timeout_budgets, upstream_config, track_cluster_stats, preconnect_policy,
        connection_pool_per_downstream_connection, queuing_policies, lb_config
    });
    let name: Arc<str> = non_empty(name, "Cluster.name")?.into();
    let service = garrison_metadata(metadata, "service")?;
    let endpoints = endpoint_source(
        &name,
        cluster_discovery_type.as_ref(),
        eds_cluster_config,
        load_assignment,
    )?;
    Ok(Template {
        service: service.map_or_else(|| Arc::clone(&name), Into::into),
        endpoints,
        peers: transport_socket
            .map(transport_socket::upstream)
            .transpose()?,
        protocol: protocol(typed_extension_protocol_options)?,
        balance: balance(lb_policy)?,
        connect_timeout: positive(
            connect_timeout,
            Duration::from_secs(5),
            "Cluster.connect_timeout",
        )?,
        outlier: outlier_detection.map(outlier).transpose()?,
        limits: limits(circuit_breakers)?,
        name,
    })
}

fn endpoint_source(
    name: &Arc<str>,
    discovery: Option<&pb::cluster::ClusterDiscoveryType>,
    eds: Option<pb::cluster::EdsClusterConfig>,
    assignment: Option<envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment>,
) -> Result<EndpointSource, Fault> {
    use pb::cluster::ClusterDiscoveryType::{ClusterType, Type};
    use pb::cluster::DiscoveryType::{Eds, Static};
    // Absent is STATIC, the first of the enumeration.
    let discovery = match discovery {
        None => Ok(Static),
        Some(Type(discovery)) => pb::cluster::DiscoveryType::try_from(*discovery),
        Some(ClusterType(_)) => return Err(Fault::Unsupported("Cluster.cluster_type".to_owned())),
    };
    match (discovery, eds, assignment) {
        (Ok(Eds), Some(eds), None) => {
            take!(eds, "EdsClusterConfig" => pb::cluster::EdsClusterConfig { eds_config, service_name } unsupported {});
            from_ads(eds_config, "EdsClusterConfig.eds_config")?;
            Ok(EndpointSource::Discovered(match service_name.as_str() {
                "" => Arc::clone(name),
                other => other.into(),
            }))
        }
        (Ok(Static), None, Some(assignment)) => {
            let (_, endpoints) = super::endpoint::assignment(assignment)?;
            Ok(EndpointSource::Static(endpoints))
        }
        (Ok(Eds | Static), _, _) => Err(Fault::invalid(
            "Cluster.type",
            "EDS goes with eds_cluster_config, STATIC with load_assignment, and neither with both",
        )),
        _ => Err(Fault::invalid("Cluster.type", "must be EDS or STATIC")),
    }
}

fn balance(policy: i32) -> Result<Balance, Fault> {
    use pb::cluster::LbPolicy::{LeastRequest, Random, RoundRobin};
    match pb::cluster::LbPolicy::try_from(policy) {
        Ok(LeastRequest) => Ok(Balance::PeakEwma),
        Ok(RoundRobin) => Ok(Balance::RoundRobin),
        Ok(Random) => Ok(Balance::Random),
        _ => Err(Fault::invalid(
            "Cluster.lb_policy",
            "must be LEAST_REQUEST, ROUND_ROBIN or RANDOM",
        )),
    }
}

fn protocol(options: HashMap<String, Any>) -> Result<UpstreamProtocol, Fault> {
    let mut found = UpstreamProtocol::Http1;
    for (name, options) in options {
        if name != PROTOCOL_OPTIONS {
            return Err(Fault::Unsupported(format!(
                "Cluster.typed_extension_protocol_options[{name:?}]"
            )));
        }
        take!(open(&options)?, "HttpProtocolOptions" => upstreams::HttpProtocolOptions { upstream_protocol_options }
        unsupported {
            common_http_protocol_options, upstream_http_protocol_options, http_filters, header_validation_config,
            outlier_detection, request_mirror_policies, hash_policy, retry_policy
        });
        found = chosen(required(
            upstream_protocol_options,
            "HttpProtocolOptions.upstream_protocol_options",
        )?)?;
    }
    Ok(found)
}

fn chosen(options: UpstreamProtocolOptions) -> Result<UpstreamProtocol, Fault> {
    match options {
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => explicit_protocol(explicit),
        UpstreamProtocolOptions::AutoConfig(auto) => {
            take!(auto, "AutoHttpConfig" => upstreams::http_protocol_options::AutoHttpConfig {
                http_protocol_options, http2_protocol_options
            } unsupported { http3_protocol_options, alternate_protocols_cache_options });
            plain(http_protocol_options, "auto_config.http_protocol_options")?;
            plain(http2_protocol_options, "auto_config.http2_protocol_options")?;
            Ok(UpstreamProtocol::Auto)
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(same) => {
            take!(same, "UseDownstreamHttpConfig" => upstreams::http_protocol_options::UseDownstreamHttpConfig {
                http_protocol_options, http2_protocol_options
            } unsupported { http3_protocol_options });
            plain(
                http_protocol_options,
                "use_downstream_protocol_config.http_protocol_options",
            )?;
            plain(
                http2_protocol_options,
                "use_downstream_protocol_config.http2_protocol_options",
            )?;
            Ok(UpstreamProtocol::SameAsDownstream)
        }
    }
}

fn explicit_protocol(
    explicit: upstreams::http_protocol_options::ExplicitHttpConfig,
) -> Result<UpstreamProtocol, Fault> {
    use upstreams::http_protocol_options::explicit_http_config::ProtocolConfig;
    match explicit.protocol_config {
        Some(ProtocolConfig::HttpProtocolOptions(options)) => {
            plain(Some(options), "explicit_http_config.http_protocol_options")?;
            Ok(UpstreamProtocol::Http1)
        }
        Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
            plain(Some(options), "explicit_http_config.http2_protocol_options")?;
            Ok(UpstreamProtocol::Http2)
        }
        Some(ProtocolConfig::Http3ProtocolOptions(_)) | None => Err(Fault::Unsupported(
            "HttpProtocolOptions.explicit_http_config".to_owned(),
        )),
    }
}

/// Which protocol is chosen; none of its options.
fn plain<T: Default + PartialEq>(options: Option<T>, field: &str) -> Result<(), Fault> {
    match options {
        Some(options) if is_set(&options) => {
            Err(Fault::Unsupported(format!("HttpProtocolOptions.{field}.*")))
        }
        Some(_) | None => Ok(()),
    }
}

fn outlier(detection: pb::OutlierDetection) -> Result<OutlierDetection, Fault> {
    take!(detection, "OutlierDetection" => pb::OutlierDetection {
        consecutive_5xx, interval, base_ejection_time, max_ejection_time, max_ejection_percent,
        enforcing_success_rate, enforcing_failure_percentage, always_eject_one_host
    } unsupported {
        enforcing_consecutive_5xx, success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
        consecutive_gateway_failure, enforcing_consecutive_gateway_failure, split_external_local_origin_errors,
        consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate, failure_percentage_threshold,
        enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts,
        failure_percentage_request_volume, max_ejection_time_jitter, successful_active_health_check_uneject_host,
        monitors, detect_degraded_hosts
    });
    // How often Envoy looks; here an endpoint is ejected and let back when it is due.
    let _ = interval;
    // One endpoint may always be ejected, and only failures in a row eject it.
    if let Some(always) = always_eject_one_host {
        let field = "OutlierDetection.always_eject_one_host";
        fixed(&always.value, &true, field)?;
    }
    let field = "OutlierDetection.enforcing_success_rate";
    fixed(&uint(enforcing_success_rate, 0), &0, field)?;
    let field = "OutlierDetection.enforcing_failure_percentage";
    fixed(&uint(enforcing_failure_percentage, 0), &0, field)?;
    let (base_ejection, max_ejection) = ejection_times(base_ejection_time, max_ejection_time)?;
    let consecutive_failures = uint(consecutive_5xx, 5);
    if consecutive_failures == 0 || max_ejection < base_ejection {
        return Err(Fault::invalid(
            "OutlierDetection",
            "consecutive_5xx must be more than 0, and max_ejection_time no less than base_ejection_time",
        ));
    }
    Ok(OutlierDetection {
        consecutive_failures,
        base_ejection,
        max_ejection,
        max_ejection_percent: uint(max_ejection_percent, 10).min(100),
    })
}

/// For how long an endpoint is ejected at first, and at most; Envoy's where none is given.
fn ejection_times(
    base: Option<wkt::Duration>,
    max: Option<wkt::Duration>,
) -> Result<(Duration, Duration), Fault> {
    let field = "OutlierDetection.base_ejection_time";
    let base = positive(base, Duration::from_secs(30), field)?;
    let field = "OutlierDetection.max_ejection_time";
    let max = positive(max, base.max(Duration::from_secs(300)), field)?;
    Ok((base, max))
}

fn limits(breakers: Option<pb::CircuitBreakers>) -> Result<CircuitLimits, Fault> {
    /// Envoy's limits where none is given.
    const DEFAULT: u32 = 1024;
    let mut limits = CircuitLimits {
        max_connections: DEFAULT,
        max_pending: DEFAULT,
        max_requests: DEFAULT,
        retry_budget_percent: 20.0,
        min_retry_concurrency: 3,
    };
    let Some(breakers) = breakers else {
        return Ok(limits);
    };
    take!(breakers, "CircuitBreakers" => pb::CircuitBreakers { thresholds } unsupported { per_host_thresholds });
    take!(only(thresholds, "CircuitBreakers.thresholds")?, "Thresholds" => pb::circuit_breakers::Thresholds {
        priority, max_connections, max_pending_requests, max_requests, retry_budget
    } unsupported { max_retries, track_remaining, max_connection_pools });
    fixed(
        &priority,
        &(RoutingPriority::Default as i32),
        "Thresholds.priority",
    )?;
    limits.max_connections = uint(max_connections, DEFAULT);
    limits.max_pending = uint(max_pending_requests, DEFAULT);
    limits.max_requests = uint(max_requests, DEFAULT);
    if let Some(budget) = retry_budget {
        take!(budget, "RetryBudget" => pb::circuit_breakers::thresholds::RetryBudget {
            budget_percent, min_retry_concurrency
        } unsupported { budget_interval });
        let percent = budget_percent.map_or(limits.retry_budget_percent, |percent| percent.value);
        if !(0.0..=100.0).contains(&percent) {
            return Err(Fault::invalid(
                "RetryBudget.budget_percent",
                format!("{percent} is no percentage"),
            ));
        }
        limits.retry_budget_percent = percent;
        limits.min_retry_concurrency = uint(min_retry_concurrency, 3);
    }
    Ok(limits)
}
