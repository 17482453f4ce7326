//! The client's end of an HTTP/2 connection: shared by all requests of a worker to an endpoint.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, SendRequest};
use http::{Request, Uri, Version};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::keepalive::KeepAlive;
use super::transfer::{Incoming, Interrupted, Outgoing};
use super::{CONNECTION_WINDOW, MAX_HEADER_LIST, MAX_RESETS, MAX_SEND_BUFFER, STREAM_WINDOW};
use crate::http::body::{Body, BodyError, Frame};
use crate::http::headers::remove_hop_by_hop;
use crate::http::stream::Stream;
use crate::http::upstream::{self, Received};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a server, as its users see it; clones share it.
#[derive(Debug, Clone)]
pub struct Link {
    requests: SendRequest<Bytes>,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    streams: Cell<usize>,
    is_over: Cell<bool>,
    /// Told of each stream that ends.
    released: Rc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The server provably did not process the request (RFC 9113 §8.7): refused, after its last stream, or never sent.
    #[error("the request was not processed")]
    Unprocessed,
    #[error("the stream ended before an answer")]
    Reset,
    #[error("malformed answer")]
    Malformed,
    /// It is the caller's body that failed.
    #[error("the request broke off")]
    Request(#[source] BodyError),
}

/// Begin a connection. The future that comes with it drives it, and ends with it; `released` is told of each stream
/// that ends.
pub async fn connect(
    stream: Stream,
    released: Rc<Notify>,
) -> Result<(Link, impl Future<Output = ()>), h2::Error> {
    let handshake = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .enable_push(false)
        .handshake::<_, Bytes>(stream);
    let shaken = timeout(HANDSHAKE_TIMEOUT, handshake).await;
    let (requests, mut connection) = shaken.unwrap_or(Err(Reason::SETTINGS_TIMEOUT.into()))?;
    let state = Rc::new(State {
        streams: Cell::new(0),
        is_over: Cell::new(false),
        released,
    });
    let link = Link {
        requests,
        state: Rc::clone(&state),
    };
    let mut keepalive = KeepAlive::new(connection.ping_pong());
    let driver = async move {
        poll_fn(|cx| match std::pin::Pin::new(&mut connection).poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => keepalive.poll_dead(cx),
        })
        .await;
        state.is_over.set(true);
    };
    Ok((link, driver))
}

impl Link {
    /// Can it take one more request now?
    pub fn has_room(&self) -> bool {
        !self.is_over() && self.state.streams.get() < self.requests.current_max_send_streams()
    }

    pub fn is_over(&self) -> bool {
        self.state.is_over.get()
    }

    /// Take no more requests; those in flight go on.
    pub fn retire(&self) {
        self.state.is_over.set(true);
    }

    pub fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    pub async fn send(
        &self,
        request: upstream::Outgoing<'_>,
        body: Body,
    ) -> Result<Received, SendError> {
        let head = head(request).ok_or(SendError::Malformed)?;
        let seat = Seat::take(&self.state);
        let mut requests = self.requests.clone();
        if poll_fn(|cx| requests.poll_ready(cx)).await.is_err() {
            self.retire();
            return Err(SendError::Unprocessed);
        }
        let is_end = body.is_end();
        let Ok((mut answer, stream)) = requests.send_request(head, is_end) else {
            self.retire();
            return Err(SendError::Unprocessed);
        };
        let mut upload = (!is_end).then(|| Box::new(Outgoing::new(stream, body)));
        let response = poll_fn(|cx| {
            poll_upload(&mut upload, cx).map_err(SendError::Request)?;
            std::pin::Pin::new(&mut answer)
                .poll(cx)
                .map_err(|error| self.classify(&error))
        })
        .await?;
        let (parts, stream) = response.into_parts();
        let mut headers = parts.headers;
        remove_hop_by_hop(&mut headers).map_err(|_| SendError::Malformed)?;
        let body = if stream.is_end_stream() && upload.is_none() {
            Body::default()
        } else {
            ResponseBody {
                stream: Incoming::new(stream),
                upload,
                _seat: seat,
            }
            .into()
        };
        Ok(Received {
            status: parts.status,
            headers,
            body,
        })
    }

    fn classify(&self, error: &h2::Error) -> SendError {
        let is_refused = error.reason() == Some(Reason::REFUSED_STREAM);
        // h2 ends with the server's GOAWAY only those streams that are after its last.
        if error.is_remote() && (error.is_go_away() || is_refused) {
            if error.is_go_away() {
                self.retire();
            }
            SendError::Unprocessed
        } else if error.is_library() {
            SendError::Malformed
        } else {
            SendError::Reset
        }
    }
}

fn head(request: upstream::Outgoing<'_>) -> Option<Request<()>> {
    let uri = Uri::builder()
        .scheme(if request.is_https { "https" } else { "http" })
        .authority(http::uri::Authority::from_maybe_shared(request.authority.clone()).ok()?)
        .path_and_query(
            http::uri::PathAndQuery::from_maybe_shared(request.path_and_query.clone()).ok()?,
        )
        .build()
        .ok()?;
    let mut head = Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = request.headers.clone();
    Some(head)
}

/// A request in flight is counted until its answer was read or let go.
#[derive(Debug)]
struct Seat(Rc<State>);

impl Seat {
    fn take(state: &Rc<State>) -> Self {
        state.streams.set(state.streams.get() + 1);
        Self(Rc::clone(state))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.released.notify_one();
    }
}

/// Send on of the request's body what can be sent; a server that does not want the rest may still answer.
fn poll_upload(upload: &mut Option<Box<Outgoing>>, cx: &mut Context<'_>) -> Result<(), BodyError> {
    let Some(outgoing) = upload else {
        return Ok(());
    };
    match outgoing.poll_send(cx, |_| {}) {
        Poll::Pending => Ok(()),
        Poll::Ready(Ok(()) | Err(Interrupted::Peer(_))) => {
            *upload = None;
            Ok(())
        }
        Poll::Ready(Err(Interrupted::Body(error))) => {
            outgoing.reset(Reason::CANCEL);
            *upload = None;
            Err(error)
        }
    }
}

/// An answer's body, and what is still to be sent of the request's.
#[derive(Debug)]
pub struct ResponseBody {
    stream: Incoming,
    upload: Option<Box<Outgoing>>,
    _seat: Seat,
}

impl ResponseBody {
    pub fn is_end(&self) -> bool {
        self.stream.is_end()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Err(error) = poll_upload(&mut self.upload, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.stream.poll_frame(cx)
    }
}
