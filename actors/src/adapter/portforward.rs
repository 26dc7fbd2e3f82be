//! Local ports onto a stream method.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bus_schema::limits::STREAMS_MAX;
use runtime::{CallError, StreamError};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{ClientAdapter, StreamMethod};

mod connection;
mod datagrams;
mod listener;

use connection::carry;
use listener::Listener;

/// Troubles that wait to be heard of. Whoever does not ask for them loses the newest.
const TROUBLES_MAX: usize = 64;
/// After a failed accept, such as for too many open files: it may pass.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Listens on this host; each connection becomes a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portforward {
    /// A TCP port: `HOST:PORT`, or `PORT` on the loopback interface. Port 0 is any free one.
    Tcp(String),
    /// A Unix socket, for this user only: at this path, or in a directory of its own.
    Unix(Option<PathBuf>),
    /// A UDP port, written as for TCP. Every address that sends there has a stream of its own,
    /// until nothing has come from either side for a minute.
    ///
    /// By the method `datagrams` each datagram travels with its length. Where a driver has no such
    /// method `connect` is opened instead, whose bytes have no boundaries: datagrams that follow
    /// each other closely may arrive as one.
    Udp(String),
}

impl Default for Portforward {
    fn default() -> Self {
        Self::Tcp("0".to_owned())
    }
}

/// Why nothing is listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {source}")]
pub struct PortforwardError {
    /// Where.
    pub at: String,
    /// Why not.
    pub source: io::Error,
}

/// Where a forward listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// A UDP port.
    Udp(SocketAddr),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
        }
    }
}

/// What went wrong with one connection. The others go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The driver did not open a stream for it. The connection was closed.
    #[error("{0}")]
    Refused(CallError),
    /// Its stream broke off. The connection was cut, too.
    #[error("a connection broke off: {0}")]
    Cut(StreamError),
    /// It could not be accepted.
    #[error("cannot accept a connection: {0}")]
    Accept(io::Error),
    /// More senders of datagrams than there are streams for.
    #[error("a datagram of {0} was dropped: too many others have sent some")]
    TooMany(SocketAddr),
}

/// A forward that is up. Dropping it closes the port and cuts every connection.
#[must_use = "dropping it ends the forward"]
#[derive(Debug)]
pub struct Forwarded {
    local: Local,
    troubles: mpsc::Receiver<Trouble>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
    _socket: Option<listener::SocketFile>,
}

impl ClientAdapter for Portforward {
    type Adapted = Forwarded;
    type Error = PortforwardError;

    async fn adapt(self, method: StreamMethod) -> Result<Forwarded, PortforwardError> {
        let (troubled, troubles) = mpsc::channel(TROUBLES_MAX);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let forward = Forward { method, troubled, tasks: tasks.clone(), stop: stop.clone() };
        let forwarded = |local, socket| Forwarded {
            local,
            troubles,
            tasks: tasks.clone(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            _socket: socket,
        };
        match self {
            Self::Tcp(at) => {
                let (listener, local) = Listener::tcp(&at).await?;
                tasks.spawn(forward.run(listener));
                Ok(forwarded(local, None))
            }
            Self::Unix(path) => {
                let (listener, local, socket) = Listener::unix(path.as_deref()).await?;
                tasks.spawn(forward.run(listener));
                Ok(forwarded(local, Some(socket)))
            }
            Self::Udp(at) => {
                let (socket, address) = datagrams::bind(&at).await?;
                tasks.spawn(datagrams::run(forward, socket));
                Ok(forwarded(Local::Udp(address), None))
            }
        }
    }
}

impl Forwarded {
    /// Where it listens.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// The address of its TCP or UDP port.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.local {
            Local::Tcp(address) | Local::Udp(address) => Some(address),
            Local::Unix(_) => None,
        }
    }

    /// The path of its socket.
    pub fn path(&self) -> Option<&Path> {
        match &self.local {
            Local::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// What next goes wrong with one of its connections; each is told of once. Cancel safe.
    pub async fn trouble(&mut self) -> Trouble {
        match self.troubles.recv().await {
            Some(trouble) => trouble,
            None => std::future::pending().await, // it has ended
        }
    }

    /// Ends it, and returns when no connection is left.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// [`stop`](Self::stop) for code that blocks.
    pub fn stop_blocking(self) {
        runtime::blocking::wait(self.stop());
    }
}

/// What the tasks of a forward share.
#[derive(Clone)]
struct Forward {
    method: StreamMethod,
    troubled: mpsc::Sender<Trouble>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Forward {
    async fn run(self, listener: Listener) {
        // No exporter opens more; who comes later waits in the backlog.
        let room = Arc::new(Semaphore::new(STREAMS_MAX));
        let accept = async {
            loop {
                let permit = room.clone().acquire_owned().await.expect("it is never closed");
                match listener.accept().await {
                    Ok(local) => {
                        let connection = self.clone();
                        self.tasks.spawn(async move {
                            let _permit = permit;
                            let stop = connection.stop.clone();
                            stop.run_until_cancelled(carry(&connection, local)).await;
                        });
                    }
                    Err(error) => {
                        self.tell(Trouble::Accept(error));
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
        };
        let _: Option<()> = self.stop.run_until_cancelled(accept).await;
    }

    fn tell(&self, trouble: Trouble) {
        tracing::debug!(%trouble, driver = ?self.method.driver(), "a forward has trouble");
        let _ = self.troubled.try_send(trouble); // nobody asks for them
    }
}
