//! The server's end of an HTTP/1.1 connection: one request after the other, each with its answer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BufMut;
use http::{Method, StatusCode, Version};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::decode::{Decoded, Decoder};
use super::encode::{self, Encoder};
use super::head::{Scanner, keeps_alive, take_request};
use super::io::{HIGH_WATER, Io};
use crate::codes::Reason;
use crate::exchange::{End, Exchange};
use crate::http::body::{Body, BodyError, Frame};
use crate::http::framing::{self, Framing};
use crate::http::service::{Answer, Closing, Service};
use crate::http::stream::Stream;
use crate::http::timer::{Timer, Watch};
use crate::http::{Head, Refusal};
use crate::mesh::listener::Timeouts;

/// From the first byte of a head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client must say within this what it speaks.
const DETECT_TIMEOUT: Duration = Duration::from_secs(300);
/// When we want to close, a request that is on its way is still waited for.
const CLOSING_GRACE: Duration = Duration::from_secs(1);
/// Nothing read, or nothing written, in the middle of a message.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// What a client still sends after its answer is read and let go up to here, then the connection is closed.
const MAX_DRAINED: usize = 64 * 1024;
const LINGER: Duration = Duration::from_secs(1);
/// Requests that came ahead of their turn are kept up to here; then we stop reading (CVE-2020-8661).
const MAX_AHEAD: usize = 16 * 1024;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a plaintext client speaks.
pub enum Spoken {
    Http1(Io),
    Http2(Stream),
}

/// Find out by its first bytes; `None` if it never said.
pub async fn detect(stream: Stream) -> Option<Spoken> {
    let mut io = Io::new(stream);
    let is_h2 = timeout(DETECT_TIMEOUT, async {
        while io.input.len() < PREFACE.len() && PREFACE.starts_with(&io.input) {
            match poll_fn(|cx| io.poll_fill(cx)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        Some(io.input.starts_with(PREFACE))
    });
    Some(if is_h2.await.ok()?? {
        Spoken::Http2(io.into_stream())
    } else {
        Spoken::Http1(io)
    })
}

/// What the connection and the body of its current request share.
#[derive(Debug)]
struct Shared {
    io: Io,
    scanner: Scanner,
    /// Of the current request's body.
    decoder: Decoder,
    /// The client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
    broken: bool,
    stall: Option<Pin<Box<Sleep>>>,
}

type Conn = Rc<RefCell<Shared>>;

/// The body of a request, read from its connection as it is asked for.
#[derive(Debug)]
pub struct RequestBody(Conn);

impl RequestBody {
    pub fn is_end(&self) -> bool {
        self.0.borrow().decoder.is_done()
    }

    pub fn remaining(&self) -> Option<u64> {
        self.0.borrow().decoder.remaining()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let shared = &mut *self.0.borrow_mut();
        let polled = shared.poll_body(cx);
        shared.broken |= matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }
}

impl Shared {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if std::mem::take(&mut self.expects_continue) {
            self.io.output.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            if let Poll::Ready(Err(_)) = self.io.poll_flush(cx) {
                return Poll::Ready(Some(Err(BodyError::Broken)));
            }
        }
        loop {
            match self.decoder.decode(&mut self.io.input) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::Frame(frame)) => {
                    self.stall = None;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Decoded::More) => match self.io.poll_fill(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => {
                        return Poll::Ready(Some(Err(BodyError::Broken)));
                    }
                    Poll::Pending => {
                        ready!(self.poll_stall(cx));
                        return Poll::Ready(Some(Err(BodyError::Stalled)));
                    }
                },
            }
        }
    }

    /// Ready once nothing has moved for too long.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stall
            .get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)))
            .as_mut()
            .poll(cx)
    }

    /// No request can follow this answer: its end or the request's could not be told.
    fn ends_with(&self, encoder: Encoder, is_empty: bool) -> bool {
        encoder == Encoder::UntilClose
            || self.broken
            || self.expects_continue
            || !self.decoder.is_done() && is_empty
    }

    /// Ready once the client has gone away; whatever else it sends is kept for its turn.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.decoder.is_done() && self.io.input.len() < MAX_AHEAD {
            match ready!(self.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

enum Next {
    Head(Head),
    Refused(Refusal),
    Closed,
}

/// Serve a connection to its end.
pub async fn serve<S: Service>(io: Io, service: &S, mut closing: Closing, timeouts: &Timeouts) {
    let conn = Rc::new(RefCell::new(Shared {
        io,
        scanner: Scanner::default(),
        decoder: Decoder::Done,
        expects_continue: false,
        broken: false,
        stall: None,
    }));
    let mut timer = Timer::default();
    loop {
        let next = next_head(&conn, &mut timer, &mut closing, timeouts.idle).await;
        let kept = match next {
            Next::Closed => return,
            Next::Head(head) => turn(&conn, head, service, &mut closing, timeouts).await,
            Next::Refused(refusal) if refusal.reason == Reason::NotHttp => {
                // Logged; a peer that speaks another protocol cannot read an answer.
                drop(service.refuse(refusal));
                return;
            }
            Next::Refused(refusal) => refuse(&conn, service.refuse(refusal), &mut closing).await,
        };
        match kept {
            Kept::Open => {}
            Kept::Linger => return linger(&conn).await,
            Kept::Gone => return,
        }
    }
}

/// What becomes of the connection after an answer.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Open,
    /// Close, but let the client read the answer first.
    Linger,
    Gone,
}

async fn next_head(
    conn: &Conn,
    timer: &mut Timer,
    closing: &mut Closing,
    idle: Option<Duration>,
) -> Next {
    let mut since = Instant::now();
    let mut has_begun = false;
    let mut closing_since = None;
    poll_fn(|cx| {
        let shared = &mut *conn.borrow_mut();
        loop {
            match take_request(&mut shared.io.input, &mut shared.scanner) {
                Ok(Some(head)) => return Poll::Ready(Next::Head(head)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
            }
            if !has_begun && !shared.io.input.is_empty() {
                (has_begun, since) = (true, Instant::now());
            }
            match shared.io.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Closed),
                Poll::Pending => break,
            }
        }
        let deadline = if has_begun {
            since + HEAD_TIMEOUT
        } else if closing.poll(cx).is_ready() {
            *closing_since.get_or_insert_with(Instant::now) + CLOSING_GRACE
        } else {
            shared.io.shrink();
            let Some(idle) = idle else {
                return Poll::Pending;
            };
            since + idle
        };
        timer.poll_until(cx, deadline).map(|()| Next::Closed)
    })
    .await
}

/// How an answer must be written for this request.
#[derive(Clone, Copy)]
struct How {
    is_head: bool,
    version: Version,
    keep_alive: bool,
}

async fn turn<S: Service>(
    conn: &Conn,
    head: Head,
    service: &S,
    closing: &mut Closing,
    timeouts: &Timeouts,
) -> Kept {
    let how = How {
        is_head: head.method == Method::HEAD,
        version: head.version,
        keep_alive: keeps_alive(head.version, &head.headers),
    };
    let framing = match framing::declared(&head.headers, head.version) {
        Ok(framing) => framing.unwrap_or(Framing::Empty),
        Err(refusal) => return refuse(conn, service.refuse(refusal), closing).await,
    };
    let mut watch = Watch::new(timeouts.stream_idle);
    let has_body = framing != Framing::Empty;
    {
        let mut shared = conn.borrow_mut();
        shared.decoder = framing.into();
        shared.expects_continue = has_body && head.headers.contains_key(http::header::EXPECT);
    }
    let body = if has_body {
        Body::from(RequestBody(Rc::clone(conn))).limited(timeouts.request, &watch)
    } else {
        Body::default()
    };
    let answer = {
        // Boxed, so that an idle connection does not hold the room that a request needs.
        let mut call = Box::pin(service.call(head, body));
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if watch.poll_idle(cx).is_ready() => Poll::Ready(None),
            Poll::Pending => conn.borrow_mut().poll_gone(cx).map(|()| None),
        })
        .await
    };
    match answer {
        None => Kept::Gone,
        Some(answer) => respond(conn, answer, how, closing, &mut watch).await,
    }
}

/// Answer what could not be read, and close: what follows has no beginning that could be trusted.
async fn refuse(conn: &Conn, answer: Answer, closing: &mut Closing) -> Kept {
    let how = How {
        is_head: false,
        version: Version::HTTP_11,
        keep_alive: false,
    };
    respond(conn, answer, how, closing, &mut Watch::new(None)).await;
    Kept::Linger
}

/// Write an answer, then say whether the connection can take another request.
async fn respond(
    conn: &Conn,
    answer: Answer,
    how: How,
    closing: &mut Closing,
    watch: &mut Watch,
) -> Kept {
    let Answer {
        status,
        headers,
        mut body,
        mut exchange,
    } = answer;
    body = body.watched(watch.activity());
    let mut encoder = encoder(status, &headers, &body, how);
    let is_closing = poll_fn(|cx| Poll::Ready(closing.poll(cx).is_ready())).await;
    // Asked before the connection is borrowed: the body may be read from it.
    let is_empty = body.is_end();
    let close = {
        let mut shared = conn.borrow_mut();
        let close = !how.keep_alive || is_closing || shared.ends_with(encoder, is_empty);
        shared.stall = None;
        encode::response_head(&mut shared.io.output, status, &headers, encoder, close);
        close
    };
    let sent = poll_fn(
        |cx| match poll_send(conn, &mut body, &mut encoder, &mut exchange, cx) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => watch
                .poll_idle(cx)
                .map(|()| Err(SendFailure::Body(BodyError::Stalled))),
        },
    )
    .await;
    if let Some(exchange) = exchange {
        exchange.end(sent.as_ref().err().map_or(End::Complete, SendFailure::end));
    }
    drop(body);
    match sent {
        // Where the body broke off no end was written: that the connection ends is how the client knows.
        Err(SendFailure::Body(_) | SendFailure::Gone) => Kept::Gone,
        Ok(()) if close => Kept::Linger,
        Ok(()) => drained(conn).await,
    }
}

fn encoder(status: StatusCode, headers: &http::HeaderMap, body: &Body, how: How) -> Encoder {
    if how.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Encoder::None;
    }
    let declared = || framing::content_length(headers).ok().flatten();
    match body.remaining().or_else(declared) {
        Some(length) => Encoder::Length(length),
        None if how.version == Version::HTTP_11 => Encoder::Chunked,
        None => Encoder::UntilClose,
    }
}

enum SendFailure {
    Body(BodyError),
    Gone,
}

impl SendFailure {
    const fn end(&self) -> End {
        match self {
            Self::Body(error) => End::Broken(*error),
            Self::Gone => End::Gone,
        }
    }
}

fn poll_send(
    conn: &Conn,
    body: &mut Body,
    encoder: &mut Encoder,
    exchange: &mut Option<Box<Exchange>>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SendFailure>> {
    loop {
        let is_waiting = encode_body(conn, body, encoder, exchange, cx)?;
        let ended = *encoder == Encoder::None;
        let shared = &mut *conn.borrow_mut();
        match shared.io.poll_flush(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Err(SendFailure::Gone)),
            Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) if is_waiting => {
                shared.stall = None;
                // Whether the client still listens shows in what it sends.
                return shared.poll_gone(cx).map(|()| Err(SendFailure::Gone));
            }
            Poll::Ready(Ok(())) => {}
            Poll::Pending => {
                ready!(shared.poll_stall(cx));
                return Poll::Ready(Err(SendFailure::Gone));
            }
        }
    }
}

/// Write what the body gives, while there is room; `true` if it has nothing more to give for now.
fn encode_body(
    conn: &Conn,
    body: &mut Body,
    encoder: &mut Encoder,
    exchange: &mut Option<Box<Exchange>>,
    cx: &mut Context<'_>,
) -> Result<bool, SendFailure> {
    while *encoder != Encoder::None && conn.borrow().io.output.len() < HIGH_WATER {
        // The body may be read from this very connection, so nothing of it is borrowed here.
        let frame = if body.is_end() {
            Poll::Ready(None)
        } else {
            body.poll_frame(cx)
        };
        let output = &mut conn.borrow_mut().io.output;
        let written = match &frame {
            Poll::Pending => return Ok(true),
            Poll::Ready(None) => encoder.end(output),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(exchange) = exchange {
                    exchange.sent(frame);
                }
                encoder.frame(output, frame)
            }
            Poll::Ready(Some(Err(error))) => return Err(SendFailure::Body(*error)),
        };
        written.map_err(|_| SendFailure::Body(BodyError::Malformed))?;
    }
    Ok(false)
}

/// Read and let go what is left of the request's body, so that the next head is not taken from it (CVE-2025-4366).
async fn drained(conn: &Conn) -> Kept {
    if conn.borrow().decoder.is_done() {
        return Kept::Open;
    }
    let mut rest = RequestBody(Rc::clone(conn));
    let drain = async {
        let mut left = MAX_DRAINED;
        loop {
            match poll_fn(|cx| rest.poll_frame(cx)).await {
                None => return Kept::Open,
                Some(Err(_)) => return Kept::Gone,
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Ok(Frame::Data(data))) => match left.checked_sub(data.len()) {
                    Some(rest) => left = rest,
                    None => return Kept::Linger,
                },
            }
        }
    };
    timeout(LINGER, drain).await.unwrap_or(Kept::Linger)
}

/// Close in a way that lets the client read what was written: a close with unread input would reset the connection
/// (RFC 9112 §9.6).
async fn linger(conn: &Conn) {
    let deadline = sleep_until(Instant::now() + LINGER);
    let discard = poll_fn(|cx| {
        let shared = &mut *conn.borrow_mut();
        if ready!(shared.io.poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        for _ in 0..MAX_DRAINED / 1024 {
            shared.io.input.clear();
            match ready!(shared.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        Poll::Ready(())
    });
    tokio::select! { () = deadline => {}, () = discard => {} }
}
