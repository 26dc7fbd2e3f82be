//! Commands on the board.

use std::sync::Arc;

use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig, client::Msg};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{Ssh, SshError};

/// Most that is kept of what a command says. More is for [`Running::carry`].
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// The kind of extended data that is stderr.
const STDERR: u32 = 1;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(u32),
    /// By a signal: `TERM`, `KILL` …
    Signal(String),
    /// The server did not say.
    Unknown,
}

impl Exit {
    /// Whether it is a success.
    pub fn is_success(&self) -> bool {
        *self == Self::Status(0)
    }

    /// As a shell has it: the status, 128 and the signal's number, or 255.
    pub fn code(&self) -> u8 {
        const SIGNALS: [(&str, u8); 9] = [
            ("HUP", 1),
            ("INT", 2),
            ("QUIT", 3),
            ("ILL", 4),
            ("ABRT", 6),
            ("FPE", 8),
            ("KILL", 9),
            ("SEGV", 11),
            ("PIPE", 13),
        ];
        match self {
            Self::Status(status) => u8::try_from(*status).unwrap_or(255),
            Self::Signal(name) if name == "TERM" => 143,
            Self::Signal(name) => {
                let known = SIGNALS.iter().find(|(known, _)| known == name);
                known.map_or(255, |(_, number)| 128 + number)
            }
            Self::Unknown => 255,
        }
    }
}

/// A command that has ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub exit: Exit,
}

impl Ran {
    /// Its stdout as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A terminal on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its kind: `xterm`.
    pub kind: String,
    /// Columns.
    pub columns: u32,
    /// Rows.
    pub rows: u32,
}

/// A command that runs, or a shell.
#[must_use = "dropping it hangs up on the command"]
pub struct Running {
    from: ChannelReadHalf,
    to: Arc<ChannelWriteHalf<Msg>>,
}

/// Tells a command of the size of its terminal while it runs.
pub struct Resizer(Arc<ChannelWriteHalf<Msg>>);

impl Ssh {
    /// Runs a command, without input, and gives what it said.
    ///
    /// # Errors
    ///
    /// [`SshError`]; how the command ends is no error.
    pub async fn run(&self, command: &str) -> Result<Ran, SshError> {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let running = self.start(Some(command), None).await?;
        let exit = running.carry(tokio::io::empty(), &mut stdout, &mut stderr).await;
        if stdout.over || stderr.over {
            return Err(SshError::TooMuch(OUTPUT_BYTES_MAX));
        }
        Ok(Ran { stdout: stdout.bytes, stderr: stderr.bytes, exit: exit? })
    }

    /// Starts a command, or the shell of whoever is logged in; on a terminal if one is given.
    ///
    /// # Errors
    ///
    /// [`SshError::Denied`] if the server does not.
    pub async fn start(
        &self,
        command: Option<&str>,
        terminal: Option<Terminal>,
    ) -> Result<Running, SshError> {
        let channel = self.session().await?;
        let (mut from, to) = channel.split();
        if let Some(Terminal { kind, columns, rows }) = terminal {
            to.request_pty(true, &kind, columns, rows, 0, 0, &[]).await?;
            granted(&mut from, "give a terminal").await?;
        }
        match command {
            Some(command) => to.exec(true, command).await?,
            None => to.request_shell(true).await?,
        }
        granted(&mut from, "run the command").await?;
        Ok(Running { from, to: Arc::new(to) })
    }
}

/// Waits for the answer to a request.
async fn granted(from: &mut ChannelReadHalf, what: &str) -> Result<(), SshError> {
    loop {
        match from.wait().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::WindowAdjusted { .. }) => {}
            Some(ChannelMsg::Failure) => return Err(SshError::Denied(what.to_owned())),
            Some(message) => {
                tracing::debug!(?message, "no answer to a request");
                return Err(SshError::HungUp(what.to_owned()));
            }
            None => return Err(SshError::Session(russh::Error::Disconnect)),
        }
    }
}

impl Running {
    /// What tells it of the size of its terminal.
    pub fn resizer(&self) -> Resizer {
        Resizer(self.to.clone())
    }

    /// Feeds the command from `stdin`, to its end, and gives on what it says, until it ends.
    ///
    /// # Errors
    ///
    /// [`SshError::Local`] if what it says cannot be written.
    pub async fn carry(
        self,
        stdin: impl AsyncRead + Unpin,
        stdout: impl AsyncWrite + Unpin,
        stderr: impl AsyncWrite + Unpin,
    ) -> Result<Exit, SshError> {
        let Self { from, to } = self;
        let feed = async {
            let fed = to.data(stdin).await; // it may have ended before it has read all of it
            let _ = to.eof().await;
            fed
        };
        let listen = listen(from, stdout, stderr);
        tokio::pin!(listen, feed);
        tokio::select! {
            ended = &mut listen => ended,
            _ = &mut feed => listen.await,
        }
    }
}

impl Resizer {
    /// The terminal has another size now.
    ///
    /// # Errors
    ///
    /// [`SshError::Session`].
    pub async fn resize(&self, columns: u32, rows: u32) -> Result<(), SshError> {
        Ok(self.0.window_change(columns, rows, 0, 0).await?)
    }
}

async fn listen(
    mut from: ChannelReadHalf,
    mut stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> Result<Exit, SshError> {
    let mut exit = Exit::Unknown;
    loop {
        let written = match from.wait().await {
            Some(ChannelMsg::Data { data }) => say(&mut stdout, &data).await,
            Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => say(&mut stderr, &data).await,
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                exit = Exit::Status(exit_status);
                Ok(())
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                exit = Exit::Signal(name(&signal_name));
                Ok(())
            }
            // Not the end of input: the status may follow that.
            None | Some(ChannelMsg::Close) => return Ok(exit),
            Some(_) => Ok(()),
        };
        written.map_err(|source| SshError::local("write what the command says", source))?;
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

fn name(signal: &Sig) -> String {
    match signal {
        Sig::Custom(name) => name.clone(),
        known => format!("{known:?}"),
    }
}

/// Output that is kept, up to a limit.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    over: bool,
}

impl AsyncWrite for Kept {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if self.bytes.len() + bytes.len() > OUTPUT_BYTES_MAX {
            self.over = true;
            return std::task::Poll::Ready(Err(std::io::ErrorKind::OutOfMemory.into()));
        }
        self.bytes.extend_from_slice(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl std::fmt::Debug for Resizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resizer")
    }
}
