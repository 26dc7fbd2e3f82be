//! Ports and sockets that connections come to.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use runtime::ScratchDir;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Local, PortforwardError};

/// A port or a socket that is listened on.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// One connection.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket's file, removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    _dir: Option<ScratchDir>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // somebody else may have done so
    }
}

impl Listener {
    pub(super) async fn tcp(at: &str) -> Result<(Self, Local), PortforwardError> {
        let at = host_port(at);
        let bound = async {
            let listener = TcpListener::bind(&at).await?;
            let address = listener.local_addr()?;
            Ok((Self::Tcp(listener), Local::Tcp(address)))
        };
        bound.await.map_err(|source| PortforwardError { at, source })
    }

    pub(super) async fn unix(
        path: Option<&Path>,
    ) -> Result<(Self, Local, SocketFile), PortforwardError> {
        let at = path.map_or_else(|| "a socket".to_owned(), |path| path.display().to_string());
        bind_unix(path).await.map_err(|source| PortforwardError { at, source })
    }

    /// The next connection. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, _) = listener.accept().await?;
                let _ = tcp.set_nodelay(true); // it may be gone already, which reading will tell
                Ok(Connection::Tcp(tcp))
            }
            Self::Unix(listener) => Ok(Connection::Unix(listener.accept().await?.0)),
        }
    }
}

/// `PORT` alone is of the loopback interface.
pub(super) fn host_port(at: &str) -> String {
    match at.contains(':') {
        true => at.to_owned(),
        false => format!("127.0.0.1:{at}"),
    }
}

async fn bind_unix(path: Option<&Path>) -> io::Result<(Listener, Local, SocketFile)> {
    let (path, dir) = match path {
        Some(path) => (path.to_owned(), None),
        None => {
            let dir = ScratchDir::new("forward")?;
            (dir.path().join("socket"), Some(dir))
        }
    };
    // The file of a socket that nobody listens on any more is replaced; any other file is not ours.
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let is_socket =
        |path| std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if is_socket(&path) && UnixStream::connect(&path).await.as_ref().is_err_and(refused) {
        std::fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)?;
    let socket = SocketFile { path: path.clone(), _dir: dir };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok((Listener::Unix(listener), Local::Unix(path), socket))
}
