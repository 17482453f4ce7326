//! What two sidecars tell of the requests between them: logs that meet, traces that go on, metrics without a request's words.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use support::WEB;
use support::application::{Application, ok};
use support::pair::{Pair, SERVICE, Shape};
use support::raw::Raw;

fn mesh() -> (Pair, Application) {
    let application = Application::start(|_| ok("hello"));
    (
        Pair::start(Shape::default(), application.address),
        application,
    )
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: catalog.bookstore\r\n{headers}\r\n")
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table of the log's fields")]
fn the_logs_of_both_ends_meet() {
    let (pair, application) = mesh();
    let answer = Raw::connect(pair.outbound)
        .send(get("/books//7?x=1", "user-agent: curl/8\r\n"))
        .read();
    assert_eq!(answer.status, 200);
    let (sent, received) = (&pair.caller.logged(1)[0], &pair.callee.logged(1)[0]);
    for (field, expected) in [
        ("source", WEB),
        ("destination", SERVICE),
        ("method", "GET"),
        ("host", "catalog.bookstore"),
        ("path", "/books/7"),
        ("commit", "3f2c9a1"),
        ("route", "bookstore/catalog#default"),
        ("user_agent", "curl/8"),
    ] {
        assert_eq!(
            (&sent[field], &received[field]),
            (&expected.into(), &expected.into())
        );
    }
    for field in ["request_id", "trace_id"] {
        assert!(sent[field].is_string() && sent[field] == received[field]);
    }
    assert_eq!(
        (&sent["direction"], &received["direction"]),
        (&"outbound".into(), &"inbound".into())
    );
    assert_eq!(sent["upstream"], pair.inbound.to_string());
    assert_eq!(received["upstream"], application.address.to_string());
    assert_eq!(
        (&sent["protocol"], &received["protocol"]),
        (&"HTTP/1.1".into(), &"HTTP/2".into())
    );
    assert_eq!(
        (&sent["rule"], &received["rule"]),
        (&().into(), &"authz/test.csv:/".into())
    );
    assert_eq!(
        (&sent["bytes_out"], &received["bytes_out"]),
        (&5.into(), &5.into())
    );
    assert_eq!(
        (&sent["attempts"], &received["attempts"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&sent["code"], &received["status"]),
        (&().into(), &200.into())
    );
}

#[test]
fn a_denial_is_explained_where_it_was_made_and_nowhere_else() {
    let (pair, application) = mesh();
    let answer = Raw::connect(pair.outbound).get("/admin/x");
    assert_eq!(
        (answer.status, answer.code()),
        (403, Some("inbound/denied"))
    );
    assert!(!answer.text().contains("authz"), "{}", answer.text());
    let received = &pair.callee.logged(1)[0];
    assert_eq!(received["code"], "inbound/denied");
    assert_eq!(received["rule"], "authz/test.csv:/admin");
    assert_eq!(
        received["request_id"],
        answer.header("x-request-id").unwrap()
    );
    let sent = &pair.caller.logged(1)[0];
    assert_eq!((&sent["status"], &sent["code"]), (&403.into(), &().into()));
    assert!(application.seen().is_empty());
    let edge = format!(r#"direction="inbound",source="{WEB}",destination="{SERVICE}""#);
    let line = format!(r#"garrison_requests_total{{{edge},status="4xx",code="inbound/denied"}} 1"#);
    assert!(pair.callee.metric(&line));
}

#[test]
fn a_trace_goes_on_with_a_span_for_each_hop() {
    let (pair, application) = mesh();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = "0f8fad5b-d9cb-469f-a165-70867728950e";
    let headers = format!("traceparent: {parent}\r\ntracestate: a=1\r\nx-request-id: {id}\r\n");
    Raw::connect(pair.outbound).send(get("/", &headers)).read();
    let seen = &application.seen()[0];
    let arrived = seen.header("traceparent").unwrap();
    assert_eq!(&arrived[..36], &parent[..36]);
    assert!(arrived.ends_with("-01") && arrived[36..52] != parent[36..52]);
    assert_eq!(seen.header("tracestate"), Some("a=1"));
    assert_eq!(seen.header("x-request-id"), Some(id));
    let received = &pair.callee.logged(1)[0];
    assert_eq!(received["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(received["request_id"], id);
}

#[test]
fn attack_d9_what_a_request_carries_stays_in_its_field() {
    let (pair, application) = mesh();
    let agent = "x\",\"rule\":\"forged\\ \u{e9}";
    let headers = format!("user-agent: {agent}\r\nx-request-id: forged id\r\n");
    Raw::connect(pair.outbound).send(get("/", &headers)).read();
    let received = &pair.callee.logged(1)[0];
    assert_eq!(received["rule"], "authz/test.csv:/");
    assert_eq!(received["user_agent"], agent);
    let id = received["request_id"].as_str().unwrap();
    assert_eq!(
        (id.len(), application.seen()[0].header("x-request-id")),
        (36, Some(id))
    );
}

#[test]
fn attack_d10_no_word_of_a_request_becomes_a_label() {
    let (pair, _application) = mesh();
    for number in 0..20 {
        let host = format!("host-{number}.example");
        let request = format!("GET /path-{number} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let answer = Raw::connect(pair.outbound).send(request).read();
        assert_eq!(answer.code(), Some("outbound/unknown-service"));
    }
    let edge = format!(r#"direction="outbound",source="{WEB}",destination="unknown""#);
    let total = format!(
        r#"garrison_requests_total{{{edge},status="4xx",code="outbound/unknown-service"}} 20"#
    );
    support::pair::until("all are counted", || pair.caller.metric(&total));
    let page = pair.caller.telemetry.render();
    assert!(!page.contains("host-") && !page.contains("path-"), "{page}");
}
