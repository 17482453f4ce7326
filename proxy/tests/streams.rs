//! HTTP/2 end to end: gRPC with its trailers, both directions at once, and many streams. hyper is the client and the
//! application: it shares no code with the path between but the h2 crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // a test may

mod support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use garrison_proxy::mesh::cluster::UpstreamProtocol;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::pair::{Pair, Shape, until};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

type AnyBody = BoxBody<Bytes, Infallible>;

/// Counts the streams that were reset under it.
type Resets = Arc<AtomicUsize>;

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([(
        "grpc-status".parse().unwrap(),
        "0".parse().unwrap(),
    )]))
}

/// A body that is fed while it is read.
fn fed() -> (mpsc::Sender<Frame<Bytes>>, AnyBody) {
    let (feed, frames) = mpsc::channel(4);
    let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
    (
        feed,
        StreamBody::new(tokio_stream::StreamExt::map(frames, Ok)).boxed(),
    )
}

/// Echoes each message as it comes, then says that all is well.
fn echo(request: Request<Incoming>, resets: Resets) -> Response<AnyBody> {
    let (feed, body) = fed();
    let te = request.headers().get("te").cloned();
    let path = request.uri().path().to_owned();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut incoming = request.into_body();
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else {
                resets.fetch_add(1, Ordering::SeqCst);
                return;
            };
            if let Ok(data) = frame.into_data()
                && feed.send(Frame::data(data)).await.is_err()
            {
                resets.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
        let _ = feed.send(trailers()).await;
    });
    tasks.detach_all();
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    response
        .headers_mut()
        .insert("x-path", path.parse().unwrap());
    if let Some(te) = te {
        response.headers_mut().insert("x-te", te);
    }
    response
}

async fn application() -> (SocketAddr, Resets) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resets = Resets::default();
    let counted = Arc::clone(&resets);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let resets = Arc::clone(&counted);
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let response = echo(request, Arc::clone(&resets));
                    async move { Ok::<_, Infallible>(response) }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    tasks.detach_all();
    (address, resets)
}

async fn mesh() -> (Pair, Resets) {
    let (address, resets) = application().await;
    let shape = Shape {
        application: UpstreamProtocol::Http2,
        link: UpstreamProtocol::Http2,
        timeout: None,
        ..Shape::default()
    };
    let pair = tokio::task::spawn_blocking(move || Pair::start(shape, address))
        .await
        .unwrap();
    (pair, resets)
}

async fn client(outbound: SocketAddr) -> SendRequest<AnyBody> {
    let stream = TcpStream::connect(outbound).await.unwrap();
    let (requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    tasks.detach_all();
    requests
}

fn call(path: &str, body: AnyBody) -> Request<AnyBody> {
    let request = Request::post(format!("http://catalog.bookstore{path}"));
    request
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn test(body: impl Future<Output = ()>) {
    runtime().block_on(async { timeout(Duration::from_secs(20), body).await.unwrap() });
}

#[test]
fn a_unary_call_has_its_trailers() {
    test(async {
        let (pair, _) = mesh().await;
        let mut requests = client(pair.outbound).await;
        let message = Full::new(Bytes::from_static(b"hello")).boxed();
        let response = requests
            .send_request(call("/pkg.Svc/Method", message))
            .await
            .unwrap();
        assert_eq!(response.headers()["x-path"], "/pkg.Svc/Method");
        assert_eq!(response.headers()["x-te"], "trailers");
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "hello");
        let line = concat!(
            r#"garrison_grpc_responses_total{direction="inbound",source="spiffe://bookstore.example/ns/bookstore/sa/web","#,
            r#"destination="bookstore/catalog",grpc_status="0"} 1"#
        );
        tokio::task::spawn_blocking(move || until("it is counted", || pair.callee.metric(line)))
            .await
            .unwrap();
    });
}

#[test]
fn messages_go_both_ways_as_they_come() {
    test(async {
        let (pair, _) = mesh().await;
        let mut requests = client(pair.outbound).await;
        let (feed, body) = fed();
        let response = requests
            .send_request(call("/pkg.Svc/Chat", body))
            .await
            .unwrap();
        let mut answers = response.into_body();
        for number in 0..20 {
            let message = Bytes::from(format!("message {number}"));
            feed.send(Frame::data(message.clone())).await.unwrap();
            // The answer is here before the next message is sent: nothing on the way collects.
            let answer = answers.frame().await.unwrap().unwrap();
            assert_eq!(answer.into_data().unwrap(), message);
        }
        drop(feed);
        let last = answers.frame().await.unwrap().unwrap();
        assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn a_refused_call_is_told_in_grpc() {
    test(async {
        let (pair, _) = mesh().await;
        let mut requests = client(pair.outbound).await;
        let message = || Full::new(Bytes::from_static(b"hello")).boxed();
        let denied = requests
            .send_request(call("/admin.Svc/Method", message()))
            .await
            .unwrap();
        assert_eq!(denied.status(), StatusCode::OK);
        assert_eq!(
            (
                &denied.headers()["grpc-status"],
                &denied.headers()["grpc-message"]
            ),
            (&"7".parse().unwrap(), &"inbound/denied".parse().unwrap())
        );
        let mut unknown = call("/pkg.Svc/Method", message());
        *unknown.uri_mut() = "http://nobody.bookstore/pkg.Svc/Method".parse().unwrap();
        let unknown = requests.send_request(unknown).await.unwrap();
        assert_eq!(unknown.headers()["grpc-status"], "12");
        assert_eq!(
            unknown.headers()["x-garrison-code"],
            "outbound/unknown-service"
        );
    });
}

#[test]
fn a_stream_that_the_caller_gives_up_is_reset_at_the_application() {
    test(async {
        let (pair, resets) = mesh().await;
        let stream = TcpStream::connect(pair.outbound).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let request = Request::post("http://catalog.bookstore/pkg.Svc/Chat")
            .body(())
            .unwrap();
        let (response, mut sending) = requests.send_request(request, false).unwrap();
        sending.send_data(Bytes::from_static(b"x"), false).unwrap();
        let mut answers = response.await.unwrap().into_body();
        assert_eq!(answers.data().await.unwrap().unwrap(), "x");
        sending.send_reset(h2::Reason::CANCEL);
        while resets.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn many_streams_share_a_connection() {
    test(async {
        let (pair, _) = mesh().await;
        let requests = client(pair.outbound).await;
        let mut calls = JoinSet::new();
        for number in 0..150_u32 {
            let mut requests = requests.clone();
            calls.spawn(async move {
                let message = Bytes::from(vec![u8::try_from(number).unwrap(); 40_000]);
                let body = Full::new(message.clone()).boxed();
                requests.ready().await.unwrap();
                let response = requests
                    .send_request(call("/pkg.Svc/Echo", body))
                    .await
                    .unwrap();
                assert_eq!(
                    response.into_body().collect().await.unwrap().to_bytes(),
                    message
                );
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
        let one = r#"garrison_upstream_connections{cluster="application"} "#;
        let page = pair.callee.telemetry.render();
        let connections = page
            .lines()
            .find_map(|line| line.strip_prefix(one))
            .unwrap();
        assert!(connections.parse::<u32>().unwrap() <= 2, "{connections}");
    });
}

#[test]
fn a_reader_that_is_slow_slows_the_sender_and_fills_no_memory() {
    test(async {
        let (pair, _) = mesh().await;
        let mut requests = client(pair.outbound).await;
        let (feed, body) = fed();
        let response = requests
            .send_request(call("/pkg.Svc/Chat", body))
            .await
            .unwrap();
        let chunk = Bytes::from(vec![1; 16 * 1024]);
        let mut sent = 0_usize;
        // Nobody reads the echo: windows and buffers of the way fill up, and then sending stops.
        while timeout(
            Duration::from_millis(500),
            feed.send(Frame::data(chunk.clone())),
        )
        .await
        .is_ok()
        {
            sent += chunk.len();
            assert!(sent < 16 << 20, "{sent} bytes taken");
        }
        drop(feed);
        let echoed = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(echoed.len(), sent);
    });
}
