//! Where `jmp-bus forward` listens.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::advice::CliError;

/// One connection.
pub(crate) trait Local: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Local for T {}

/// A port or a socket that is listened on.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Socket),
}

/// A socket's file, removed when it is dropped.
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // somebody else may have done so
    }
}

impl Listener {
    /// Listens on a Unix socket, or on a TCP port.
    pub(crate) async fn bind(tcp: Option<&str>, unix: Option<&Path>) -> Result<Self, CliError> {
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

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Local>> {
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
