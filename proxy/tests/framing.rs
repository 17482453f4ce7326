//! Heads, bodies and paths that two parsers could read differently, against two sidecars and an application that share
//! no code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::time::Duration;

use support::application::{Application, Reply, ok};
use support::pair::{Pair, Shape};
use support::raw::Raw;

fn mesh() -> (Pair, Application) {
    let application = Application::start(|_| ok("hello"));
    (
        Pair::start(Shape::default(), application.address),
        application,
    )
}

/// A request of the service with these headers and this after them.
fn with(headers: &str, rest: &str) -> String {
    format!("POST /a HTTP/1.1\r\nhost: catalog.bookstore\r\n{headers}\r\n{rest}")
}

#[test]
fn a_request_goes_through_and_says_where_it_came_from() {
    let (pair, application) = mesh();
    let mut client = Raw::connect(pair.outbound);
    let answer = client.get("/books/7?x=1");
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    let seen = &application.seen()[0];
    assert_eq!(seen.line, "GET /books/7?x=1 HTTP/1.1");
    assert_eq!(seen.header("host"), Some("catalog.bookstore"));
    let forwarded = "By=spiffe://bookstore.example/ns/bookstore/sa/catalog;URI=spiffe://bookstore.example/ns/bookstore/sa/web";
    assert_eq!(seen.header("x-forwarded-client-cert"), Some(forwarded));
    assert!(seen.header("x-request-id").is_some() && seen.header("traceparent").is_some());
    assert_eq!(seen.header("x-envoy-attempt-count"), Some("1"));
    let edge = r#"direction="inbound",source="spiffe://bookstore.example/ns/bookstore/sa/web",destination="bookstore/catalog""#;
    let line = format!(r#"garrison_requests_total{{{edge},status="2xx",code=""}} 1"#);
    support::pair::until("it is counted", || pair.callee.metric(&line));
}

const AMBIGUOUS: [&str; 12] = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 5\r\nContent-Length: 6\r\n",
    "Content-Length: 5\r\nContent-Length: 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "A: b\n",
];

const MALFORMED: [&str; 6] = [
    "Transfer-Encoding : chunked\r\n",
    "A: b\r\n c\r\n",
    "A: b\rc\r\n",
    "A: b\0c\r\n",
    "X_Under: b\r\n",
    "Host: catalog.bookstore\r\n",
];

#[test]
fn attack_a1_to_a9_ambiguous_framing_is_refused_and_the_connection_closed() {
    let (pair, application) = mesh();
    for (code, all) in [
        ("outbound/bad-framing", &AMBIGUOUS[..]),
        ("outbound/bad-header", &MALFORMED),
    ] {
        for headers in all {
            let mut client = Raw::connect(pair.outbound);
            let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n";
            let answer = client.send(with(headers, smuggled)).read();
            assert_eq!(
                (answer.status, answer.code()),
                (400, Some(code)),
                "{headers:?}"
            );
            assert!(
                code == "outbound/bad-header" || client.is_closed(),
                "{headers:?}"
            );
        }
    }
    assert!(
        application
            .seen()
            .iter()
            .all(|request| !request.line.contains("/a")),
        "{:?}",
        application.seen()
    );
}

#[test]
fn attack_a10_a_body_that_is_not_framed_as_declared_ends_both_connections() {
    let (pair, application) = mesh();
    for body in [
        "FFFFFFFFFFFFFFFFF\r\n",
        "0x5\r\nhello\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut client = Raw::connect(pair.outbound);
        let answer = client
            .send(with("Transfer-Encoding: chunked\r\n", body))
            .read();
        assert_eq!(answer.code(), Some("outbound/bad-body"), "{body:?}");
        assert!(client.is_closed(), "{body:?}");
    }
    assert_eq!(application.seen().len(), 0);
}

#[test]
fn attack_a12_what_goes_out_has_one_framing_and_crlf() {
    // The application insists on CRLF by itself.
    let (pair, application) = mesh();
    let mut client = Raw::connect(pair.outbound);
    let answer = client
        .send(with(
            "Transfer-Encoding: chunked\r\n",
            "5;x\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        ))
        .read();
    assert_eq!(answer.status, 200);
    let seen = &application.seen()[0];
    assert_eq!(seen.body, b"hello!");
    assert_eq!(
        (
            seen.header("transfer-encoding"),
            seen.header("content-length")
        ),
        (Some("chunked"), None)
    );
}

#[test]
fn attack_a14_what_is_left_of_a_denied_body_is_never_a_request() {
    let (pair, application) = mesh();
    let mut client = Raw::connect(pair.outbound);
    let inner = "GET /smuggled HTTP/1.1\r\nhost: catalog.bookstore\r\n\r\n";
    let denied = format!(
        "POST /admin HTTP/1.1\r\nhost: catalog.bookstore\r\ncontent-length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let answer = client.send(denied).read();
    assert_eq!(
        (answer.status, answer.code()),
        (403, Some("inbound/denied"))
    );
    if let Some(next) = client.send(with("", "")).try_read() {
        assert_eq!(next.status, 200);
    }
    assert!(
        application
            .seen()
            .iter()
            .all(|request| request.path() != "/smuggled")
    );
}

#[test]
fn attack_a15_a16_nothing_tunnels() {
    let (pair, application) = mesh();
    let get = |headers: &str| {
        let mut client = Raw::connect(pair.outbound);
        client
            .send(format!(
                "GET / HTTP/1.1\r\nhost: catalog.bookstore\r\n{headers}\r\n"
            ))
            .read()
    };
    let websocket = get("connection: upgrade\r\nupgrade: websocket\r\n");
    assert_eq!(websocket.code(), Some("outbound/upgrade-not-allowed"));
    assert_eq!(
        get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n")
            .status,
        200
    );
    assert!(application.seen()[0].header("upgrade").is_none());
    let mut client = Raw::connect(pair.outbound);
    let connect = client
        .send("CONNECT catalog.bookstore:80 HTTP/1.1\r\nhost: catalog.bookstore:80\r\n\r\n")
        .read();
    assert_eq!(connect.status, 405);
}

#[test]
fn attack_a17_trailers_set_nothing() {
    let (pair, application) = mesh();
    let mut client = Raw::connect(pair.outbound);
    let trailers = "Authorization: x\r\nX-Forwarded-Client-Cert: URI=x\r\nX-Mine: 1\r\n";
    client.send(with(
        "Transfer-Encoding: chunked\r\n",
        &format!("0\r\n{trailers}\r\n"),
    ));
    assert_eq!(client.read().status, 200);
    assert!(application.seen()[0].header("authorization").is_none());
}

#[test]
fn attack_a20_an_answer_with_two_readings_is_a_502_and_its_connection_is_not_used_again() {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 5\n\nhello",
        "HTTP/1.1 101 Switching\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    let application = Application::start(move |request| {
        let number: usize = request.path()[1..].parse().unwrap();
        answers
            .get(number)
            .map_or_else(|| ok("fine"), |answer| Reply::Bytes((*answer).into()))
    });
    let pair = Pair::start(Shape::default(), application.address);
    for (number, sent) in answers.iter().enumerate() {
        let answer = Raw::connect(pair.outbound).get(&format!("/{number}"));
        assert_eq!(
            (answer.status, answer.code()),
            (502, Some("inbound/bad-response")),
            "{sent}"
        );
    }
    let more = Application::start(|_| {
        Reply::Bytes(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n".to_vec(),
        )
    });
    let pair = Pair::start(Shape::default(), more.address);
    let mut client = Raw::connect(pair.outbound);
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(more.connections(), 3);
}

#[test]
fn attack_b1_to_b8_rules_hold_for_every_spelling_of_a_path() {
    let (pair, application) = mesh();
    let get = |path: &str| Raw::connect(pair.outbound).get(path);
    for path in [
        "/admin",
        "//admin",
        "/a/../admin",
        "/a/%2e%2e/admin",
        "/./admin",
        "/%61dmin",
        "/admin;x=1",
        "/admin/.",
        "/admin?x",
    ] {
        assert_eq!(get(path).code(), Some("inbound/denied"), "{path}");
    }
    for path in [
        "/a%2Fadmin",
        "/%5cadmin",
        "/a\\admin",
        "/admin%00",
        "/..",
        "/a/..;/admin",
        "/x#/admin",
        "/%c0%ae/admin",
    ] {
        assert_eq!(get(path).code(), Some("outbound/bad-path"), "{path}");
    }
    assert!(application.seen().is_empty());
    assert_eq!(get("/ok/../%7Euser//x;y?q=%2F").status, 200);
    assert_eq!(application.seen()[0].line, "GET /~user/x;y?q=%2F HTTP/1.1");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a flat table of cases")]
fn attack_b9_b10_the_host_is_one() {
    let (pair, _) = mesh();
    let send = |head: &str| {
        Raw::connect(pair.outbound)
            .send(format!("{head}\r\n\r\n"))
            .read()
    };
    for host in [
        "CATALOG.bookstore",
        "catalog.bookstore.",
        "catalog.bookstore:8080",
        "catalog.bookstore:80",
    ] {
        assert_eq!(
            send(&format!("GET / HTTP/1.1\r\nhost: {host}")).status,
            200,
            "{host}"
        );
        assert_eq!(
            send(&format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}")).status,
            200,
            "{host}"
        );
    }
    assert_eq!(
        send("GET / HTTP/1.1\r\nhost: catalog.bookstore:81").code(),
        Some("outbound/unknown-service")
    );
    assert_eq!(
        send("GET / HTTP/1.1\r\nhost: other.bookstore").code(),
        Some("outbound/unknown-service")
    );
    assert_eq!(send("GET / HTTP/1.1").code(), Some("outbound/bad-host"));
    assert_eq!(
        send("GET http://catalog.bookstore/ HTTP/1.1\r\nhost: x").code(),
        Some("outbound/bad-host")
    );
    assert_eq!(
        send("GET / HTTP/1.1\r\nhost: a@catalog.bookstore").code(),
        Some("outbound/bad-host")
    );
    assert_eq!(
        send("GET / HTTP/1.0\r\nhost: catalog.bookstore").status,
        200
    );
}

#[test]
fn attack_b13_to_b15_nobody_speaks_for_the_mesh() {
    let (pair, application) = mesh();
    let mut client = Raw::connect(pair.outbound);
    client.send(concat!(
        "GET / HTTP/1.1\r\nhost: catalog.bookstore\r\nx-forwarded-client-cert: URI=spiffe://evil\r\n",
        "X-Forwarded-For: 10.0.0.1\r\nx-garrison-x: y\r\nx-envoy-original-path: /\r\n",
        "connection: x-forwarded-client-cert, x-mine\r\nx-mine: 1\r\n\r\n",
    ));
    assert_eq!(client.read().status, 200);
    let seen = &application.seen()[0];
    assert!(
        seen.header("x-forwarded-client-cert")
            .unwrap()
            .ends_with("URI=spiffe://bookstore.example/ns/bookstore/sa/web")
    );
    for name in [
        "x-forwarded-for",
        "x-garrison-x",
        "x-envoy-original-path",
        "x-mine",
        "connection",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn attack_b17_heads_are_bounded() {
    let (pair, _) = mesh();
    let send = |head: String| Raw::connect(pair.outbound).send(head).read();
    let host = "host: catalog.bookstore\r\n";
    assert_eq!(
        send(format!(
            "GET / HTTP/1.1\r\n{host}{}\r\n",
            "a: b\r\n".repeat(150)
        ))
        .status,
        431
    );
    assert_eq!(
        send(format!(
            "GET / HTTP/1.1\r\n{host}a: {}\r\n\r\n",
            "b".repeat(65 * 1024)
        ))
        .status,
        431
    );
    assert_eq!(
        send(format!(
            "GET /{} HTTP/1.1\r\n{host}\r\n",
            "a".repeat(20 * 1024)
        ))
        .status,
        414
    );
}

#[test]
fn attack_d1_a_head_that_does_not_end_is_not_waited_for() {
    let (pair, _) = mesh();
    let mut client = Raw::connect(pair.outbound);
    client
        .0
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    client.send("GET / HTTP/1.1\r\nhost: catalog.boo");
    let began = std::time::Instant::now();
    assert!(client.is_closed());
    assert!(
        (9..14).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}
