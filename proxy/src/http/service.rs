//! What a codec asks of the proxy for each request, and is given to send back.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};

use super::body::Body;
use super::{Head, Refusal};
use crate::exchange::Exchange;

/// One end of a call: what is done with each request of a connection.
pub trait Service {
    /// Answer a request. The future is dropped when the caller goes away.
    fn call(&self, head: Head, body: Body) -> impl Future<Output = Answer>;

    /// Answer what could not even be read as a request.
    fn refuse(&self, refusal: Refusal) -> Answer;
}

/// An answer on its way, and the exchange that ends with it.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    pub exchange: Option<Box<Exchange>>,
}

/// Resolves when a connection should take no more requests: the proxy drains, or the peer's SVID expires.
pub struct Closing {
    signal: Pin<Box<dyn Future<Output = ()>>>,
    is_closing: bool,
}

impl Closing {
    pub fn when(signal: impl Future<Output = ()> + 'static) -> Self {
        Self {
            signal: Box::pin(signal),
            is_closing: false,
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_closing {
            self.is_closing = self.signal.as_mut().poll(cx).is_ready();
        }
        if self.is_closing {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
