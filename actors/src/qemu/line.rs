//! The serial line of a virtual machine: there even while the machine is off, as a real one is.

use std::{io, sync::Arc};

use bus_schema::Fault;
use tokio::{net::UnixStream, sync::watch};

use crate::console::{Line, Moved, Opener, Order};

/// The line of the machine that runs now, if one does.
pub(super) type Current = watch::Receiver<Option<Arc<UnixStream>>>;

/// Opens the line, which cannot fail.
pub(super) struct LineOpener(pub(super) Current);

/// The line, from one run of the machine to the next.
pub(super) struct MachineLine {
    next: Current,
    now: Option<Arc<UnixStream>>,
}

impl Opener for LineOpener {
    type Line = MachineLine;

    async fn open(&mut self) -> io::Result<MachineLine> {
        let mut next = self.0.clone();
        let now = next.borrow_and_update().clone();
        Ok(MachineLine { next, now })
    }
}

impl Line for MachineLine {
    async fn transfer(&mut self, buf: &mut [u8], out: &[u8]) -> io::Result<Moved> {
        loop {
            let Some(now) = self.now.clone() else {
                if !out.is_empty() {
                    return Ok(Moved::Out(out.len())); // a machine that is off hears nothing
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
                Ok(Moved::In(0)) | Err(_) => self.now = None, // the run has ended
                moved => return moved,
            }
        }
    }

    fn order(&mut self, _order: Order) -> Result<(), Fault> {
        Err(Fault::unsupported("the line of a virtual machine has bytes and nothing else"))
    }
}
