//! A request body that can be sent again: its first 64 KiB are kept until an answer is there.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::body::{Body, BodyError, Frame};

/// More of a body than this is not kept: its request is not tried again once that much was read.
pub const MAX_KEPT_BYTES: usize = 64 * 1024;

/// A request's body, for one attempt after the other.
#[derive(Debug)]
pub struct Replay(Rc<RefCell<Kept>>);

#[derive(Debug)]
struct Kept {
    source: Body,
    frames: Vec<Frame>,
    bytes: usize,
    /// Frames were let go, so that no further attempt can be made.
    overflowed: bool,
    ended: bool,
    /// The attempt that may read; earlier ones were given up.
    attempt: u32,
}

/// The body as one attempt reads it.
#[derive(Debug)]
pub struct Attempt {
    kept: Rc<RefCell<Kept>>,
    number: u32,
    next: usize,
}

impl Replay {
    pub fn new(source: Body) -> Self {
        let ended = source.is_end();
        let kept = Kept {
            source,
            frames: Vec::new(),
            bytes: 0,
            overflowed: false,
            ended,
            attempt: 0,
        };
        Self(Rc::new(RefCell::new(kept)))
    }

    /// Can the body be sent again, from its beginning?
    pub fn is_whole(&self) -> bool {
        !self.0.borrow().overflowed
    }

    /// The body from its beginning. The attempt before it reads nothing more.
    pub fn attempt(&self) -> Body {
        let mut kept = self.0.borrow_mut();
        if kept.ended && kept.frames.is_empty() {
            return Body::default();
        }
        kept.attempt += 1;
        Attempt {
            kept: Rc::clone(&self.0),
            number: kept.attempt,
            next: 0,
        }
        .into()
    }

    /// No further attempt will be made: what comes from now on is not kept.
    pub fn release(&self) {
        self.0.borrow_mut().overflowed = true;
    }
}

impl Attempt {
    pub fn is_end(&self) -> bool {
        let kept = self.kept.borrow();
        kept.ended && self.next >= kept.frames.len()
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let kept = &mut *self.kept.borrow_mut();
        if kept.attempt != self.number {
            return Poll::Ready(Some(Err(BodyError::Reset)));
        }
        if let Some(frame) = kept.frames.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(frame.clone())));
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(kept.source.poll_frame(cx));
        kept.ended = kept.source.is_end() || !matches!(frame, Some(Ok(_)));
        match &frame {
            Some(Ok(frame)) => kept.keep(frame),
            // What is kept is cut off: nobody may take it for the whole.
            Some(Err(_)) => kept.overflowed = true,
            None => {}
        }
        self.next = kept.frames.len();
        Poll::Ready(frame)
    }
}

impl Kept {
    fn keep(&mut self, frame: &Frame) {
        if let Frame::Data(data) = frame {
            self.bytes += data.len();
        }
        if self.overflowed || self.bytes > MAX_KEPT_BYTES {
            self.overflowed = true;
            self.frames = Vec::new();
        } else {
            self.frames.push(frame.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use std::future::poll_fn;

    use super::*;

    async fn read(body: &mut Body) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
            match frame? {
                Frame::Data(data) => all.extend_from_slice(&data),
                Frame::Trailers(_) => {}
            }
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_small_body_is_sent_again_from_its_beginning() {
        let replay = Replay::new(Bytes::from_static(b"hello").into());
        let mut first = replay.attempt();
        assert_eq!(read(&mut first).await.unwrap(), b"hello");
        assert!(replay.is_whole());
        let mut second = replay.attempt();
        assert_eq!(read(&mut second).await.unwrap(), b"hello");
        assert_eq!(read(&mut first).await, Err(BodyError::Reset));
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        let large = Bytes::from(vec![7; MAX_KEPT_BYTES + 1]);
        let replay = Replay::new(large.clone().into());
        assert!(replay.is_whole());
        assert_eq!(read(&mut replay.attempt()).await.unwrap(), large);
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn a_released_body_is_not_kept() {
        let replay = Replay::new(Bytes::from_static(b"hello").into());
        replay.release();
        assert_eq!(read(&mut replay.attempt()).await.unwrap(), b"hello");
        assert!(replay.0.borrow().frames.is_empty());
    }

    #[tokio::test]
    async fn no_body_needs_nothing_kept() {
        assert!(Replay::new(Body::default()).attempt().is_end());
    }
}
