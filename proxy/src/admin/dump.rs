//! `/config`: what is enforced now, as JSON. Names and settings, never a key, a token or a certificate's bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Admin;
use crate::mesh::cluster::{CircuitLimits, Endpoint, OutlierDetection, Transport};
use crate::mesh::listener::{Listener, Role, Timeouts};
use crate::mesh::route::{
    Action, Forward, HeaderMatch, PathMatch, QueryMatch, RetryOn, RetryPolicy, Route, RouteMatch,
    RouteTable, ValueMatch, VirtualHost,
};
use crate::mesh::{Cluster, Snapshot};
use crate::serve::{DoorState, Doors};
use crate::telemetry::timestamp::Timestamp;
use crate::telemetry::{Seen, Telemetry};

pub fn dump(admin: &Admin) -> Value {
    let svid = admin.credentials.svid();
    let identity = svid.map(|svid| {
        json!({
            "spiffe_id": svid.id.to_string(),
            "not_before": Timestamp(svid.not_before),
            "not_after": Timestamp(svid.not_after),
            "expired": svid.not_after <= SystemTime::now(),
        })
    });
    let bundles = admin.credentials.bundles();
    let snapshot = admin.live.load();
    json!({
        "node": admin.node,
        "version": env!("CARGO_PKG_VERSION"),
        "identity": identity,
        "bundles": bundles.trust_domains(),
        "missing": admin.missing(),
        "commit": snapshot.as_ref().map(|snapshot| &*snapshot.commit),
        "listeners": snapshot.as_ref().map_or(Value::Null, |snapshot| listeners(snapshot, &admin.doors)),
        "routes": snapshot.as_ref().map_or(Value::Null, |snapshot| route_tables(snapshot)),
        "clusters": snapshot.as_ref().map_or(Value::Null, |s| clusters(s, &admin.telemetry)),
    })
}

fn listeners(snapshot: &Snapshot, doors: &Doors) -> Value {
    let doors = doors.all();
    let listeners = snapshot.listeners.iter();
    listeners
        .map(|one| listener(one, doors.get(&one.name)))
        .collect()
}

fn listener(
    Listener {
        name,
        address,
        role,
        timeouts,
    }: &Listener,
    door: Option<&DoorState>,
) -> Value {
    let Timeouts {
        idle,
        stream_idle,
        request,
    } = timeouts;
    let state = match door {
        None => "not yet open",
        Some(DoorState::Open(_)) => "open",
        Some(DoorState::Refused(_, why)) => why,
    };
    let mut value = json!({
        "name": &**name,
        "address": address,
        "state": state,
        "idle_timeout_seconds": idle.map(seconds),
        "stream_idle_timeout_seconds": stream_idle.map(seconds),
        "request_timeout_seconds": request.map(seconds),
        "routes": &*table(role).name,
    });
    let (direction, rest) = match role {
        Role::Outbound(_) => ("outbound", json!({})),
        Role::Inbound(inbound) => {
            let (deny, allow) = inbound.authorization.rule_names();
            let names = |rules: Vec<Arc<str>>| -> Value {
                rules.iter().map(|name| Value::from(&**name)).collect()
            };
            let trusted: Vec<&str> = inbound.trust_domains.iter().map(AsRef::as_ref).collect();
            let rest = json!({
                "destination": &*inbound.destination,
                "trust_domains": trusted,
                "authorization": {"deny": names(deny), "allow": names(allow)},
            });
            ("inbound", rest)
        }
    };
    if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
        value.insert("direction".into(), direction.into());
        value.extend(rest);
    }
    value
}

fn table(role: &Role) -> &RouteTable {
    match role {
        Role::Outbound(outbound) => &outbound.routes,
        Role::Inbound(inbound) => &inbound.routes,
    }
}

fn route_tables(snapshot: &Snapshot) -> Value {
    let tables = snapshot
        .listeners
        .iter()
        .map(|listener| table(&listener.role));
    let by_name: BTreeMap<&str, Value> = tables
        .map(|table| (&*table.name, route_table(table)))
        .collect();
    json!(by_name)
}

fn route_table(table: &RouteTable) -> Value {
    let host = |(index, VirtualHost { name, routes }): (usize, &VirtualHost)| {
        let named = table.by_domain.iter().filter(|(_, of)| **of == index);
        let mut domains: Vec<&str> = named.map(|(domain, _)| &**domain).collect();
        domains.extend((table.any_domain == Some(index)).then_some("*"));
        domains.sort_unstable();
        let routes: Value = routes.iter().map(|one| route(one)).collect();
        json!({"name": &**name, "domains": domains, "routes": routes})
    };
    table.virtual_hosts.iter().enumerate().map(host).collect()
}

fn route(
    Route {
        name,
        matcher,
        action,
    }: &Route,
) -> Value {
    json!({"name": &**name, "match": route_match(matcher), "action": route_action(action)})
}

fn route_match(
    RouteMatch {
        path,
        methods,
        headers,
        query,
    }: &RouteMatch,
) -> Value {
    let (kind, text) = match path {
        PathMatch::Exact(text) => ("exact", &**text),
        PathMatch::Prefix(text) => ("prefix", &**text),
        PathMatch::SegmentPrefix(text) => ("segment_prefix", &**text),
        PathMatch::Regex(regex) => ("regex", regex.as_str()),
    };
    let methods: Option<Vec<&str>> = methods
        .as_ref()
        .map(|methods| methods.iter().map(http::Method::as_str).collect());
    let headers: Value = headers
        .iter()
        .map(
            |HeaderMatch {
                 name,
                 value,
                 invert,
             }| {
                json!({"name": name.as_str(), "value": value_match(value), "invert": invert})
            },
        )
        .collect();
    let query: Value = query
        .iter()
        .map(|QueryMatch { name, value }| json!({"name": &**name, "value": value_match(value)}))
        .collect();
    json!({"path": {kind: text}, "methods": methods, "headers": headers, "query": query})
}

fn value_match(value: &ValueMatch) -> Value {
    match value {
        ValueMatch::Present => json!("present"),
        ValueMatch::Exact(text) => json!({"exact": &**text}),
        ValueMatch::Prefix(text) => json!({"prefix": &**text}),
        ValueMatch::Suffix(text) => json!({"suffix": &**text}),
        ValueMatch::Contains(text) => json!({"contains": &**text}),
        ValueMatch::Regex(regex) => json!({"regex": regex.as_str()}),
    }
}

fn route_action(action: &Action) -> Value {
    match action {
        Action::Respond { status, body: _ } => json!({"respond": status.as_u16()}),
        Action::Forward(Forward {
            clusters,
            timeout,
            retry,
        }) => {
            let weights: BTreeMap<&str, u32> = clusters
                .iter()
                .map(|cluster| (&*cluster.name, cluster.weight))
                .collect();
            json!({
                "clusters": weights,
                "timeout_seconds": timeout.map(seconds),
                "retry": retry.as_ref().map(retry_policy),
            })
        }
    }
}

fn retry_policy(policy: &RetryPolicy) -> Value {
    let RetryPolicy {
        max_retries,
        per_try_timeout,
        base_interval,
        max_interval,
        on,
    } = policy;
    let RetryOn {
        connect_failure,
        refused_stream,
        reset_before_request,
        reset,
        gateway_error,
        server_error,
        statuses,
    } = on;
    let conditions = [
        (connect_failure, "connect-failure"),
        (refused_stream, "refused-stream"),
        (reset_before_request, "reset-before-request"),
        (reset, "reset"),
        (gateway_error, "gateway-error"),
        (server_error, "5xx"),
    ];
    let on: Vec<&str> = conditions
        .into_iter()
        .filter(|(on, _)| **on)
        .map(|(_, name)| name)
        .collect();
    json!({
        "max_retries": max_retries,
        "per_try_timeout_seconds": per_try_timeout.map(seconds),
        "base_interval_seconds": seconds(*base_interval),
        "max_interval_seconds": seconds(*max_interval),
        "on": on,
        "statuses": statuses.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
    })
}

fn clusters(snapshot: &Snapshot, telemetry: &Telemetry) -> Value {
    let seen = telemetry.seen_endpoints();
    let clusters = snapshot.clusters.iter();
    let clusters: BTreeMap<&str, Value> = clusters
        .map(|(name, one)| (&**name, cluster(one, &seen)))
        .collect();
    json!(clusters)
}

fn cluster(cluster: &Cluster, seen: &Seen) -> Value {
    let Cluster {
        name,
        service,
        endpoints,
        transport,
        protocol,
        balance,
        connect_timeout,
        outlier,
        limits,
    } = cluster;
    let peers = match transport {
        Transport::Plaintext => None,
        Transport::MutualTls { peers } => {
            Some(peers.iter().map(AsRef::as_ref).collect::<Vec<&str>>())
        }
    };
    let endpoints: Value = endpoints
        .iter()
        .map(|one| endpoint(one, name, seen))
        .collect();
    json!({
        "service": &**service,
        "endpoints": endpoints,
        "peers": peers,
        "protocol": format!("{protocol:?}"),
        "balance": format!("{balance:?}"),
        "connect_timeout_seconds": seconds(*connect_timeout),
        "outlier_detection": outlier.as_ref().map(outlier_detection),
        "limits": circuit_limits(limits),
    })
}

/// With what each worker has seen of it.
fn endpoint(endpoint: &Endpoint, cluster: &Arc<str>, seen: &Seen) -> Value {
    let Endpoint {
        address,
        weight,
        healthy,
    } = endpoint;
    let key = (Arc::clone(cluster), *address);
    let seen: Value = seen
        .get(&key)
        .into_iter()
        .flatten()
        .map(|seen| json!({"ejected": seen.is_ejected(), "latency_us": seen.latency_us()}))
        .collect();
    json!({"address": address, "weight": weight, "healthy": healthy, "workers": seen})
}

fn outlier_detection(outlier: &OutlierDetection) -> Value {
    let OutlierDetection {
        consecutive_failures,
        base_ejection,
        max_ejection,
        max_ejection_percent,
    } = outlier;
    json!({
        "consecutive_failures": consecutive_failures,
        "base_ejection_seconds": seconds(*base_ejection),
        "max_ejection_seconds": seconds(*max_ejection),
        "max_ejection_percent": max_ejection_percent,
    })
}

fn circuit_limits(limits: &CircuitLimits) -> Value {
    let CircuitLimits {
        max_connections,
        max_pending,
        max_requests,
        retry_budget_percent,
        min_retry_concurrency,
    } = limits;
    json!({
        "max_connections": max_connections,
        "max_pending": max_pending,
        "max_requests": max_requests,
        "retry_budget_percent": retry_budget_percent,
        "min_retry_concurrency": min_retry_concurrency,
    })
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
