//! Closed loop of unary gRPC calls over HTTP/2, in the clear or over TLS.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use clap::Args;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use tokio::task::JoinSet;

use crate::Fault;
use crate::answers::{Tally, pattern};
use crate::connect::{self, Aim, Tls};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const FRAME_HEAD: usize = 5; // gRPC over HTTP/2: a flag and a length before each message

#[derive(Args, Clone)]
pub struct Options {
    #[command(flatten)]
    aim: Aim,
    /// A file with the message to send; the answer must have one. Without it the message is a pattern that must be echoed.
    #[arg(long)]
    message: Option<PathBuf>,
    /// A file with a bearer token.
    #[arg(long)]
    token: Option<PathBuf>,
    /// Calls at once on each connection.
    #[arg(long)]
    streams: usize,
    #[arg(long)]
    seconds: f64,
    /// Bytes of the pattern.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[command(flatten)]
    tls: Tls,
}

struct Call {
    request: Request<()>,
    message: Bytes,
    is_echoed: bool,
}

pub async fn run(options: Options) -> Result<(), Fault> {
    let call = Rc::new(call(&options)?);
    let dialer = options.tls.connector(b"h2")?;
    let mut senders = Vec::new();
    for _ in 0..options.aim.connections {
        senders.push(connect::http2(options.aim.target, dialer.as_ref()).await?);
    }
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    for sender in senders {
        for _ in 0..options.streams {
            let (call, sender) = (Rc::clone(&call), sender.clone());
            callers.spawn_local(async move { caller(&call, sender, until).await });
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = callers.join_next().await {
        tally.add(done?);
    }
    tally.print(started, &());
    Ok(())
}

fn call(options: &Options) -> Result<Call, Fault> {
    let message = match &options.message {
        Some(file) => fs::read(file)?,
        None => pattern(options.size),
    };
    let scheme = if options.tls.identity.is_some() {
        "https"
    } else {
        "http"
    };
    let mut request = Request::post(format!(
        "{scheme}://{}{}",
        options.aim.host, options.aim.path
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers");
    if let Some(file) = &options.token {
        let token = fs::read_to_string(file)?;
        request = request.header("authorization", format!("Bearer {}", token.trim()));
    }
    Ok(Call {
        request: request.body(())?,
        message: framed(&message)?,
        is_echoed: options.message.is_none(),
    })
}

pub fn framed(message: &[u8]) -> Result<Bytes, Fault> {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len())?);
    frame.put_slice(message);
    Ok(frame.freeze())
}

async fn caller(call: &Call, sender: SendRequest<Bytes>, until: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let asked = Instant::now();
        match tokio::time::timeout(ANSWER_WITHIN, unary(call, sender.clone())).await {
            Ok(Ok(())) => tally.right(asked.elapsed()),
            Ok(Err(why)) => {
                tally.wrong(why.to_string());
                return tally;
            }
            Err(_) => {
                tally.wrong("no answer in time".into());
                return tally;
            }
        }
    }
    tally
}

async fn unary(call: &Call, sender: SendRequest<Bytes>) -> Result<(), Fault> {
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(call.request.clone(), false)?;
    body.send_data(call.message.clone(), true)?;
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status()).into());
    }
    let head = response.headers().clone();
    let mut received = response.into_body();
    let answer = whole(&mut received).await?;
    let trailers = received.trailers().await?.unwrap_or(head);
    is_ok(&trailers)?;
    if call.is_echoed && answer != call.message {
        return Err("another message".into());
    }
    if answer.len() <= FRAME_HEAD {
        return Err("no message".into());
    }
    Ok(())
}

async fn whole(body: &mut RecvStream) -> Result<BytesMut, Fault> {
    let mut received = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    Ok(received)
}

fn is_ok(trailers: &HeaderMap) -> Result<(), Fault> {
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        status => Err(format!("grpc-status {status:?} {:?}", trailers.get("grpc-message")).into()),
    }
}
