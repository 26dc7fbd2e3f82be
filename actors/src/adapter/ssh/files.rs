//! Files to the board and back.

use std::path::Path;

use russh_sftp::client::{SftpSession, error::Error as SftpError};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
};

use super::{Ssh, SshError};

/// Bytes that are copied at a time: what one message of SFTP carries.
const COPY_BYTES: usize = 32 << 10;
/// How long the server may take for one of them, in seconds.
const ANSWER_SECONDS: u64 = 30;

impl Ssh {
    /// The channel for files: one for the whole session, as a new one for each file costs time,
    /// and small servers have trouble with channels that come and go.
    async fn sftp(&self) -> Result<&SftpSession, SshError> {
        self.files.get_or_try_init(|| Box::pin(self.open_sftp())).await
    }

    async fn open_sftp(&self) -> Result<SftpSession, SshError> {
        let channel = self.session().await?;
        channel.request_subsystem(true, "sftp").await?;
        let session = SftpSession::new(channel.into_stream()).await;
        let session = session.map_err(|error| {
            SshError::Denied(format!("serve files by SFTP ({error}); is sftp-server installed?"))
        })?;
        session.set_timeout(ANSWER_SECONDS);
        Ok(session)
    }

    /// Puts a file onto the board, and gives its size. A path that ends in `/` is a directory.
    ///
    /// # Errors
    ///
    /// [`SshError::Local`] and [`SshError::Remote`] name the file.
    pub async fn put(&self, local: &Path, remote: &str) -> Result<u64, SshError> {
        let failed = |source| SshError::local(format!("read {}", local.display()), source);
        let file = File::open(local).await.map_err(failed)?;
        let remote = in_directory(remote, local.file_name().and_then(|name| name.to_str()));
        self.write(&remote, file).await.map_err(|error| match error {
            SshError::Local { source, .. } => failed(source),
            other => other,
        })
    }

    /// Gets a file from the board, and gives its size. It is complete when it is there: it is
    /// written beside its place, and moved.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn get(&self, remote: &str, local: &Path) -> Result<u64, SshError> {
        let local = match local.is_dir() {
            true => local.join(remote.rsplit('/').next().unwrap_or(remote)),
            false => local.to_owned(),
        };
        let failed = |source| SshError::local(format!("write {}", local.display()), source);
        let dir = local.parent().filter(|dir| !dir.as_os_str().is_empty());
        let new = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new("."))).map_err(failed)?;
        let file = File::from_std(new.reopen().map_err(failed)?);
        let size = self.read(remote, file).await.map_err(|error| match error {
            SshError::Local { source, .. } => failed(source),
            other => other,
        })?;
        new.persist(&local).map_err(|error| failed(error.error))?;
        Ok(size)
    }

    /// Writes what `from` gives to a file on the board, and gives its size.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn write(
        &self,
        remote: &str,
        mut from: impl AsyncRead + Unpin,
    ) -> Result<u64, SshError> {
        let sftp = self.sftp().await?;
        let mut file = sftp.create(remote).await.map_err(|error| of(remote, &error))?;
        let copied = copy(&mut from, &mut file).await;
        let size = copied.map_err(|failed| failed.of(remote))?;
        file.close().await.map_err(|error| of(remote, &error.into()))?;
        Ok(size)
    }

    /// Reads a file of the board into `to`, and gives its size.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn read(
        &self,
        remote: &str,
        mut to: impl AsyncWrite + Unpin,
    ) -> Result<u64, SshError> {
        let sftp = self.sftp().await?;
        let mut file = sftp.open(remote).await.map_err(|error| of(remote, &error))?;
        let copied = copy(&mut file, &mut to).await;
        let size = copied.map_err(|failed| failed.swapped().of(remote))?;
        to.flush().await.map_err(|source| SshError::local("write", source))?;
        Ok(size)
    }
}

/// Which end of a copy failed.
enum CopyFailed {
    Reading(std::io::Error),
    Writing(std::io::Error),
}

impl CopyFailed {
    fn swapped(self) -> Self {
        match self {
            Self::Reading(error) => Self::Writing(error),
            Self::Writing(error) => Self::Reading(error),
        }
    }

    /// Of a copy to the board.
    fn of(self, remote: &str) -> SshError {
        match self {
            Self::Reading(source) => SshError::local("read", source),
            Self::Writing(error) => of(remote, &error.into()),
        }
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<u64, CopyFailed> {
    let mut block = vec![0; COPY_BYTES];
    let mut size = 0;
    loop {
        match from.read(&mut block).await.map_err(CopyFailed::Reading)? {
            0 => return Ok(size),
            read => {
                to.write_all(&block[..read]).await.map_err(CopyFailed::Writing)?;
                size += read as u64;
            }
        }
    }
}

fn of(remote: &str, error: &SftpError) -> SshError {
    let why = match error {
        SftpError::Status(status) => status.status_code.to_string(),
        other => other.to_string(),
    };
    SshError::Remote { path: remote.to_owned(), why }
}

fn in_directory(path: &str, name: Option<&str>) -> String {
    match (path.ends_with('/'), name) {
        (true, Some(name)) => format!("{path}{name}"),
        _ => path.to_owned(),
    }
}
