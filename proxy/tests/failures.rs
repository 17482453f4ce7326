//! What callers see, and what applications are spared, when endpoints fail, are slow, or go away.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use garrison_proxy::mesh::cluster::{
    Balance, CircuitLimits, OutlierDetection, Transport, UpstreamProtocol,
};
use garrison_proxy::mesh::route::RetryOn;
use garrison_proxy::tls::MeshTls;
use support::application::{Application, Reply, ok, status};
use support::pair::{Pair, Shape, Sidecar, free_address, retry, safe, until};
use support::raw::Raw;
use support::{Authority, CATALOG, TRUST_DOMAIN, WEB};

const MS: Duration = Duration::from_millis(1);

fn post(client: &mut Raw, body: &str) -> support::raw::Answer {
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: catalog.bookstore\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send(head + body).read()
}

#[test]
fn an_endpoint_that_nobody_listens_on_is_made_up_for() {
    let application = Application::start(|_| ok("fine"));
    let pair = Pair::beside(
        Shape::default(),
        application.address,
        &[free_address(), free_address()],
    );
    let mut client = Raw::connect(pair.outbound);
    for _ in 0..20 {
        let answer = post(&mut client, "buy");
        assert_eq!((answer.status, answer.text()), (200, "fine"));
    }
    assert_eq!(application.seen().len(), 20);
    assert!(
        application
            .seen()
            .iter()
            .all(|request| request.body == b"buy")
    );
}

#[test]
fn without_leave_to_retry_a_failed_connection_is_told() {
    let application = Application::start(|_| ok("fine"));
    let shape = Shape {
        retry: None,
        ..Shape::default()
    };
    let authority = Authority::new(TRUST_DOMAIN);
    let outbound = free_address();
    let _caller = Sidecar::start(&authority, WEB, shape.caller(outbound, &[free_address()]));
    let answer = Raw::connect(outbound).get("/");
    assert_eq!(
        (answer.status, answer.code()),
        (503, Some("outbound/connect-failed"))
    );
    drop(application);
}

#[test]
fn an_application_that_is_down_is_made_up_for_by_another_instance() {
    // Its sidecar lives and says that the request was not processed, so that it can be sent to the other.
    let application = Application::start(|_| ok("fine"));
    let authority = Authority::new(TRUST_DOMAIN);
    let shape = Shape::default();
    let (outbound, good, bad) = (free_address(), free_address(), free_address());
    let _good = Sidecar::start(&authority, CATALOG, shape.callee(good, application.address));
    let _bad = Sidecar::start(&authority, CATALOG, shape.callee(bad, free_address()));
    let _caller = Sidecar::start(&authority, WEB, shape.caller(outbound, &[good, bad]));
    let mut client = Raw::connect(outbound);
    for _ in 0..20 {
        assert_eq!(post(&mut client, "buy").status, 200);
    }
    assert_eq!(application.seen().len(), 20);
}

#[test]
fn what_may_have_been_processed_is_not_sent_again() {
    let application = Application::start(|_| Reply::Close);
    let pair = Pair::start(Shape::default(), application.address);
    let answer = post(&mut Raw::connect(pair.outbound), "pay");
    assert_eq!((answer.status, answer.code()), (502, Some("inbound/reset")));
    assert_eq!(application.seen().len(), 1);
}

#[test]
fn an_idempotent_route_is_tried_again_after_an_error() {
    let failures = Arc::new(AtomicUsize::new(2));
    let left = Arc::clone(&failures);
    let application = Application::start(move |_| {
        let fails = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        if fails { status(503, "") } else { ok("fine") }
    });
    let on = RetryOn {
        gateway_error: true,
        reset: true,
        ..safe()
    };
    let pair = Pair::start(
        Shape {
            retry: Some(retry(on)),
            ..Shape::default()
        },
        application.address,
    );
    assert_eq!(Raw::connect(pair.outbound).get("/").status, 200);
    let attempts: Vec<_> = application
        .seen()
        .iter()
        .map(|request| request.header("x-envoy-attempt-count").unwrap().to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3"]);
    assert!(
        pair.caller
            .metric(r#"garrison_upstream_retries_total{cluster="bookstore/catalog"} 2"#)
    );
    failures.store(9, Ordering::SeqCst);
    assert_eq!(Raw::connect(pair.outbound).get("/").status, 503);
    assert_eq!(application.seen().len(), 6);
}

#[test]
fn the_retry_budget_is_kept() {
    let application = Application::start(|_| status(503, ""));
    let limits = CircuitLimits {
        retry_budget_percent: 0.0,
        min_retry_concurrency: 0,
        ..Shape::default().limits
    };
    let on = RetryOn {
        gateway_error: true,
        ..safe()
    };
    let pair = Pair::start(
        Shape {
            retry: Some(retry(on)),
            limits,
            ..Shape::default()
        },
        application.address,
    );
    assert_eq!(Raw::connect(pair.outbound).get("/").status, 503);
    assert_eq!(application.seen().len(), 1);
    assert!(
        pair.caller.metric(
            r#"garrison_upstream_retries_over_budget_total{cluster="bookstore/catalog"} 1"#
        )
    );
}

#[test]
fn a_connection_that_the_application_closed_at_rest_is_not_used() {
    // Each answer is the connection's last, without a word about it.
    let application = Application::start(|_| {
        Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
    });
    let pair = Pair::start(
        Shape {
            retry: None,
            ..Shape::default()
        },
        application.address,
    );
    let mut client = Raw::connect(pair.outbound);
    for _ in 0..50 {
        assert_eq!(post(&mut client, "buy").status, 200);
    }
    assert_eq!(application.seen().len(), 50);
}

#[test]
fn connections_to_the_application_are_used_again() {
    let application = Application::start(|_| ok("fine"));
    let pair = Pair::start(Shape::default(), application.address);
    let mut client = Raw::connect(pair.outbound);
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(application.connections(), 1);
    assert!(
        pair.caller
            .metric(r#"garrison_upstream_connections{cluster="bookstore/catalog"} 1"#)
    );
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each step starts where the last one ended"
)]
fn a_failing_endpoint_is_ejected_probed_and_returns() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let failing = Application::start(move |_| {
        if is_broken.load(Ordering::SeqCst) {
            status(500, "")
        } else {
            ok("back")
        }
    });
    let good = Application::start(|_| ok("good"));
    let authority = Authority::new(TRUST_DOMAIN);
    let outlier = OutlierDetection {
        consecutive_failures: 3,
        base_ejection: 2000 * MS,
        max_ejection: 2000 * MS,
        max_ejection_percent: 50,
    };
    let shape = Shape {
        outlier: Some(outlier),
        retry: None,
        ..Shape::default()
    };
    let (outbound, one, two) = (free_address(), free_address(), free_address());
    let _one = Sidecar::start(
        &authority,
        CATALOG,
        Shape::default().callee(one, good.address),
    );
    let _two = Sidecar::start(
        &authority,
        CATALOG,
        Shape::default().callee(two, failing.address),
    );
    let caller = Sidecar::start(&authority, WEB, shape.caller(outbound, &[one, two]));
    let ejected = |count: u32| {
        format!(r#"garrison_upstream_ejected_endpoints{{cluster="bookstore/catalog"}} {count}"#)
    };
    let mut client = Raw::connect(outbound);
    until("the endpoint is ejected", || {
        client.get("/");
        caller.metric(&ejected(1))
    });
    let before = failing.seen().len();
    let errors = (0..50).filter(|_| client.get("/").status != 200).count();
    assert_eq!((errors, failing.seen().len()), (0, before));
    std::thread::sleep(2100 * MS);
    let probed = (0..20).filter(|_| client.get("/").status != 200).count();
    assert_eq!((probed, failing.seen().len()), (1, before + 1));
    broken.store(false, Ordering::SeqCst);
    until("the endpoint is back", || client.get("/").text() == "back");
    assert!(caller.metric(&ejected(0)));
    assert!(caller.metric(r#"garrison_upstream_ejections_total{cluster="bookstore/catalog"} 1"#));
}

#[test]
fn an_answer_that_does_not_come_in_time_is_a_504() {
    let application = Application::start(|request| {
        let slow = if request.path() == "/slow" {
            2000 * MS
        } else {
            Duration::ZERO
        };
        Reply::Wait(
            slow,
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec(),
        )
    });
    let pair = Pair::start(
        Shape {
            timeout: Some(300 * MS),
            ..Shape::default()
        },
        application.address,
    );
    let mut client = Raw::connect(pair.outbound);
    let began = Instant::now();
    let answer = client.get("/slow");
    assert_eq!(answer.status, 504);
    assert!(answer.code().unwrap().ends_with("/timeout"));
    assert!(began.elapsed() < 1000 * MS);
    assert_eq!(client.get("/fast").status, 200);
    let handed_on: u64 = application.seen()[0]
        .header("x-envoy-expected-rq-timeout-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!(handed_on <= 300);
}

#[test]
fn a_callers_own_deadline_counts_if_it_is_shorter() {
    let application = Application::start(|_| Reply::Wait(2000 * MS, Vec::new()));
    let pair = Pair::start(Shape::default(), application.address);
    let began = Instant::now();
    let mut client = Raw::connect(pair.outbound);
    client.send(
        "GET / HTTP/1.1\r\nhost: catalog.bookstore\r\nx-envoy-expected-rq-timeout-ms: 200\r\n\r\n",
    );
    assert_eq!(client.read().status, 504);
    assert!(began.elapsed() < 1000 * MS);
    let mut client = Raw::connect(pair.outbound);
    client.send("GET / HTTP/1.1\r\nhost: catalog.bookstore\r\ngrpc-timeout: soon\r\n\r\n");
    assert_eq!(client.read().code(), Some("outbound/bad-header"));
}

#[test]
fn requests_beyond_the_limit_are_refused_and_not_sent() {
    let application = Application::start(|_| {
        Reply::Wait(
            500 * MS,
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        )
    });
    // Two workers share the limit, at both ends: each takes one.
    let limits = CircuitLimits {
        max_requests: 2,
        ..Shape::default().limits
    };
    let pair = Pair::start(
        Shape {
            limits,
            ..Shape::default()
        },
        application.address,
    );
    let mut clients: Vec<_> = (0..8).map(|_| Raw::connect(pair.outbound)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n");
    }
    let answers: Vec<_> = clients.iter_mut().map(Raw::read).collect();
    let refused = answers
        .iter()
        .filter(|answer| {
            answer
                .code()
                .is_some_and(|code| code.ends_with("/overflow"))
        })
        .count();
    assert!((6..8).contains(&refused), "{refused}");
    assert_eq!(application.seen().len(), 8 - refused);
}

/// An application that answers nothing while the flag is set.
fn held(flag: &Arc<AtomicBool>) -> Application {
    let is_held = Arc::clone(flag);
    Application::start(move |_| {
        until("the application may answer", || {
            !is_held.load(Ordering::SeqCst)
        });
        ok("fine")
    })
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story: each step starts where the last one ended"
)]
fn who_waits_for_a_connection_is_woken_by_its_own_endpoint() {
    let flags = [
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(true)),
    ];
    let applications = [held(&flags[0]), held(&flags[1])];
    let limits = CircuitLimits {
        max_connections: 1,
        ..Shape::default().limits
    };
    let shape = Shape {
        limits,
        link: UpstreamProtocol::Http1,
        timeout: None,
        ..Shape::default()
    };
    let authority = Authority::new(TRUST_DOMAIN);
    let outbound = free_address();
    let endpoints = [applications[0].address, applications[1].address];
    let mut configuration = shape.caller(outbound, &endpoints);
    for cluster in configuration.clusters.values_mut() {
        let cluster = Arc::get_mut(cluster).unwrap();
        cluster.balance = Balance::RoundRobin;
        cluster.transport = Transport::Plaintext; // to the applications, without sidecars between
    }
    let tls = MeshTls::new(authority.credentials(WEB), Duration::from_secs(86_400));
    let caller = Sidecar::of_workers(1, &tls, configuration);
    // In turn: each endpoint is busy with one and has one that waits, the first endpoint's came first.
    let mut clients: Vec<_> = (1..=4)
        .map(|count| {
            let mut client = Raw::connect(outbound);
            client.send("GET / HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n");
            let there =
                format!(r#"garrison_upstream_requests{{cluster="bookstore/catalog"}} {count}"#);
            until("the request is there", || caller.metric(&there));
            client
        })
        .collect();
    flags[1].store(false, Ordering::SeqCst);
    assert_eq!(
        (clients[1].read().status, clients[3].read().status),
        (200, 200)
    );
    assert_eq!(applications[0].seen().len(), 1);
    flags[0].store(false, Ordering::SeqCst);
    assert_eq!(
        (clients[0].read().status, clients[2].read().status),
        (200, 200)
    );
}

#[test]
fn a_caller_that_goes_away_is_not_worked_for() {
    let application = Application::start(|request| match request.path() {
        "/slow" => Reply::Wait(
            700 * MS,
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        _ => ok("fine"),
    });
    let pair = Pair::start(Shape::default(), application.address);
    let mut client = Raw::connect(pair.outbound);
    client.send("GET /slow HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n");
    until("the request is there", || !application.seen().is_empty());
    drop(client);
    until("the request is given up", || {
        let idle = r#"garrison_upstream_requests{cluster="application"} 0"#;
        pair.callee.metric(idle)
    });
    assert_eq!(Raw::connect(pair.outbound).get("/").status, 200);
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let application = Application::start(|request| {
        let length = request.body.len();
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        answer.extend(request.body.iter().rev());
        Reply::Bytes(answer)
    });
    let pair = Pair::start(Shape::default(), application.address);
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|number| u8::try_from(number % 251).unwrap())
        .collect();
    let stream = Raw::connect(pair.outbound);
    let mut writer = stream.0.try_clone().unwrap();
    let sent = body.clone();
    let sender = std::thread::spawn(move || {
        let head = "POST /echo HTTP/1.1\r\nhost: catalog.bookstore\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n";
        writer.write_all(head.as_bytes()).unwrap();
        for chunk in sent.chunks(100_000) {
            writer
                .write_all(format!("{:x}\r\n", chunk.len()).as_bytes())
                .unwrap();
            writer.write_all(chunk).unwrap();
            writer.write_all(b"\r\n").unwrap();
        }
        writer.write_all(b"0\r\n\r\n").unwrap();
    });
    let mut reader = Raw(std::net::TcpStream::try_clone(&stream.0).unwrap());
    assert_eq!(reader.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    reader.line();
    let answer = read_fast(&reader.0);
    sender.join().unwrap();
    assert!(answer.iter().rev().eq(body.iter()));
}

/// The body of an answer with a `Content-Length`, read in large pieces.
fn read_fast(stream: &std::net::TcpStream) -> Vec<u8> {
    use std::io::{BufRead, BufReader, Read};
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

#[test]
fn a_request_may_come_ahead_of_its_turn() {
    let application = Application::start(|request| ok(request.path()));
    let pair = Pair::start(Shape::default(), application.address);
    let mut client = Raw::connect(pair.outbound);
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n");
    client.send([one("/1"), one("/2"), one("/3")].concat());
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.read().text(), path);
    }
}

#[test]
fn answers_without_a_body_have_none() {
    let application = Application::start(|request| match request.line.split(' ').next().unwrap() {
        "HEAD" => Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n".to_vec()),
        "PUT" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        _ => ok("fine"),
    });
    let pair = Pair::start(Shape::default(), application.address);
    let mut client = Raw::connect(pair.outbound);
    client.send("HEAD / HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &(client.line().unwrap() + "\r\n");
    }
    assert!(head.contains("content-length: 99"));
    client.send("PUT / HTTP/1.1\r\nhost: catalog.bookstore\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.read().status, 204);
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn an_application_cannot_speak_the_meshs_codes() {
    let answer = "HTTP/1.1 503 X\r\nx-garrison-code: inbound/draining\r\ncontent-length: 0\r\n\r\n";
    let application = Application::start(move |_| Reply::Bytes(answer.into()));
    let pair = Pair::start(Shape::default(), application.address);
    let answer = Raw::connect(pair.outbound).get("/");
    assert_eq!((answer.status, answer.code()), (503, None));
    assert_eq!(application.seen().len(), 1);
}

#[test]
fn a_route_may_answer_by_itself() {
    let shape = Shape {
        direct: Some((418, "teapot")),
        ..Shape::default()
    };
    let pair = Pair::start(shape, free_address());
    let answer = Raw::connect(pair.outbound).get("/");
    assert_eq!((answer.status, answer.text()), (418, "teapot"));
    assert_eq!(answer.code(), Some("outbound/direct-response"));
}
