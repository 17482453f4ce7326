//! Bodies on HTTP/2 streams, in both directions, under flow control.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::{Sleep, sleep};

use crate::http::body::{Body, BodyError, Frame};
use crate::http::headers::clean_trailers;

/// A peer that gives no window for so long does not read any more (CVE-2019-9517).
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The body of a request that came in on a stream.
#[derive(Debug)]
pub struct RequestBody(pub Incoming);

impl RequestBody {
    pub fn is_end(&self) -> bool {
        self.0.is_end()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.poll_frame(cx)
    }
}

/// What comes in on a stream.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    data_ended: bool,
}

impl Incoming {
    pub fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            data_ended: false,
        }
    }

    pub fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The next is asked for only when this one has gone out, so the window follows the reader.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(
                        released
                            .map(|()| Frame::Data(data))
                            .map_err(|error| broken(&error)),
                    ));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error)))),
                None => self.data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(mut trailers)) => {
                clean_trailers(&mut trailers);
                Some(Ok(Frame::Trailers(trailers)))
            }
            Ok(None) => None,
            Err(error) => Some(Err(broken(&error))),
        })
    }
}

fn broken(error: &h2::Error) -> BodyError {
    if error.is_io() || error.is_go_away() {
        BodyError::Broken
    } else if error.reason() == Some(Reason::PROTOCOL_ERROR) {
        BodyError::Malformed
    } else {
        BodyError::Reset
    }
}

/// A body on its way out on a stream.
#[derive(Debug)]
pub struct Outgoing {
    stream: SendStream<Bytes>,
    body: Body,
    /// Of a frame, what the window has not yet let go.
    pending: Bytes,
    stall: Option<Pin<Box<Sleep>>>,
}

/// Why a body did not go out whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// What it comes from failed.
    Body(BodyError),
    /// The peer does not want the rest: `NO_ERROR` says that its answer stands all the same (RFC 9113 §8.1).
    Peer(Reason),
}

impl Outgoing {
    pub fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self {
            stream,
            body,
            pending: Bytes::new(),
            stall: None,
        }
    }

    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Send all that can be sent now; `on_frame` sees each frame as it is taken.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut on_frame: impl FnMut(&Frame),
    ) -> Poll<Result<(), Interrupted>> {
        loop {
            if !self.pending.is_empty() {
                let is_last = ready!(self.poll_data(cx))?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let frame = if self.body.is_end() {
                Poll::Ready(None)
            } else {
                self.body.poll_frame(cx)
            };
            let Poll::Ready(frame) = frame else {
                return self.stream.poll_reset(cx).map(|reset| Err(peer(reset)));
            };
            let frame = frame.transpose().map_err(Interrupted::Body)?;
            frame.iter().for_each(&mut on_frame);
            match frame {
                Some(Frame::Data(data)) => {
                    self.stream.reserve_capacity(data.len());
                    self.pending = data;
                }
                Some(Frame::Trailers(trailers)) => {
                    return Poll::Ready(
                        self.stream
                            .send_trailers(trailers)
                            .map_err(|error| lost(&error)),
                    );
                }
                None => {
                    return Poll::Ready(
                        self.stream
                            .send_data(Bytes::new(), true)
                            .map_err(|error| lost(&error)),
                    );
                }
            }
        }
    }

    /// Send what the window allows of the pending data; `true` if that was the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Interrupted>> {
        let mut capacity = self.stream.capacity();
        while capacity == 0 {
            capacity = match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(capacity))) => capacity,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(lost(&error))),
                Poll::Ready(None) => return Poll::Ready(Err(Interrupted::Peer(Reason::CANCEL))),
                Poll::Pending => {
                    let stall = self
                        .stall
                        .get_or_insert_with(|| Box::pin(sleep(STALL_TIMEOUT)));
                    ready!(stall.as_mut().poll(cx));
                    return Poll::Ready(Err(Interrupted::Peer(Reason::CANCEL)));
                }
            };
        }
        self.stall = None;
        let data = self.pending.split_to(capacity.min(self.pending.len()));
        let is_last = self.pending.is_empty() && self.body.is_end();
        self.stream
            .send_data(data, is_last)
            .map_err(|error| lost(&error))?;
        Poll::Ready(Ok(is_last))
    }
}

fn peer(reset: Result<Reason, h2::Error>) -> Interrupted {
    match reset {
        Ok(reason) => Interrupted::Peer(reason),
        Err(error) => lost(&error),
    }
}

fn lost(error: &h2::Error) -> Interrupted {
    Interrupted::Peer(error.reason().unwrap_or(Reason::CANCEL))
}
