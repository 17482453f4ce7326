//! A stream with its buffers.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::http::stream::Stream;

/// What a read asks for: most heads, and many answers, fit.
const READ_BYTES: usize = 8 * 1024;
/// Output beyond this is written before more is taken.
pub const HIGH_WATER: usize = 64 * 1024;

#[derive(Debug)]
pub struct Io {
    stream: Stream,
    pub input: BytesMut,
    pub output: BytesMut,
}

impl Io {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    /// Read once; `0` is the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(READ_BYTES);
        }
        pin!(self.stream.read_buf(&mut self.input)).poll(cx)
    }

    /// Write everything that is in the output, and through the TLS layer.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Flush, then say that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Give back the memory of an idle connection's buffers.
    pub fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
    }

    /// The stream, with what was read ahead put back.
    pub fn into_stream(mut self) -> Stream {
        self.stream.unread(Bytes::from(self.input));
        self.stream
    }
}
