//! The server's end of an HTTP/2 connection.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, Version};
use tokio::time::{Instant, timeout};

use super::keepalive::KeepAlive;
use super::transfer::{Incoming, Interrupted, Outgoing, RequestBody};
use super::{
    CONNECTION_WINDOW, MAX_HEADER_LIST, MAX_RESETS, MAX_SEND_BUFFER, MAX_STREAMS, STREAM_WINDOW,
};
use crate::exchange::{End, Exchange};
use crate::http::Head;
use crate::http::body::{Body, BodyError};
use crate::http::service::{Answer, Closing, Service};
use crate::http::stream::Stream;
use crate::http::target::Target;
use crate::http::timer::{Timer, Watch};
use crate::mesh::listener::Timeouts;

/// For the client's preface and settings.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serve a connection to its end.
pub async fn serve<S: Service>(
    stream: Stream,
    service: &S,
    mut closing: Closing,
    timeouts: &Timeouts,
) {
    let handshake = limits().handshake::<_, Bytes>(stream);
    let Ok(Ok(mut connection)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else {
        return;
    };
    let mut streams = FuturesUnordered::new();
    let mut keepalive = KeepAlive::new(connection.ping_pong());
    let mut is_leaving = false;
    let mut idle = Timer::default();
    let mut active = Instant::now();
    poll_fn(|cx| {
        if !is_leaving && closing.poll(cx).is_ready() {
            is_leaving = true;
            connection.graceful_shutdown();
        }
        loop {
            while let Poll::Ready(accepted) = connection.poll_accept(cx) {
                let Some(Ok((request, answer))) = accepted else {
                    return Poll::Ready(());
                };
                streams.push(serve_stream(service, request, answer, timeouts));
            }
            // What the streams have to say is written by polling the connection once more.
            if !poll_streams(&mut streams, cx) {
                break;
            }
        }
        if !streams.is_empty() {
            active = Instant::now();
        } else if let Some(limit) = timeouts.idle {
            let is_idle = idle.poll_until(cx, active + limit).is_ready();
            if is_idle && !is_leaving {
                is_leaving = true;
                connection.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
        }
        keepalive.poll_dead(cx)
    })
    .await;
}

/// What one client can make us hold.
fn limits() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_send_buffer_size(MAX_SEND_BUFFER);
    builder
}

/// Let each stream that can go on do so; `true` if one of them ended.
fn poll_streams<F: Future<Output = ()>>(
    streams: &mut FuturesUnordered<F>,
    cx: &mut Context<'_>,
) -> bool {
    let mut any = false;
    while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
        any = true;
    }
    any
}

async fn serve_stream<S: Service>(
    service: &S,
    request: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
    timeouts: &Timeouts,
) {
    let (parts, stream) = request.into_parts();
    let authority = parts
        .uri
        .authority()
        .map(|authority| Bytes::copy_from_slice(authority.as_str().as_bytes()));
    let path = parts
        .uri
        .path_and_query()
        .map(|path| Bytes::copy_from_slice(path.as_str().as_bytes()));
    let target = Target::Pseudo {
        authority,
        path: path.unwrap_or_default(),
    };
    let head = Head {
        method: parts.method,
        target,
        version: Version::HTTP_2,
        headers: parts.headers,
    };
    let mut watch = Watch::new(timeouts.stream_idle);
    let body = if stream.is_end_stream() {
        Body::default()
    } else {
        Body::from(RequestBody(Incoming::new(stream))).limited(timeouts.request, &watch)
    };
    let answered = {
        let mut call = pin!(service.call(head, body));
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if watch.poll_idle(cx).is_ready() => Poll::Ready(None),
            Poll::Pending => answer.poll_reset(cx).map(|_| None),
        })
        .await
    };
    if let Some(given) = answered {
        send(given, answer, watch).await;
    }
}

async fn send(given: Answer, mut answer: SendResponse<Bytes>, mut watch: Watch) {
    let Answer {
        status,
        headers,
        body,
        mut exchange,
    } = given;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let is_end = body.is_end();
    let end = match answer.send_response(response, is_end) {
        Err(_) => End::Gone,
        Ok(_) if is_end => End::Complete,
        Ok(stream) => {
            let mut outgoing = Outgoing::new(stream, body.watched(watch.activity()));
            send_body(&mut outgoing, &mut exchange, &mut watch).await
        }
    };
    if let Some(exchange) = exchange {
        exchange.end(end);
    }
}

async fn send_body(
    outgoing: &mut Outgoing,
    exchange: &mut Option<Box<Exchange>>,
    watch: &mut Watch,
) -> End {
    let sent = poll_fn(|cx| {
        let sent = outgoing.poll_send(cx, |frame| {
            if let Some(exchange) = exchange {
                exchange.sent(frame);
            }
        });
        match sent {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => watch
                .poll_idle(cx)
                .map(|()| Err(Interrupted::Body(BodyError::Stalled))),
        }
    });
    match sent.await {
        Ok(()) => End::Complete,
        Err(Interrupted::Peer(_)) => End::Gone,
        Err(Interrupted::Body(error)) => {
            outgoing.reset(reset_reason(error));
            End::Broken(error)
        }
    }
}

const fn reset_reason(error: BodyError) -> Reason {
    match error {
        BodyError::Malformed => Reason::PROTOCOL_ERROR,
        BodyError::Broken | BodyError::Reset | BodyError::Stalled => Reason::INTERNAL_ERROR,
        BodyError::Deadline => Reason::CANCEL,
    }
}
