//! The application behind the sidecars: as little as can answer, so that what is measured is in front of it.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use clap::Args;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Fault;
use crate::answers::{pattern, size_of};

const HEAD_END: &[u8] = b"\r\n\r\n";
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_BODY_BYTES: usize = 16 << 20;

#[derive(Args)]
pub struct Options {
    /// Where HTTP/1.1 is served.
    #[arg(long)]
    http1: SocketAddr,
    /// Where HTTP/2 is, in the clear.
    #[arg(long)]
    http2: SocketAddr,
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let http1 = TcpListener::bind(options.http1).await?;
    let http2 = TcpListener::bind(options.http2).await?;
    println!("{}", json!({ "listening": true }));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = http1.accept() => { connections.spawn_local(serve_http1(stream)); }
            Ok((stream, _)) = http2.accept() => { connections.spawn_local(serve_http2(stream)); }
            Some(_) = connections.join_next() => {} // a peer may leave as it likes
        }
    }
}

/// Answers requests without a body, one after another.
async fn serve_http1(mut stream: TcpStream) -> Result<(), Fault> {
    stream.set_nodelay(true)?;
    let mut answers: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    let mut received = BytesMut::with_capacity(4096);
    while stream.read_buf(&mut received).await? > 0 {
        while let Some(end) = end_of_head(&received) {
            let head = received.split_to(end);
            let path = head
                .as_ref()
                .split(|byte: &u8| *byte == b' ')
                .nth(1)
                .unwrap_or_default();
            let answer = answers
                .entry(path.to_vec())
                .or_insert_with(|| http1_answer(path));
            stream.write_all(answer).await?;
        }
        if received.len() > MAX_HEAD_BYTES {
            break;
        }
    }
    Ok(())
}

fn end_of_head(received: &[u8]) -> Option<usize> {
    memchr::memmem::find(received, HEAD_END).map(|at| at + HEAD_END.len())
}

fn http1_answer(path: &[u8]) -> Vec<u8> {
    let body = wanted(std::str::from_utf8(path).unwrap_or_default());
    let mut answer = match &body {
        Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()),
        None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
    }
    .into_bytes();
    answer.extend(body.unwrap_or_default());
    answer
}

fn wanted(path: &str) -> Option<Vec<u8>> {
    size_of(path)
        .filter(|size| *size <= MAX_BODY_BYTES)
        .map(pattern)
}

async fn serve_http2(stream: TcpStream) -> Result<(), Fault> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::handshake(stream).await?;
    let mut streams = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        streams.spawn_local(answer_http2(request, respond));
        while streams.try_join_next().is_some() {}
    }
    Ok(())
}

async fn answer_http2(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), Fault> {
    let (head, mut body) = request.into_parts();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
        if message.len() > MAX_BODY_BYTES {
            return Err("too long".into());
        }
    }
    if head.headers.get("content-type") == Some(&HeaderValue::from_static("application/grpc")) {
        let response = Response::builder().header("content-type", "application/grpc");
        let mut sent = respond.send_response(response.body(())?, false)?;
        sent.send_data(message.freeze(), false)?;
        let status = [("grpc-status".parse()?, HeaderValue::from_static("0"))];
        sent.send_trailers(status.into_iter().collect::<HeaderMap>())?;
        return Ok(());
    }
    match wanted(head.uri.path()) {
        Some(body) => {
            let response = Response::builder().header("content-length", body.len());
            let mut sent = respond.send_response(response.body(())?, false)?;
            sent.send_data(body.into(), true)?;
        }
        None => {
            respond.send_response(Response::builder().status(404).body(())?, true)?;
        }
    }
    Ok(())
}
