//! What a port needs of the thing behind it.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use bus_schema::Fault;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A way to reach a device, again and again.
pub(crate) trait Opener: Send + 'static {
    /// What it opens.
    type Line: Line;

    /// Opens it once.
    fn open(&mut self) -> impl Future<Output = io::Result<Self::Line>> + Send;

    /// An order was carried out: the next line is to begin with it.
    fn remember(&mut self, order: Order) {
        let _ = order;
    }
}

/// An open device.
pub(crate) trait Line: Send + 'static {
    /// Reads into `buf`, or writes the beginning of `out` if there is something in it: whichever
    /// can be done first. Cancel safe.
    fn transfer(
        &mut self,
        buf: &mut [u8],
        out: &[u8],
    ) -> impl Future<Output = io::Result<Moved>> + Send;

    /// Does something to the line that is no byte.
    fn order(&mut self, order: Order) -> Result<(), Fault>;
}

/// What [`Line::transfer`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// So many bytes were read. None: the device is gone.
    In(usize),
    /// So many bytes were written.
    Out(usize),
}

/// What can be done to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Sets the line DTR.
    Dtr(bool),
    /// Sets the line RTS.
    Rts(bool),
    /// Begins or ends a break.
    Break(bool),
    /// Begins a break that the port ends after this time.
    BreakFor(Duration),
    /// Changes the rate.
    Baud(u32),
}

/// [`Line::transfer`] for whatever tokio can read and write.
pub(crate) async fn move_bytes<L: AsyncRead + AsyncWrite + Unpin>(
    mut line: L,
    buf: &mut [u8],
    out: &[u8],
) -> io::Result<Moved> {
    poll_fn(|cx| {
        // Writing first: a device that never stops talking can still be told something, and one
        // that takes no more leaves the reading to go on.
        if !out.is_empty()
            && let Poll::Ready(written) = Pin::new(&mut line).poll_write(cx, out)
        {
            return Poll::Ready(written.map(Moved::Out));
        }
        let mut buf = ReadBuf::new(buf);
        let read = Pin::new(&mut line).poll_read(cx, &mut buf);
        read.map_ok(|()| Moved::In(buf.filled().len()))
    })
    .await
}
