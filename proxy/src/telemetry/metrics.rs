//! Prometheus' text format, version 0.0.4: sums over the workers' counters, made at each scrape.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::counters::{BUCKETS_US, GRPC_STATUSES};
use super::{
    Control, Counter, Downstream, Edge, Handshake, Server, Shed, Telemetry, Upstream, locked,
};
use crate::codes::{Code, Hop, Reason};

pub fn render(telemetry: &Telemetry) -> String {
    let mut page = Page::default();
    requests(&mut page, telemetry);
    upstreams(&mut page, telemetry);
    downstreams(&mut page, telemetry);
    handshakes(&mut page, telemetry);
    control(&mut page, telemetry);
    page.0
}

/// One metric after the other: a header, then its samples.
#[derive(Default)]
struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            self.0.extend(value.chars().flat_map(escaped));
            self.0.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let (first, second) = match c {
        '"' | '\\' => ('\\', Some(c)),
        '\n' => ('\\', Some('n')),
        c => (c, None),
    };
    std::iter::once(first).chain(second)
}

/// An edge's counters, summed over the workers.
struct EdgeSum {
    classes: [u64; 6],
    reasons: [u64; Reason::ALL.len()],
    grpc: [u64; GRPC_STATUSES],
    buckets: [u64; BUCKETS_US.len() + 1],
    sum_us: u64,
}

impl Default for EdgeSum {
    fn default() -> Self {
        Self {
            classes: [0; 6],
            reasons: [0; Reason::ALL.len()],
            grpc: [0; GRPC_STATUSES],
            buckets: [0; BUCKETS_US.len() + 1],
            sum_us: 0,
        }
    }
}

impl EdgeSum {
    fn add(&mut self, edge: &Edge) {
        add_each(&mut self.classes, edge.classes().map(|(_, count)| count));
        add_each(&mut self.reasons, edge.reasons().map(|(_, count)| count));
        add_each(&mut self.grpc, edge.grpc_statuses().map(|(_, count)| count));
        add_each(&mut self.buckets, edge.duration.counts());
        self.sum_us += edge.duration.sum_us();
    }
}

fn add_each(sums: &mut [u64], counts: impl Iterator<Item = u64>) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

type Edges = BTreeMap<(Hop, String, String), EdgeSum>;

fn requests(page: &mut Page, telemetry: &Telemetry) {
    let mut edges = Edges::new();
    for edge in locked(&telemetry.edges).iter() {
        let key = (
            edge.hop,
            edge.source.to_string(),
            edge.destination.to_string(),
        );
        edges.entry(key).or_default().add(edge);
    }
    request_totals(page, &edges);
    grpc_totals(page, &edges);
    durations(page, &edges);
}

fn labels(edge: &(Hop, String, String)) -> [(&'static str, &str); 3] {
    [
        ("direction", edge.0.as_str()),
        ("source", &edge.1),
        ("destination", &edge.2),
    ]
}

fn request_totals(page: &mut Page, edges: &Edges) {
    let name = "garrison_requests_total";
    let help = "Requests by the class of their status; a code says that the mesh answered itself.";
    page.metric(name, "counter", help);
    for (edge, sum) in edges {
        let [direction, source, destination] = labels(edge);
        let mut sample = |status: &str, code: &str, count: u64| {
            if count > 0 {
                let labels = [
                    direction,
                    source,
                    destination,
                    ("status", status),
                    ("code", code),
                ];
                page.sample(name, &labels, count);
            }
        };
        for (class, &count) in ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]
            .iter()
            .zip(&sum.classes)
        {
            sample(class, "", count);
        }
        for (&reason, &count) in Reason::ALL.iter().zip(&sum.reasons) {
            let code = Code {
                hop: edge.0,
                reason,
            };
            sample(
                if code.status().is_server_error() {
                    "5xx"
                } else {
                    "4xx"
                },
                code.as_str(),
                count,
            );
        }
    }
}

fn grpc_totals(page: &mut Page, edges: &Edges) {
    let name = "garrison_grpc_responses_total";
    page.metric(
        name,
        "counter",
        "gRPC answers by the status in their trailers.",
    );
    for (edge, sum) in edges {
        let [direction, source, destination] = labels(edge);
        for (status, &count) in sum.grpc.iter().enumerate().filter(|(_, count)| **count > 0) {
            let status = status.to_string();
            page.sample(
                name,
                &[direction, source, destination, ("grpc_status", &status)],
                count,
            );
        }
    }
}

fn durations(page: &mut Page, edges: &Edges) {
    let name = "garrison_request_duration_seconds";
    page.metric(
        name,
        "histogram",
        "From the request's head to the last byte of the answer.",
    );
    for (edge, sum) in edges {
        let [direction, source, destination] = labels(edge);
        let mut total = 0;
        for (index, count) in sum.buckets.iter().enumerate() {
            total += count;
            let bound = BUCKETS_US
                .get(index)
                .map_or("+Inf".into(), |&us| seconds(us));
            let labels = [direction, source, destination, ("le", &bound)];
            page.sample("garrison_request_duration_seconds_bucket", &labels, total);
        }
        let labels = [direction, source, destination];
        page.sample(
            "garrison_request_duration_seconds_sum",
            &labels,
            seconds(sum.sum_us),
        );
        page.sample("garrison_request_duration_seconds_count", &labels, total);
    }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A metric of some counters `C`: its name, kind and help, and where it is in them.
type Metric<C> = (&'static str, &'static str, &'static str, fn(&C) -> i64);

fn count(counter: &Counter) -> i64 {
    i64::try_from(counter.get()).unwrap_or(i64::MAX)
}

const UPSTREAM: [Metric<Upstream>; 9] = [
    (
        "garrison_upstream_connections",
        "gauge",
        "Open connections.",
        |u| u.connections.get(),
    ),
    (
        "garrison_upstream_requests",
        "gauge",
        "Requests in flight.",
        |u| u.requests.get(),
    ),
    (
        "garrison_upstream_connections_opened_total",
        "counter",
        "Connections made.",
        |u| count(&u.connections_opened),
    ),
    (
        "garrison_upstream_connect_failures_total",
        "counter",
        "Connections that failed.",
        |u| count(&u.connect_failures),
    ),
    (
        "garrison_upstream_retries_total",
        "counter",
        "Attempts after the first.",
        |u| count(&u.retries),
    ),
    (
        "garrison_upstream_retries_over_budget_total",
        "counter",
        "Retries that the budget forbade.",
        |u| count(&u.retries_over_budget),
    ),
    (
        "garrison_upstream_overflows_total",
        "counter",
        "Requests refused at a limit.",
        |u| count(&u.overflows),
    ),
    (
        "garrison_upstream_ejections_total",
        "counter",
        "Endpoints ejected as outliers.",
        |u| count(&u.ejections),
    ),
    (
        "garrison_upstream_ejected_endpoints",
        "gauge",
        "Endpoints ejected now.",
        |u| u.ejected.get(),
    ),
];

const DOWNSTREAM: [Metric<Downstream>; 3] = [
    (
        "garrison_downstream_connections",
        "gauge",
        "Open connections.",
        |d| d.connections.get(),
    ),
    (
        "garrison_downstream_connections_accepted_total",
        "counter",
        "Connections accepted.",
        |d| count(&d.accepted),
    ),
    (
        "garrison_downstream_panics_total",
        "counter",
        "Connections lost to a defect.",
        |d| count(&d.panics),
    ),
];

fn upstreams(page: &mut Page, telemetry: &Telemetry) {
    let upstreams = locked(&telemetry.upstreams);
    for (name, kind, help, value) in UPSTREAM {
        page.metric(name, kind, help);
        let mut sums = BTreeMap::<&str, i64>::new();
        for upstream in upstreams.iter() {
            *sums.entry(&upstream.cluster).or_default() += value(upstream);
        }
        for (cluster, sum) in sums {
            page.sample(name, &[("cluster", cluster)], sum);
        }
    }
}

fn downstreams(page: &mut Page, telemetry: &Telemetry) {
    let downstreams = locked(&telemetry.downstreams);
    for (name, kind, help, value) in DOWNSTREAM {
        page.metric(name, kind, help);
        for hop in Hop::ALL {
            let sum: i64 = downstreams
                .iter()
                .filter(|(of, _)| *of == hop)
                .map(|(_, d)| value(d))
                .sum();
            page.sample(name, &[("direction", hop.as_str())], sum);
        }
    }
    let name = "garrison_downstream_connections_shed_total";
    page.metric(name, "counter", "Connections refused at a limit, by which.");
    for (hop, why) in Hop::ALL
        .into_iter()
        .flat_map(|hop| Shed::ALL.map(|why| (hop, why)))
    {
        let of = downstreams.iter().filter(|(of, _)| *of == hop);
        let sum: u64 = of.map(|(_, d)| d.shed(why).get()).sum();
        let labels = [("direction", hop.as_str()), ("reason", why.as_str())];
        page.sample(name, &labels, sum);
    }
}

fn handshakes(page: &mut Page, telemetry: &Telemetry) {
    let mut sums = BTreeMap::<(Hop, Handshake), u64>::new();
    for shared in locked(&telemetry.handshakes).iter() {
        *sums.entry((shared.hop, shared.outcome)).or_default() += shared.count.get();
    }
    let completed = "garrison_tls_handshakes_total";
    page.metric(
        completed,
        "counter",
        "Completed handshakes by key exchange.",
    );
    for (&(hop, outcome), &sum) in &sums {
        if let Handshake::Completed(group) = outcome {
            page.sample(
                completed,
                &[("direction", hop.as_str()), ("key_exchange", group)],
                sum,
            );
        }
    }
    let refused = "garrison_tls_handshake_refusals_total";
    page.metric(refused, "counter", "Handshakes that failed, by reason.");
    for (&(hop, outcome), &sum) in &sums {
        if let Handshake::Refused(reason) = outcome {
            page.sample(
                refused,
                &[("direction", hop.as_str()), ("reason", reason)],
                sum,
            );
        }
    }
}

const CONTROL: [Metric<Control>; 5] = [
    (
        "garrison_svid_renewals_total",
        "counter",
        "SVIDs received.",
        |c| count(&c.svid_renewals),
    ),
    (
        "garrison_svid_renewal_failures_total",
        "counter",
        "Attempts that gave no SVID.",
        |c| count(&c.svid_renewal_failures),
    ),
    (
        "garrison_bundle_updates_total",
        "counter",
        "Trust bundles received.",
        |c| count(&c.bundle_updates),
    ),
    (
        "garrison_configurations_accepted_total",
        "counter",
        "Configurations enforced.",
        |c| count(&c.configurations_accepted),
    ),
    (
        "garrison_configurations_refused_total",
        "counter",
        "Configurations refused (NACK).",
        |c| count(&c.configurations_refused),
    ),
];

fn control(page: &mut Page, telemetry: &Telemetry) {
    let control = &telemetry.control;
    for (name, kind, help, value) in CONTROL {
        page.metric(name, kind, help);
        page.sample(name, &[], value(control));
    }
    times(page, control);
    state(page, control);
    let name = "garrison_access_log_dropped_total";
    page.metric(
        name,
        "counter",
        "Lines lost because the log's reader is too slow.",
    );
    page.sample(name, &[], telemetry.log.dropped());
    page.metric("garrison_build_info", "gauge", "This executable.");
    page.sample(
        "garrison_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
}

fn times(page: &mut Page, control: &Control) {
    let times = [
        (
            "garrison_svid_expiry_timestamp_seconds",
            "When our SVID expires.",
            control.svid_expiry(),
        ),
        (
            "garrison_configuration_applied_timestamp_seconds",
            "When the commit came into force.",
            control.applied_at(),
        ),
    ];
    for (name, help, time) in times {
        page.metric(name, "gauge", help);
        if let Some(time) = time {
            page.sample(name, &[], time);
        }
    }
}

/// What is in force, and who is there to say otherwise.
fn state(page: &mut Page, control: &Control) {
    page.metric(
        "garrison_configuration_info",
        "gauge",
        "The commit in force.",
    );
    if let Some(commit) = control.commit() {
        page.sample("garrison_configuration_info", &[("commit", &commit)], 1);
    }
    page.metric(
        "garrison_control_plane_connected",
        "gauge",
        "Is the stream to this server up?",
    );
    for server in Server::ALL {
        let connected = u8::from(control.is_connected(server));
        page.sample(
            "garrison_control_plane_connected",
            &[("server", server.as_str())],
            connected,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::telemetry::{LogTarget, Record, RequestId, Trace};
    use http::{HeaderMap, Method, Version};

    fn finish(worker: &crate::telemetry::Worker, source: &str, status: u16, code: Option<Code>) {
        let none = HeaderMap::new();
        worker.finish(&Record {
            hop: Hop::Inbound,
            started: UNIX_EPOCH,
            duration: Duration::from_micros(1_500),
            request_id: &RequestId::keep_or_make(&none),
            trace: &Trace::keep_or_start(&none),
            source,
            destination: "bookstore/catalog",
            route: None,
            cluster: None,
            upstream: None,
            method: &Method::GET,
            host: "catalog",
            path: "/never-a-label",
            protocol: Version::HTTP_11,
            status,
            grpc_status: (status == 200).then_some(5),
            code,
            rule: None,
            commit: None,
            attempts: 1,
            bytes_in: 0,
            bytes_out: 0,
            user_agent: None,
        });
    }

    fn has(page: &str, line: &str) -> bool {
        page.lines().any(|other| other == line)
    }

    #[test]
    fn a_scrape_sums_over_the_workers() {
        let telemetry = Telemetry::start("n", &LogTarget::Off).unwrap();
        let (one, other) = (telemetry.worker(), telemetry.worker());
        finish(&one, "a/b", 200, None);
        finish(&other, "a/b", 204, None);
        finish(&other, "a/b", 403, Some(Code::inbound(Reason::Denied)));
        let page = telemetry.render();
        let edge = r#"direction="inbound",source="a/b",destination="bookstore/catalog""#;
        let total = |rest: &str| format!("garrison_requests_total{{{edge},{rest}");
        assert!(has(&page, &total(r#"status="2xx",code=""} 2"#)), "{page}");
        assert!(
            has(&page, &total(r#"status="4xx",code="inbound/denied"} 1"#)),
            "{page}"
        );
        let bucket =
            |rest: &str| format!("garrison_request_duration_seconds_bucket{{{edge},{rest}");
        assert!(has(&page, &bucket(r#"le="0.001"} 0"#)), "{page}");
        assert!(has(&page, &bucket(r#"le="0.0025"} 3"#)), "{page}");
        assert!(has(&page, &bucket(r#"le="+Inf"} 3"#)), "{page}");
        let sum = format!("garrison_request_duration_seconds_sum{{{edge}}} 0.0045");
        assert!(has(&page, &sum), "{page}");
        let grpc = format!(r#"garrison_grpc_responses_total{{{edge},grpc_status="5"}} 1"#);
        assert!(has(&page, &grpc), "{page}");
        assert!(!page.contains("never-a-label"));
    }

    #[test]
    fn clusters_connections_and_handshakes_are_counted() {
        let telemetry = Telemetry::start("n", &LogTarget::Off).unwrap();
        let (one, other) = (telemetry.worker(), telemetry.worker());
        for worker in [&one, &other] {
            worker.upstream("bookstore/catalog").retries.one();
            worker.upstream("bookstore/catalog").connections.up();
            worker.downstream(Hop::Inbound).accepted.one();
            worker.handshake(Hop::Inbound, Handshake::Completed("X25519MLKEM768"));
            worker.handshake(Hop::Inbound, Handshake::Refused("expired"));
        }
        one.upstream("bookstore/catalog").connections.down();
        let page = telemetry.render();
        for line in [
            r#"garrison_upstream_retries_total{cluster="bookstore/catalog"} 2"#,
            r#"garrison_upstream_connections{cluster="bookstore/catalog"} 1"#,
            r#"garrison_downstream_connections_accepted_total{direction="inbound"} 2"#,
            r#"garrison_tls_handshakes_total{direction="inbound",key_exchange="X25519MLKEM768"} 2"#,
            r#"garrison_tls_handshake_refusals_total{direction="inbound",reason="expired"} 2"#,
        ] {
            assert!(has(&page, line), "{line}\n{page}");
        }
    }

    #[test]
    fn the_control_side_is_told() {
        let telemetry = Telemetry::start("n", &LogTarget::Off).unwrap();
        let early = telemetry.render();
        assert!(
            !early
                .lines()
                .any(|line| line.starts_with("garrison_svid_expiry"))
        );
        let at = UNIX_EPOCH + Duration::from_secs(77);
        telemetry.control.set_svid_expiry(at);
        telemetry.control.applied(&Arc::from("3f2c\"9a1"), at);
        telemetry.control.set_connected(Server::Policy, true);
        let page = telemetry.render();
        for line in [
            "garrison_svid_expiry_timestamp_seconds 77",
            r#"garrison_configuration_info{commit="3f2c\"9a1"} 1"#,
            "garrison_configurations_accepted_total 1",
            r#"garrison_control_plane_connected{server="policy"} 1"#,
            r#"garrison_control_plane_connected{server="ca"} 0"#,
        ] {
            assert!(has(&page, line), "{line}\n{page}");
        }
    }

    #[test]
    fn series_are_bounded_and_the_rest_is_other() {
        let telemetry = Telemetry::start("n", &LogTarget::Off).unwrap();
        let worker = telemetry.worker();
        for number in 0..5_000 {
            finish(&worker, &format!("spiffe://td/ns/a/sa/{number}"), 200, None);
        }
        assert_eq!(locked(&telemetry.edges).len(), 4_097);
        let page = telemetry.render();
        let other = r#"garrison_requests_total{direction="inbound",source="other",destination="other",status="2xx",code=""} 904"#;
        assert!(has(&page, other));
    }
}
