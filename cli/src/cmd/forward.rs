//! `jmp-bus forward`: a local port that is a stream of a driver.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bus_schema::{Target, Value};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use super::connect::open;
use crate::{
    advice::CliError,
    request::{Asked, not_found, words},
    session::Session,
};

/// Listen on a local port; each connection becomes a stream of a driver.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    asked: Asked,
    /// The method.
    #[arg(default_value = "connect")]
    method: String,
    /// Words for it, as for `call`.
    #[arg(value_name = "WORD", allow_negative_numbers = true)]
    words: Vec<String>,
    /// Listen on this TCP port, of the loopback unless a host is named; 0 is any free port.
    #[arg(long, value_name = "[HOST:]PORT", required_unless_present = "unix")]
    tcp: Option<String>,
    /// Listen on this Unix socket, for this user only.
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    unix: Option<PathBuf>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let words = words(&self.words)?;
        self.is_there(session).await?;
        let listener = Listener::bind(self.tcp.as_deref(), self.unix.as_deref()).await?;
        let url = listener.to_string();
        session.out.document(&json!({ "listening": url }), || format!("{url}\n")).await?;
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(local) => connections.push(self.carry(session, &words, local)),
                    // Such as too many open files: it may pass.
                    Err(error) => {
                        session.out.note(format_args!("cannot accept a connection: {error}"));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.next() => {
                    if let Err(error) = ended {
                        session.out.note(error);
                    }
                }
            }
        }
    }

    /// Says so at once if nobody is there to be connected to.
    async fn is_there(&self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let there = match &self.asked.target {
            Target::Id(_) => client.registry().resolve(&self.asked.target).await?.is_some(),
            Target::Address(address) => {
                client.ping(&address.exporter, Duration::from_secs(2)).await.is_ok()
            }
        };
        match there {
            true => Ok(()),
            false => Err(not_found(client, &self.asked.target).await),
        }
    }

    /// One connection, until both halves have ended.
    async fn carry(
        &self,
        session: &Session,
        words: &[Value],
        mut local: Box<dyn Local>,
    ) -> Result<(), CliError> {
        let mut stream = open(session, &self.asked, &self.method, words).await?;
        match copy_bidirectional(&mut local, &mut stream).await {
            Ok(_) => Ok(()),
            // The local side hung up; the driver hears of it as the stream is dropped.
            Err(error) if error.get_ref().is_none() => Ok(()),
            Err(error) => Err(self.asked.cut(error)),
        }
    }
}

trait Local: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Local for T {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// A socket's file, removed when it is dropped.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // somebody else may have done so
    }
}

impl Listener {
    async fn bind(tcp: Option<&str>, unix: Option<&Path>) -> Result<Self, CliError> {
        if let Some(path) = unix {
            let bound = bind_unix(path).await;
            let name = format!("listen on {}", path.display());
            return bound.map_err(|source| CliError::io(name, source));
        }
        let address = match tcp.unwrap_or("0") {
            port if !port.contains(':') => format!("127.0.0.1:{port}"),
            address => address.to_owned(),
        };
        let bound = TcpListener::bind(&address).await;
        bound.map(Self::Tcp).map_err(|source| CliError::io(format!("listen on {address}"), source))
    }

    async fn accept(&self) -> io::Result<Box<dyn Local>> {
        match self {
            Self::Tcp(listener) => {
                let (local, _): (TcpStream, _) = listener.accept().await?;
                local.set_nodelay(true)?;
                Ok(Box::new(local))
            }
            Self::Unix(listener, _) => {
                let (local, _): (UnixStream, _) = listener.accept().await?;
                Ok(Box::new(local))
            }
        }
    }
}

/// The file of a socket that nobody listens on any more is replaced.
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).await.as_ref().is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let socket = Socket(path.to_owned());
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(Listener::Unix(listener, socket))
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "tcp://{address}"),
                Err(_) => f.write_str("tcp://?"),
            },
            Self::Unix(_, socket) => write!(f, "unix://{}", socket.0.display()),
        }
    }
}
