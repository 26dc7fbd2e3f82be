//! SSH to the board, through the bus.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use runtime::{CallError, Secret};
use russh::{
    Channel, ChannelOpenFailure, Disconnect,
    client::{self, ChannelOpenHandle, Handle, Msg},
    keys::{PublicKey, PublicKeyOrCertificate},
};
use russh_sftp::client::SftpSession;
use tokio::{net::UnixStream, sync::OnceCell, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{ClientAdapter, StreamMethod};

mod blocking;
mod files;
mod forward;
mod host_key;
mod login;
mod run;

pub use blocking::SshBlocking;
pub use forward::SshForward;
pub use host_key::{HostKeys, KnownHosts};
pub use login::Login;
pub use run::{Exit, Ran, Resizer, Running, Terminal};

/// How long it may take to be logged in, unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The board is asked for a sign of life this often, and is gone when it gives none three times.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Opens an [`Ssh`] session over a stream that leads to an SSH server.
#[derive(Clone, Debug)]
pub struct SshAdapter {
    /// Who logs in.
    pub user: String,
    /// What is shown to the server, one after the other.
    pub logins: Vec<Login>,
    /// Which host keys are trusted.
    pub known_hosts: KnownHosts,
    /// The socket of an agent that the board may use while the session lasts.
    pub forward_agent: Option<PathBuf>,
    /// How long it may take to be logged in.
    pub timeout: Duration,
}

impl SshAdapter {
    /// Logs in as `user`, by what else is set. The host's key is recorded in memory only.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            logins: Vec::new(),
            known_hosts: KnownHosts::default(),
            forward_agent: None,
            timeout: TIMEOUT,
        }
    }

    /// With a password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.logins.push(Login::Password(Secret::new(password)));
        self
    }

    /// With the private key in a file.
    #[must_use]
    pub fn with_key_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.logins.push(Login::KeyFile { file: file.into(), passphrase: None });
        self
    }
}

impl ClientAdapter for SshAdapter {
    type Adapted = Ssh;
    type Error = SshError;

    async fn adapt(self, method: StreamMethod) -> Result<Ssh, SshError> {
        let limit = self.timeout;
        let host = KnownHosts::name_of(method.driver());
        let connecting = async {
            let stream = method.open().await?;
            let known = self.known_hosts.keys_of(&host)?;
            let mut config = client::Config {
                keepalive_interval: Some(ALIVE_EVERY),
                nodelay: true,
                ..client::Config::default()
            };
            host_key::prefer_known(&mut config.preferred, &known);
            let checker = Checker {
                host,
                hosts: self.known_hosts.clone(),
                agent: self.forward_agent.clone(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            };
            let (tasks, stop) = (checker.tasks.clone(), checker.stop.clone());
            let mut handle = client::connect_stream(Arc::new(config), stream, checker).await?;
            login::log_in(&mut handle, &self.user, &self.logins).await?;
            Ok(Ssh {
                handle: Arc::new(handle),
                forwards_agent: self.forward_agent.is_some(),
                files: OnceCell::new(),
                tasks,
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
            })
        };
        // Boxed, as a handshake is large.
        match timeout(limit, Box::pin(connecting)).await {
            Ok(connected) => connected,
            Err(_elapsed) => Err(SshError::TimedOut { limit }),
        }
    }
}

/// A session that is logged in. Any number of commands, files and forwards go through it at once.
/// Dropping it ends them all.
#[must_use = "dropping it ends the session"]
pub struct Ssh {
    handle: Arc<Handle<Checker>>,
    forwards_agent: bool,
    files: OnceCell<SftpSession>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Ssh {
    /// Says goodbye, and returns when nothing of it is left.
    pub async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "en").await; // it is gone
    }

    async fn session(&self) -> Result<Channel<Msg>, SshError> {
        let channel = self.handle.channel_open_session().await?;
        if self.forwards_agent {
            channel.agent_forward(false).await?;
        }
        Ok(channel)
    }
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssh").field("closed", &self.handle.is_closed()).finish_non_exhaustive()
    }
}

/// Why there is no session, or why something was not done in one.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The stream was not opened.
    #[error(transparent)]
    Open(#[from] CallError),
    /// The host has another key than the one it is known by.
    #[error(
        "THE HOST KEY OF {host} HAS CHANGED: it is {now}, and {} has {before}; it is another \
         board, another system on it, or somebody in between", file.as_deref().unwrap_or("this process")
    )]
    HostKeyChanged {
        /// What the host is known as.
        host: String,
        /// Fingerprint of the key it has now.
        now: String,
        /// Fingerprints of the keys it is known by.
        before: String,
        /// Where they are recorded.
        file: Option<String>,
    },
    /// The host is not known, and only known ones are trusted.
    #[error("the host key {key} of {host} is not known")]
    HostKeyUnknown {
        /// What the host would be known as.
        host: String,
        /// Fingerprint of its key.
        key: String,
    },
    /// A file of ours: known hosts, a key, or one that is sent or received.
    #[error("cannot {what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A private key cannot be used.
    #[error("the key {file} cannot be used: {why}")]
    Key {
        /// Its file.
        file: String,
        /// Why not.
        why: String,
    },
    /// The server took none of what was shown.
    #[error("{user} may not log in: {tried}; the server takes {takes}")]
    Refused {
        /// Who.
        user: String,
        /// What was tried, and how it went.
        tried: String,
        /// What the server would take.
        takes: String,
    },
    /// It took too long.
    #[error("not logged in within {limit:?}")]
    TimedOut {
        /// How long was waited.
        limit: Duration,
    },
    /// The server refused something.
    #[error("the server refused to {0}")]
    Denied(String),
    /// The server closed a channel instead of answering.
    #[error("the server hung up when it was to {0}")]
    HungUp(String),
    /// The output of a command is too large to be kept.
    #[error("the command said more than {0} bytes")]
    TooMuch(usize),
    /// A file on the board.
    #[error("{path} on the board: {why}")]
    Remote {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The session failed.
    #[error("the SSH session failed: {0}")]
    Session(russh::Error),
}

impl From<russh::Error> for SshError {
    fn from(error: russh::Error) -> Self {
        Self::Session(error)
    }
}

impl SshError {
    fn local(what: impl Into<String>, source: io::Error) -> Self {
        Self::Local { what: what.into(), source }
    }
}

/// Decides on the host's key, and hands agent requests of the board to the agent.
pub(super) struct Checker {
    host: String,
    hosts: KnownHosts,
    agent: Option<PathBuf>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl client::Handler for Checker {
    type Error = SshError;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let key: PublicKey = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.clone(),
            // None was asked for; what it certifies is a key like any other.
            PublicKeyOrCertificate::Certificate(certificate) => {
                certificate.public_key().clone().into()
            }
        };
        self.hosts.check(&self.host, &key).map(|()| true)
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), SshError> {
        let Some(agent) = self.agent.clone() else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let Ok(mut agent) = UnixStream::connect(agent).await else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let mut board = channel.into_stream();
            let carry = tokio::io::copy_bidirectional(&mut board, &mut agent);
            stop.run_until_cancelled(carry).await
        });
        Ok(())
    }
}
