//! `HttpConnectionManager`: nearly all of it says what this proxy does always, and is held to that.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use envoy_types::pb::google::protobuf as wkt;
use prost::Name;

use super::{Fault, duration, fixed, from_ads, non_empty, open, required, route, take};
use crate::mesh::RouteTable;
use crate::mesh::listener::Timeouts;

use pb::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    SetCurrentClientCertDetails,
};

/// HTTP/2 streams that one connection may have open (hyper's default is 200, and 100 is plenty).
const MAX_STREAMS: u32 = 100;
/// Envoy's, where nothing is said.
const DEFAULT_STREAM_IDLE: Duration = Duration::from_secs(300);

/// What a connection manager leaves open.
#[derive(Debug)]
pub(super) struct ConnectionManager {
    pub routes: Routes,
    pub timeouts: Timeouts,
    /// The names of the authorization rules: deny, then allow. None outbound.
    pub authorization: Vec<Arc<str>>,
}

#[derive(Debug)]
pub enum Routes {
    Inline(Arc<RouteTable>),
    /// The name of a `RouteConfiguration`.
    Discovered(Arc<str>),
}

/// In which direction the listener lies, as far as it changes what is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

#[expect(
    clippy::too_many_lines,
    reason = "a flat table of the fields of Envoy's message"
)]
pub(super) fn connection_manager(
    filter: listener::Filter,
    direction: Direction,
) -> Result<ConnectionManager, Fault> {
    take!(open(&payload(filter)?)?, "HttpConnectionManager" => pb::HttpConnectionManager {
        stat_prefix, http_filters, route_specifier, normalize_path, merge_slashes, path_with_escaped_slashes_action,
        strip_trailing_host_dot, common_http_protocol_options, http2_protocol_options, forward_client_cert_details,
        set_current_client_cert_details, request_timeout, stream_idle_timeout
    } unsupported {
        codec_type, add_user_agent, tracing, http1_safe_max_connection_duration, http_protocol_options,
        http3_protocol_options, server_name, server_header_transformation, scheme_header_transformation,
        max_request_headers_kb, stream_flush_timeout, request_headers_timeout, drain_timeout, drain_timeout_jitter,
        delayed_close_timeout, access_log, access_log_flush_interval, flush_access_log_on_new_request,
        access_log_options, use_remote_address, xff_num_trusted_hops, original_ip_detection_extensions,
        early_header_mutation_extensions, internal_address_config, skip_xff_append, via, generate_request_id,
        preserve_external_request_id, always_set_request_id_in_response, forward_client_cert_matcher,
        proxy_100_continue, represent_ipv4_remote_address_as_ipv4_mapped_ipv6, upgrade_configs, request_id_extension,
        local_reply_config, strip_matching_host_port, stream_error_on_invalid_http_message,
        path_normalization_options, proxy_status_config, typed_header_validation_config, append_x_forwarded_port,
        append_local_overload, add_proxy_protocol_connection_state, forward_proto_config, strip_port_mode
    });
    // A label of Envoy's own metrics.
    let _ = stat_prefix;
    let normalizes =
        normalize_path.is_some_and(|on| on.value) && merge_slashes && strip_trailing_host_dot;
    let field = "HttpConnectionManager.normalize_path, merge_slashes, strip_trailing_host_dot";
    fixed(&normalizes, &true, field)?;
    let field = "HttpConnectionManager.path_with_escaped_slashes_action";
    let reject = PathWithEscapedSlashesAction::RejectRequest as i32;
    fixed(&path_with_escaped_slashes_action, &reject, field)?;
    client_certificate(
        direction,
        forward_client_cert_details,
        set_current_client_cert_details,
    )?;
    http2(http2_protocol_options.unwrap_or_default())?;
    let options = required(
        common_http_protocol_options,
        "HttpConnectionManager.common_http_protocol_options",
    )?;
    let field = "HttpConnectionManager.stream_idle_timeout";
    let stream_idle = timeout(stream_idle_timeout, Some(DEFAULT_STREAM_IDLE), field)?;
    Ok(ConnectionManager {
        routes: routes(required(route_specifier, "HttpConnectionManager.rds")?)?,
        timeouts: Timeouts {
            idle: connection_idle(options)?,
            stream_idle,
            request: timeout(
                request_timeout,
                None,
                "HttpConnectionManager.request_timeout",
            )?,
        },
        authorization: filters(direction, http_filters)?,
    })
}

fn payload(filter: listener::Filter) -> Result<wkt::Any, Fault> {
    use listener::filter::ConfigType::{ConfigDiscovery, TypedConfig};
    take!(filter, "Filter" => listener::Filter { name, config_type } unsupported {});
    fixed(
        &name.as_str(),
        &"envoy.filters.network.http_connection_manager",
        "Filter.name",
    )?;
    match required(config_type, "Filter.typed_config")? {
        TypedConfig(config) => Ok(config),
        ConfigDiscovery(_) => Err(Fault::Unsupported("Filter.config_discovery".to_owned())),
    }
}

/// Inbound, the caller is told to the application, and what came under that name is removed.
fn client_certificate(
    direction: Direction,
    forward: i32,
    details: Option<SetCurrentClientCertDetails>,
) -> Result<(), Fault> {
    let (action, uri) = match direction {
        Direction::Inbound => (ForwardClientCertDetails::SanitizeSet, true),
        Direction::Outbound => (ForwardClientCertDetails::Sanitize, false),
    };
    fixed(
        &forward,
        &(action as i32),
        "HttpConnectionManager.forward_client_cert_details",
    )?;
    take!(details.unwrap_or_default(), "SetCurrentClientCertDetails" => SetCurrentClientCertDetails { uri: with_uri }
        unsupported { subject, cert, chain, dns, issuer, format });
    fixed(&with_uri, &uri, "SetCurrentClientCertDetails.uri")
}

fn http2(options: core::Http2ProtocolOptions) -> Result<(), Fault> {
    take!(options, "Http2ProtocolOptions" => core::Http2ProtocolOptions { max_concurrent_streams } unsupported {
        hpack_table_size, initial_stream_window_size, initial_connection_window_size, allow_connect, allow_metadata,
        max_outbound_frames, max_outbound_control_frames, max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message,
        custom_settings_parameters, connection_keepalive, use_oghttp2_codec, max_metadata_size,
        enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text, stream_reset_burst, stream_reset_rate
    });
    let streams = max_concurrent_streams.map_or(MAX_STREAMS, |streams| streams.value);
    fixed(
        &streams,
        &MAX_STREAMS,
        "Http2ProtocolOptions.max_concurrent_streams",
    )
}

fn connection_idle(options: core::HttpProtocolOptions) -> Result<Option<Duration>, Fault> {
    take!(options, "HttpProtocolOptions" => core::HttpProtocolOptions {
        idle_timeout, headers_with_underscores_action
    } unsupported {
        max_connection_duration, max_connection_duration_jitter, max_headers_count, max_response_headers_kb,
        max_stream_duration, max_requests_per_connection
    });
    let reject = HeadersWithUnderscoresAction::RejectRequest as i32;
    fixed(
        &headers_with_underscores_action,
        &reject,
        "HttpProtocolOptions.headers_with_underscores_action",
    )?;
    timeout(
        idle_timeout,
        Some(Duration::from_secs(3600)),
        "HttpProtocolOptions.idle_timeout",
    )
}

/// Zero is no limit; the default is Envoy's.
fn timeout(
    value: Option<wkt::Duration>,
    default: Option<Duration>,
    field: &'static str,
) -> Result<Option<Duration>, Fault> {
    match value.map(|value| duration(value, field)).transpose()? {
        None => Ok(default),
        Some(Duration::ZERO) => Ok(None),
        Some(value) => Ok(Some(value)),
    }
}

fn routes(specifier: RouteSpecifier) -> Result<Routes, Fault> {
    match specifier {
        RouteSpecifier::RouteConfig(table) => Ok(Routes::Inline(Arc::new(route::table(table)?))),
        RouteSpecifier::Rds(rds) => {
            take!(rds, "Rds" => pb::Rds { config_source, route_config_name } unsupported {});
            from_ads(config_source, "Rds.config_source")?;
            Ok(Routes::Discovered(
                non_empty(route_config_name, "Rds.route_config_name")?.into(),
            ))
        }
        RouteSpecifier::ScopedRoutes(_) => Err(Fault::Unsupported(
            "HttpConnectionManager.scoped_routes".to_owned(),
        )),
    }
}

/// Inbound: deny, allow, router. Outbound: the router.
fn filters(direction: Direction, filters: Vec<pb::HttpFilter>) -> Result<Vec<Arc<str>>, Fault> {
    const FIELD: &str = "HttpConnectionManager.http_filters";
    let mut rules: Vec<Arc<str>> = Vec::new();
    let mut routed = false;
    for filter in filters {
        if routed {
            return Err(Fault::invalid(FIELD, "the router must be the last"));
        }
        match http_filter(filter)? {
            Some(name) => rules.push(name),
            None => routed = true,
        }
    }
    let expected = match direction {
        Direction::Inbound => 2,
        Direction::Outbound => 0,
    };
    if !routed || rules.len() != expected {
        return Err(Fault::invalid(
            FIELD,
            format!("must be {expected} by config_discovery, then the router"),
        ));
    }
    Ok(rules)
}

/// The name of the rules that it enforces, or nothing for the router.
fn http_filter(filter: pb::HttpFilter) -> Result<Option<Arc<str>>, Fault> {
    use pb::http_filter::ConfigType::{ConfigDiscovery, TypedConfig};
    take!(filter, "HttpFilter" => pb::HttpFilter { name, config_type } unsupported { is_optional, disabled });
    match required(config_type, "HttpFilter.typed_config")? {
        ConfigDiscovery(source) => {
            take!(source, "ExtensionConfigSource" => core::ExtensionConfigSource { config_source, type_urls }
                unsupported { default_config, apply_default_config_without_warming });
            from_ads(config_source, "ExtensionConfigSource.config_source")?;
            fixed(
                &type_urls,
                &vec![Rbac::type_url()],
                "ExtensionConfigSource.type_urls",
            )?;
            Ok(Some(non_empty(name, "HttpFilter.name")?.into()))
        }
        TypedConfig(config) => {
            take!(open(&config)?, "Router" => Router { suppress_envoy_headers, respect_expected_rq_timeout }
            unsupported {
                dynamic_stats, start_child_span, upstream_log, upstream_log_options, strict_check_headers,
                suppress_grpc_request_failure_code_stats, upstream_http_filters,
                reject_connect_request_early_data
            });
            // Which of its own headers Envoy sends, and whether it believes the caller's deadline: here always.
            let _ = (suppress_envoy_headers, respect_expected_rq_timeout);
            Ok(None)
        }
    }
}
