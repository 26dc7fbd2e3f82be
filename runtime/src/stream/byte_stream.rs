//! The end of a stream that code reads and writes.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bus_schema::{Failure, Fault, RawPipe, message::ResetCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Flow, PipeEnd, StreamError};

/// A duplex byte pipe between a client and a driver: `AsyncRead` and `AsyncWrite`, at both ends.
///
/// It survives a reconnect with no byte lost, repeated or reordered, or ends in an error of kind
/// [`io::ErrorKind::ConnectionReset`] that carries a [`StreamError`]. `shutdown` ends the writing
/// half and leaves the reading half open. Dropping it before both halves have ended resets it; at a
/// driver's end it ends as the method does, so that the caller learns of the fault.
pub struct ByteStream {
    end: Arc<PipeEnd>,
    side: Side,
}

/// Whose a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    /// That of a method, whose result ends the stream.
    Driver,
}

impl ByteStream {
    pub(crate) fn new(end: Arc<PipeEnd>) -> Self {
        Self { end, side: Side::Client }
    }

    /// The end of a method that is served: whoever serves it ends it with the method's result.
    pub(crate) fn served(end: Arc<PipeEnd>) -> Self {
        Self { end, side: Side::Driver }
    }

    /// Cuts the stream off at once, in both directions, with a reason for the peer.
    pub fn reset(&self, reason: impl fmt::Display) {
        self.end.reset(ResetCode::Cancelled, reason);
    }
}

fn io_error(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.end.poll_read(cx, buf).map_err(io_error)
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end.is_finished() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.end.poll_write_some(cx, bytes).map_err(io_error)
    }

    /// What was written goes at once and by itself, so this waits for credit only. (To wait for the
    /// pump would wake the writer once more for every write.)
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_until(cx, Flow::is_on_its_way).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.finish();
        self.end.poll_until(cx, Flow::is_flushed).map_err(io_error)
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").field("error", &self.end.error()).finish_non_exhaustive()
    }
}

impl Drop for ByteStream {
    fn drop(&mut self) {
        match self.side {
            Side::Client => self.end.abandon(),
            Side::Driver => self.end.leave(),
        }
    }
}

impl TryFrom<RawPipe> for ByteStream {
    type Error = Failure;

    fn try_from(raw: RawPipe) -> Result<Self, Failure> {
        raw.0.downcast().map(|stream| *stream).map_err(|_| foreign("ByteStream"))
    }
}

/// Another host than this runtime made the raw value.
pub(crate) fn foreign(what: &str) -> Failure {
    Fault::unsupported(format_args!("this host has no {what} of this runtime")).into()
}
