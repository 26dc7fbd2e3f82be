//! The port of a server: where it listens, and what serves it while it does.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus_schema::{Fault, FaultKind};
use tokio::task::JoinSet;

/// A port that is served, or could be.
#[derive(Debug)]
pub(super) struct Port {
    wanted: SocketAddr,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    at: SocketAddr,
    /// Ends with this, and every connection with it.
    serving: JoinSet<()>,
}

impl Port {
    pub(super) fn new(wanted: SocketAddr) -> Self {
        Self { wanted, open: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address to listen on.
    pub(super) fn wanted(&self) -> SocketAddr {
        self.wanted
    }

    /// The address that is listened on; the wanted one while none is.
    pub(super) fn at(&self) -> SocketAddr {
        self.lock().as_ref().map_or(self.wanted, |open| open.at)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// It listens at this address, and is served by `serve`.
    pub(super) fn serve(&self, at: SocketAddr, serve: impl Future<Output = ()> + Send + 'static) {
        let mut serving = JoinSet::new();
        serving.spawn(serve);
        *self.lock() = Some(Open { at, serving });
    }

    /// Ends serving, and returns when the port is free.
    pub(super) async fn close(&self) {
        let open = self.lock().take();
        if let Some(mut open) = open {
            open.serving.shutdown().await;
        }
    }

    /// It cannot be served.
    pub(super) fn fault(&self, error: impl fmt::Display) -> Fault {
        Fault::new(FaultKind::Io, format_args!("cannot serve on {}: {error}", self.wanted))
    }
}
