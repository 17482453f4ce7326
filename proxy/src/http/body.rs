//! Bodies as they travel through the proxy: frames of data, then perhaps trailers, never held whole.
//!
//! This is the seam of the codecs: what is above it (routing, authorization, retries) knows heads and [`Body`] only.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use thiserror::Error;
use tokio::time::{Sleep, sleep};

use super::replay::Attempt;
use super::timer::{Activity, Watch};
use super::{h1, h2};

#[derive(Debug, Clone)]
pub enum Frame {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error("the connection ended in the middle of the body")]
    Broken,
    #[error("the body is not framed as its head declared")]
    Malformed,
    #[error("the stream was reset")]
    Reset,
    #[error("nothing came for too long")]
    Stalled,
    #[error("the deadline passed")]
    Deadline,
}

/// A request's or an answer's body. Dropping it before its end cancels what it comes from.
#[derive(Debug, Default)]
pub struct Body {
    source: Source,
    /// Data bytes that passed, for the access log.
    meter: Option<Rc<Cell<u64>>>,
    /// After this the rest is given up, with this error.
    deadline: Option<(Pin<Box<Sleep>>, BodyError)>,
    /// Told of each frame.
    activity: Option<Activity>,
}

#[derive(Debug, Default)]
enum Source {
    #[default]
    Empty,
    Full(Bytes),
    H1Request(h1::RequestBody),
    H1Response(Box<h1::ResponseBody>),
    H2Request(Box<h2::RequestBody>),
    H2Response(Box<h2::ResponseBody>),
    Attempt(Box<Attempt>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::default()
        } else {
            Source::Full(bytes).into()
        }
    }
}

impl From<Source> for Body {
    fn from(source: Source) -> Self {
        Self {
            source,
            meter: None,
            deadline: None,
            activity: None,
        }
    }
}

macro_rules! sources {
    ($($variant:ident: $kind:ty;)*) => { $(
        impl From<$kind> for Body {
            fn from(source: $kind) -> Self {
                Source::$variant(source.into()).into()
            }
        }
    )* };
}

sources! {
    H1Request: h1::RequestBody;
    H1Response: h1::ResponseBody;
    H2Request: h2::RequestBody;
    H2Response: h2::ResponseBody;
    Attempt: Attempt;
}

impl Body {
    #[must_use]
    pub fn metered(mut self, meter: Rc<Cell<u64>>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Give the rest up with `error` when `deadline` fires.
    #[must_use]
    pub fn until(mut self, deadline: Option<Pin<Box<Sleep>>>, error: BodyError) -> Self {
        self.deadline = deadline.map(|deadline| (deadline, error));
        self
    }

    /// Hold a request's body to the limits of the listener that it came in by.
    #[must_use]
    pub fn limited(self, whole_within: Option<Duration>, watch: &Watch) -> Self {
        if self.is_end() {
            return self;
        }
        let alarm = whole_within.map(|limit| Box::pin(sleep(limit)));
        self.until(alarm, BodyError::Stalled)
            .watched(watch.activity())
    }

    #[must_use]
    pub fn watched(mut self, activity: Option<Activity>) -> Self {
        self.activity = activity;
        self
    }

    /// Is it known that nothing more will come? (If false, an end may still be the next thing that comes.)
    pub fn is_end(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.is_empty(),
            Source::H1Request(body) => body.is_end(),
            Source::H1Response(body) => body.is_end(),
            Source::H2Request(body) => body.is_end(),
            Source::H2Response(body) => body.is_end(),
            Source::Attempt(body) => body.is_end(),
        }
    }

    /// The exact number of data bytes still to come, where it is known.
    pub fn remaining(&self) -> Option<u64> {
        match &self.source {
            Source::Empty => Some(0),
            Source::Full(bytes) => u64::try_from(bytes.len()).ok(),
            Source::H1Request(body) => body.remaining(),
            Source::H1Response(body) => body.remaining(),
            Source::H2Request(_) | Source::H2Response(_) | Source::Attempt(_) => {
                self.is_end().then_some(0)
            }
        }
    }

    /// The next frame; `None` after the last.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Source::H1Request(body) => body.poll_frame(cx),
            Source::H1Response(body) => body.poll_frame(cx),
            Source::H2Request(body) => body.poll_frame(cx),
            Source::H2Response(body) => body.poll_frame(cx),
            Source::Attempt(body) => body.poll_frame(cx),
        };
        let Poll::Ready(frame) = polled else {
            return self.poll_deadline(cx).map(|error| Some(Err(error)));
        };
        if let Some(activity) = &self.activity {
            activity.touch();
        }
        if let (Some(meter), Some(Ok(Frame::Data(data)))) = (&self.meter, &frame) {
            meter.set(meter.get() + data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        match &mut self.deadline {
            Some((deadline, error)) => deadline.as_mut().poll(cx).map(|()| *error),
            None => Poll::Pending,
        }
    }
}
