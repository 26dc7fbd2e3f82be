//! The board's screen in a browser: a page with the noVNC client, and a WebSocket onto the stream.
//!
//! The page is for whoever has its address: it is served on the loopback interface only, below a
//! random token, to requests that name that host. Pages of other sites cannot open the WebSocket.

use std::{io, net::SocketAddr, sync::Arc};

use axum::Router;
use rand::Rng as _;
use runtime::{CallError, StreamError};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{ClientAdapter, StreamMethod};

mod page;
mod screen;

/// Browsers that look at one screen.
const VIEWERS_MAX: usize = 64;
/// Troubles that wait to be heard of.
const TROUBLES_MAX: usize = 64;

/// Shows a stream of the RFB protocol (VNC) in a browser.
#[derive(Clone, Debug, Default)]
pub struct NovncAdapter {
    /// What the page is called.
    pub title: String,
    /// The port of the loopback interface: 0 is any free one.
    pub port: u16,
}

/// A page that is served. Dropping it closes it, and cuts off who looks at it.
#[must_use = "dropping it ends the page"]
#[derive(Debug)]
pub struct NovncPage {
    url: String,
    address: SocketAddr,
    troubles: mpsc::Receiver<NovncTrouble>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// What went wrong for one viewer.
#[derive(Debug, thiserror::Error)]
pub enum NovncTrouble {
    /// The driver did not open a stream.
    #[error("{0}")]
    Refused(CallError),
    /// The stream broke off.
    #[error("the screen broke off: {0}")]
    Cut(StreamError),
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on port {port} of the loopback interface: {source}")]
pub struct NovncError {
    /// The port.
    pub port: u16,
    /// Why not.
    pub source: io::Error,
}

/// What every request is answered from.
struct Shared {
    method: StreamMethod,
    title: String,
    token: String,
    /// The hosts that a request may name: this one, in both ways of writing it.
    hosts: [String; 2],
    room: Arc<Semaphore>,
    troubled: mpsc::Sender<NovncTrouble>,
    stop: CancellationToken,
}

impl ClientAdapter for NovncAdapter {
    type Adapted = NovncPage;
    type Error = NovncError;

    async fn adapt(self, method: StreamMethod) -> Result<NovncPage, NovncError> {
        let port = self.port;
        let bound = async {
            let listener = TcpListener::bind(("127.0.0.1", port)).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound.await.map_err(|source| NovncError { port, source })?;
        let token = format!("{:032x}", rand::rng().random::<u128>());
        let (troubled, troubles) = mpsc::channel(TROUBLES_MAX);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let shared = Arc::new(Shared {
            method,
            title: self.title,
            token: token.clone(),
            hosts: [
                format!("127.0.0.1:{}", address.port()),
                format!("localhost:{}", address.port()),
            ],
            room: Arc::new(Semaphore::new(VIEWERS_MAX)),
            troubled,
            stop: stop.clone(),
        });
        let router: Router = page::router(shared);
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            // It fails if accepting does for good; then the page cannot be reached any more.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(NovncPage {
            url: format!("http://{address}/{token}/"),
            address,
            troubles,
            tasks,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }
}

impl NovncPage {
    /// Its address, for a browser of this host. Who has it may use the screen.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What next goes wrong for one of its viewers. Cancel safe.
    pub async fn trouble(&mut self) -> NovncTrouble {
        match self.troubles.recv().await {
            Some(trouble) => trouble,
            None => std::future::pending().await, // it has ended
        }
    }

    /// Closes it, and returns when nobody looks at it any more.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
