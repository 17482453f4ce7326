//! Listeners (`envoy.config.listener.v3.Listener`).

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3 as pb;

pub use super::connection_manager::Routes;
use super::connection_manager::{ConnectionManager, Direction, connection_manager};
use super::{Fault, is_set, non_empty, only, required, socket_address, take, transport_socket};
use crate::mesh::listener::Timeouts;

/// A listener whose routes and rules may still have to be found.
#[derive(Debug)]
pub struct Template {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub routes: Routes,
    pub timeouts: Timeouts,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    Outbound,
    Inbound(Door),
}

/// What only an inbound listener has.
#[derive(Debug)]
pub struct Door {
    /// `namespace/service`.
    pub destination: Arc<str>,
    pub trust_domains: Vec<Arc<str>>,
    /// The names of the extension configurations that hold its rules.
    pub deny: Arc<str>,
    pub allow: Arc<str>,
}

pub fn template(listener: pb::Listener) -> Result<Template, Fault> {
    take!(listener, "Listener" => pb::Listener { name, address, filter_chains, traffic_direction, stat_prefix }
    unsupported {
        additional_addresses, stats_matcher, fcds_config, filter_chain_matcher, use_original_dst,
        default_filter_chain, per_connection_buffer_limit_bytes, per_connection_buffer_high_watermark_timeout,
        metadata, deprecated_v1, drain_type, listener_filters, listener_filters_timeout,
        continue_on_listener_filters_timeout, transparent, freebind, socket_options, tcp_fast_open_queue_length,
        udp_listener_config, api_listener, connection_balance_config, reuse_port, enable_reuse_port, access_log,
        tcp_backlog_size, max_connections_to_accept_per_socket_event, bind_to_port, enable_mptcp,
        ignore_global_conn_limit, bypass_overload_manager, tcp_keepalive, listener_specifier
    });
    // A label of Envoy's own metrics.
    let _ = stat_prefix;
    let direction = direction(traffic_direction)?;
    take!(only(filter_chains, "Listener.filter_chains")?, "FilterChain" =>
        pb::FilterChain { filters, transport_socket: socket, name: _chain }
        unsupported { filter_chain_match, use_proxy_proto, metadata, transport_socket_connect_timeout });
    let manager = connection_manager(only(filters, "FilterChain.filters")?, direction)?;
    let ConnectionManager {
        routes,
        timeouts,
        authorization,
    } = manager;
    let end = match direction {
        Direction::Outbound if is_set(&socket) => {
            return Err(Fault::Unsupported(
                "FilterChain.transport_socket of an outbound listener".to_owned(),
            ));
        }
        Direction::Outbound => End::Outbound,
        Direction::Inbound => {
            let socket = required(socket, "FilterChain.transport_socket")?;
            End::Inbound(door(&authorization, transport_socket::downstream(socket)?)?)
        }
    };
    Ok(Template {
        name: non_empty(name, "Listener.name")?.into(),
        address: socket_address(address)?,
        routes,
        timeouts,
        end,
    })
}

fn direction(given: i32) -> Result<Direction, Fault> {
    match TrafficDirection::try_from(given) {
        Ok(TrafficDirection::Inbound) => Ok(Direction::Inbound),
        Ok(TrafficDirection::Outbound) => Ok(Direction::Outbound),
        Ok(TrafficDirection::Unspecified) | Err(_) => Err(Fault::invalid(
            "Listener.traffic_direction",
            "must be INBOUND or OUTBOUND",
        )),
    }
}

/// `authz/NAMESPACE/SERVICE/deny` and `…/allow` say which service this is the door of.
fn door(rules: &[Arc<str>], trust_domains: Vec<Arc<str>>) -> Result<Door, Fault> {
    if let [deny, allow] = rules
        && let Some(destination) = destination(deny, "/deny")
        && self::destination(allow, "/allow") == Some(destination)
    {
        return Ok(Door {
            destination: destination.into(),
            trust_domains,
            deny: Arc::clone(deny),
            allow: Arc::clone(allow),
        });
    }
    Err(Fault::invalid(
        "HttpConnectionManager.http_filters",
        "must be authz/NAMESPACE/SERVICE/deny, authz/NAMESPACE/SERVICE/allow of one service, then the router",
    ))
}

fn destination<'name>(name: &'name str, suffix: &str) -> Option<&'name str> {
    let destination = name.strip_prefix("authz/")?.strip_suffix(suffix)?;
    match destination.split_once('/') {
        Some((namespace, service))
            if !namespace.is_empty() && !service.is_empty() && !service.contains('/') =>
        {
            Some(destination)
        }
        _ => None,
    }
}
