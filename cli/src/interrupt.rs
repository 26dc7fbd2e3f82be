//! Being told to stop.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::advice::CliError;

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// From a service manager.
    Terminate,
}

/// Listens for SIGINT and SIGTERM.
#[derive(Debug)]
pub(crate) struct Interrupt {
    interrupt: Stream,
    terminate: Stream,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|source| CliError::io("listen for signals", source));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }
}
