//! The line of a virtual board: there even while the board is off, as a real one is.

use std::{io, sync::Arc};

use bus_schema::Fault;
use tokio::{net::UnixStream, sync::watch};

use super::{Line, Moved, Opener, Order};

/// The line of the board that is on now, if it is.
pub(crate) type Current<E> = watch::Receiver<Option<Arc<E>>>;

/// One run's end of the line.
pub(crate) trait LineEnd: Send + Sync + 'static {
    /// Until there may be something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Until there may be room to write.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Reads what is there.
    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes what there is room for.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Everything that the board said in this run was read.
    fn ended(&self) {}
}

impl LineEnd for UnixStream {
    async fn readable(&self) -> io::Result<()> {
        self.readable().await
    }

    async fn writable(&self) -> io::Result<()> {
        self.writable().await
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_read(buf)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write(bytes)
    }
}

/// Opens the line, which cannot fail.
pub(crate) struct CurrentOpener<E>(pub(crate) Current<E>);

/// The line, from one run of the board to the next.
pub(crate) struct CurrentLine<E> {
    next: Current<E>,
    now: Option<Arc<E>>,
}

impl<E: LineEnd> Opener for CurrentOpener<E> {
    type Line = CurrentLine<E>;

    async fn open(&mut self) -> io::Result<CurrentLine<E>> {
        let mut next = self.0.clone();
        let now = next.borrow_and_update().clone();
        Ok(CurrentLine { next, now })
    }
}

impl<E: LineEnd> Line for CurrentLine<E> {
    async fn transfer(&mut self, buf: &mut [u8], out: &[u8]) -> io::Result<Moved> {
        loop {
            let Some(now) = self.now.clone() else {
                if !out.is_empty() {
                    return Ok(Moved::Out(out.len())); // a board that is off hears nothing
                }
                if self.next.changed().await.is_err() {
                    return Ok(Moved::In(0));
                }
                self.now = self.next.borrow_and_update().clone();
                continue;
            };
            let moved = tokio::select! {
                biased;
                ready = now.writable(), if !out.is_empty() => {
                    ready.and_then(|()| now.try_write(out)).map(Moved::Out)
                }
                ready = now.readable() => ready.and_then(|()| now.try_read(buf)).map(Moved::In),
            };
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(Moved::In(0)) | Err(_) => {
                    now.ended();
                    self.now = None; // the run has ended
                }
                moved => return moved,
            }
        }
    }

    fn order(&mut self, _order: Order) -> Result<(), Fault> {
        Err(Fault::unsupported("the line of a virtual board has bytes and nothing else"))
    }
}
