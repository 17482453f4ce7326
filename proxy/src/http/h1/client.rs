//! The client's end of an HTTP/1.1 connection: one request, its answer, and back to where connections are kept.

use std::fmt::Debug;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, StatusCode};
use thiserror::Error;
use tokio::time::Instant;

use super::decode::{Decoded, Decoder};
use super::encode::{self, Encoder, RequestLine};
use super::head::{BadResponse, ResponseHead, Scanner, keeps_alive, take_response};
use super::io::{HIGH_WATER, Io};
use crate::http::body::{Body, BodyError, Frame};
use crate::http::framing;
use crate::http::headers::remove_hop_by_hop;
use crate::http::stream::Stream;
use crate::http::upstream::{Outgoing, Received};
use crate::tls::Standing;

/// Interim answers before the final one.
const MAX_INTERIM: u32 = 8;

/// Where connections are kept between requests.
pub trait Home: Debug {
    /// The connection can take another request.
    fn give_back(&self, connection: Connection);
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    /// While it is in use.
    home: Option<Rc<dyn Home>>,
    /// What it occupies as long as it is open.
    _permit: Box<dyn Debug>,
    /// How long the server said it would keep an idle connection (`Keep-Alive: timeout=`).
    pub keeps_idle: Option<Duration>,
    pub idle_since: Instant,
    /// Of the server, inside the mesh.
    pub standing: Option<Rc<Standing>>,
    /// Has it carried a request already?
    pub is_used: bool,
}

impl Connection {
    pub fn new(stream: Stream, permit: Box<dyn Debug>, standing: Option<Rc<Standing>>) -> Self {
        Self {
            io: Io::new(stream),
            home: None,
            _permit: permit,
            keeps_idle: None,
            idle_since: Instant::now(),
            standing,
            is_used: false,
        }
    }

    /// Did the server leave an idle connection alone? Any byte, and its end, says no.
    pub fn is_quiet(&mut self) -> bool {
        self.io
            .poll_fill(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Use it for a request; it comes back to `home` if it can take another.
    #[must_use]
    pub fn leave(mut self, home: Rc<dyn Home>) -> Self {
        self.home = Some(home);
        self
    }

    /// Send a request. The answer's body carries on what is left of the request's.
    pub async fn send(self, request: Outgoing<'_>, body: Body) -> Result<Received, SendError> {
        let mut call = Call::new(self, &request, body);
        let head = poll_fn(|cx| call.poll_head(cx)).await?;
        Ok(call.received(head)?)
    }
}

/// How much of a request may have reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Nothing,
    Something,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    #[error("the connection ended before an answer")]
    Closed(Sent),
    #[error(transparent)]
    Response(#[from] BadResponse),
    /// It is the caller's body that failed.
    #[error("the request broke off")]
    Request(#[source] BodyError),
}

/// A request and its answer, on their connection.
#[derive(Debug)]
struct Call {
    /// `None` once it was given back.
    connection: Option<Connection>,
    is_head: bool,
    request: Body,
    encoder: Encoder,
    upload: Upload,
    wrote: bool,
    scanner: Scanner,
    interim: u32,
    decoder: Decoder,
    is_reusable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Going,
    /// All is in the output.
    Flushing,
    Done,
    /// The server does not read on; its answer may come all the same.
    Refused,
}

impl Call {
    fn new(mut connection: Connection, request: &Outgoing<'_>, body: Body) -> Self {
        let declared = framing::content_length(request.headers).ok().flatten();
        let encoder = match declared {
            Some(length) => Encoder::Length(length),
            None if !body.is_end() => Encoder::Chunked,
            // A server may wait for the body of a method that has one, unless it is told that there is none.
            None if matches!(*request.method, Method::POST | Method::PUT | Method::PATCH) => {
                Encoder::Length(0)
            }
            None => Encoder::None,
        };
        let (target, authority) = (request.path_and_query, request.authority);
        let line = RequestLine {
            method: request.method,
            target,
            authority,
        };
        encode::request_head(&mut connection.io.output, &line, request.headers, encoder);
        Self {
            connection: Some(connection),
            is_head: request.method == Method::HEAD,
            request: body,
            encoder,
            upload: Upload::Going,
            wrote: false,
            scanner: Scanner::default(),
            interim: 0,
            decoder: Decoder::Done,
            is_reusable: false,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        self.drive_upload(cx).map_err(SendError::Request)?;
        loop {
            let sent = if self.wrote {
                Sent::Something
            } else {
                Sent::Nothing
            };
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(Err(SendError::Closed(sent)));
            };
            if let Some(head) = take_response(&mut connection.io.input, &mut self.scanner)? {
                if !head.status.is_informational() {
                    return Poll::Ready(Ok(head));
                }
                self.interim += 1;
                if self.interim > MAX_INTERIM || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Err(BadResponse("unasked interim answer").into()));
                }
                continue;
            }
            match ready!(connection.io.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(SendError::Closed(sent))),
            }
        }
    }

    /// Send of the request what can be sent now.
    fn drive_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let output_of = &mut connection.io;
        while matches!(self.upload, Upload::Going | Upload::Flushing) {
            let mut is_waiting = false;
            while self.upload == Upload::Going && !is_waiting && output_of.output.len() < HIGH_WATER
            {
                let frame = if self.request.is_end() {
                    Poll::Ready(None)
                } else {
                    self.request.poll_frame(cx)
                };
                let written = match frame {
                    Poll::Pending => {
                        is_waiting = true;
                        Ok(())
                    }
                    Poll::Ready(None) => {
                        self.upload = Upload::Flushing;
                        self.encoder.end(&mut output_of.output)
                    }
                    Poll::Ready(Some(frame)) => self.encoder.frame(&mut output_of.output, &frame?),
                };
                written.map_err(|_| BodyError::Malformed)?;
            }
            let before = output_of.output.len();
            let flushed = output_of.poll_flush(cx);
            self.wrote |= output_of.output.len() < before;
            match flushed {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(_)) => self.upload = Upload::Refused,
                Poll::Ready(Ok(())) if self.upload == Upload::Flushing => {
                    self.upload = Upload::Done;
                }
                Poll::Ready(Ok(())) if is_waiting => return Ok(()),
                Poll::Ready(Ok(())) => {}
            }
        }
        Ok(())
    }

    fn received(mut self, head: ResponseHead) -> Result<Received, BadResponse> {
        let ResponseHead {
            status,
            version,
            mut headers,
        } = head;
        let has_no_body =
            self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let framing =
            framing::declared(&headers, version).map_err(|refusal| BadResponse(refusal.detail))?;
        self.decoder = match framing {
            _ if has_no_body => Decoder::Done,
            Some(framing) => framing.into(),
            None => Decoder::UntilClose,
        };
        self.is_reusable =
            keeps_alive(version, &headers) && !matches!(self.decoder, Decoder::UntilClose);
        if let Some(connection) = &mut self.connection {
            connection.keeps_idle = keep_alive_timeout(&headers).or(connection.keeps_idle);
        }
        remove_hop_by_hop(&mut headers).map_err(|_| BadResponse("malformed Connection"))?;
        self.settle();
        let body = if self.decoder.is_done() && self.connection.is_none() {
            Body::default()
        } else {
            ResponseBody(self).into()
        };
        Ok(Received {
            status,
            headers,
            body,
        })
    }

    /// Once all went out and all came in, the connection is free for the next request.
    fn settle(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // Bytes beyond the answer would be read as the next one's.
        if self.is_reusable && self.upload == Upload::Done && connection.io.input.is_empty() {
            connection.is_used = true;
            connection.idle_since = Instant::now();
            connection.io.shrink();
            if let Some(home) = connection.home.take() {
                home.give_back(connection);
            }
        }
    }

    /// What is left on the connection belongs to no request any more.
    fn give_up(&mut self, error: BodyError) -> Poll<Option<Result<Frame, BodyError>>> {
        self.connection = None;
        Poll::Ready(Some(Err(error)))
    }
}

/// `Keep-Alive: timeout=5, max=100`.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = value
        .split(',')
        .find_map(|part| part.trim().strip_prefix("timeout="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// An answer's body, read from its connection as it is asked for.
#[derive(Debug)]
pub struct ResponseBody(Call);

impl ResponseBody {
    pub fn is_end(&self) -> bool {
        self.0.decoder.is_done()
    }

    pub fn remaining(&self) -> Option<u64> {
        self.0.decoder.remaining()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let call = &mut self.0;
        if let Err(error) = call.drive_upload(cx) {
            return call.give_up(error);
        }
        loop {
            let Some(connection) = &mut call.connection else {
                return Poll::Ready(if call.decoder.is_done() {
                    None
                } else {
                    Some(Err(BodyError::Broken))
                });
            };
            match call.decoder.decode(&mut connection.io.input) {
                Err(error) => return call.give_up(error),
                Ok(Decoded::Frame(frame)) => {
                    call.settle();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Decoded::End) => {
                    call.settle();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {
                    let read = ready!(connection.io.poll_fill(cx));
                    if !matches!(read, Ok(1..)) {
                        // A reset is no end: half an answer must not pass for a whole one.
                        let ended = match read {
                            Ok(_) => call.decoder.end_of_stream(),
                            Err(_) => Err(BodyError::Broken),
                        };
                        call.connection = None;
                        return Poll::Ready(ended.err().map(Err));
                    }
                }
            }
        }
    }
}
