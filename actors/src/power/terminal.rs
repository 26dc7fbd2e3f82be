//! The terminal of a virtual board: a PTY for each time it is switched on, behind one console that
//! stays.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus_schema::{Fault, driver};
use runtime::{ByteStream, Context};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe::{Receiver, Sender},
    process::Command,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// What is kept of the output for who reads slowly, or has not begun to: a screen or two, and what
/// a board says while it boots.
const KEPT_BYTES_MAX: usize = 256 << 10;
/// Bytes that are read or written at a time.
const PIECE_BYTES: usize = 16 << 10;
/// The size that programs see, until somebody can say another.
const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// What a board and its console share. It outlives both, and every time the board is on.
#[derive(Debug, Default)]
pub(crate) struct Terminal {
    kept: Mutex<Kept>,
    /// The end of the output: how many bytes were ever said.
    said: watch::Sender<u64>,
    /// The board's side of the present PTY, if the board is on.
    master: Mutex<Option<Arc<Master>>>,
    /// Who has the keyboard, and how it is taken away.
    keyboard: Mutex<Option<(String, CancellationToken)>>,
}

/// The last of the output.
#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    end: u64,
}

/// The board's side of a PTY. It is no pipe, but it can be polled, read and written like one.
#[derive(Debug)]
pub(crate) struct Master {
    screen: Receiver,
    keys: Sender,
}

impl Terminal {
    /// Makes a PTY, and `command` its own: controlling terminal and all three standard files.
    pub(crate) fn attach(&self, command: &mut Command) -> io::Result<Arc<Master>> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let board: OwnedFd = rustix::fs::open(name, flags, Mode::empty())?;
        tcsetwinsize(&board, SIZE)?;
        command.stdin(board.try_clone()?).stdout(board.try_clone()?).stderr(Stdio::from(board));
        rustix::io::ioctl_fionbio(&master, true)?;
        let master = Arc::new(Master {
            screen: Receiver::from_owned_fd_unchecked(master.try_clone()?)?,
            keys: Sender::from_owned_fd_unchecked(master)?,
        });
        *lock(&self.master) = Some(master.clone());
        Ok(master)
    }

    /// Keeps what the board says, until nobody is left who has the PTY open.
    pub(crate) async fn listen(&self, master: &Master) {
        let mut buf = vec![0; PIECE_BYTES];
        // The kernel's word for the end of a terminal is an error.
        while let Ok(read @ 1..) = master.read(&mut buf).await {
            let mut kept = lock(&self.kept);
            kept.push(&buf[..read]);
            let end = kept.end;
            drop(kept);
            self.said.send_replace(end);
        }
    }

    /// Ends the connection to a PTY that was attached, which hangs its programs up.
    pub(crate) fn detach(&self, master: &Arc<Master>) {
        let mut present = lock(&self.master);
        if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, master)) {
            *present = None;
        }
    }

    /// Writes what the board says to `stream`, from offset `from` or from now on. What `stream` was
    /// too slow for shows as `[n bytes lost]`, as the board does not wait.
    async fn show(
        &self,
        from: Option<u64>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        let mut said = self.said.subscribe();
        let now = *said.borrow_and_update();
        let mut at = from.map_or(now, |from| from.min(now));
        loop {
            let (lost, bytes) = lock(&self.kept).from(at);
            if lost > 0 {
                stream.write_all(format!("\r\n[{lost} bytes lost]\r\n").as_bytes()).await?;
            }
            stream.write_all(&bytes).await?;
            at += lost + bytes.len() as u64;
            if bytes.is_empty() && said.changed().await.is_err() {
                return Ok(()); // the terminal is gone
            }
        }
    }

    /// Types what comes from `stream`. While the board is off it is lost, as on a serial line.
    async fn typed(&self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut buf = vec![0; PIECE_BYTES];
        loop {
            let bytes = match stream.read(&mut buf).await? {
                0 => return Ok(()),
                read => &buf[..read],
            };
            let master = lock(&self.master).clone();
            if let Some(master) = master {
                let _ = master.write_all(bytes).await; // fails if the board goes off meanwhile
            }
        }
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
        let over = self.bytes.len().saturating_sub(KEPT_BYTES_MAX);
        self.bytes.drain(..over);
    }

    /// How much from offset `at` on is lost, and a piece of what follows.
    fn from(&self, at: u64) -> (u64, Vec<u8>) {
        let begin = self.end - self.bytes.len() as u64;
        let lost = begin.saturating_sub(at);
        let skip = usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX);
        (lost, self.bytes.iter().skip(skip).take(PIECE_BYTES).copied().collect())
    }
}

impl Master {
    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.screen.readable().await?;
            match self.screen.try_read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.keys.writable().await?;
            match self.keys.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The console of a virtual board: keyboard and screen of its terminal.
#[derive(Debug)]
pub(crate) struct TerminalConsole {
    terminal: Arc<Terminal>,
}

impl TerminalConsole {
    pub(crate) fn new(terminal: Arc<Terminal>) -> Self {
        Self { terminal }
    }
}

/// The keyboard, as long as somebody has it.
struct Keyboard<'a> {
    terminal: &'a Terminal,
    /// Cancelled when somebody else takes it.
    taken: CancellationToken,
}

impl<'a> Keyboard<'a> {
    fn take(terminal: &'a Terminal, who: &str, force: bool) -> Result<Self, Fault> {
        let mut holder = lock(&terminal.keyboard);
        match &*holder {
            Some((holder, taken)) if force => {
                tracing::info!(holder, who, "console taken over");
                taken.cancel();
            }
            Some((holder, _)) => {
                return Err(Fault::device(format_args!(
                    "{holder} is connected already: watch instead, or connect by force"
                )));
            }
            None => {}
        }
        let taken = CancellationToken::new();
        *holder = Some((who.to_owned(), taken.clone()));
        Ok(Self { terminal, taken })
    }
}

impl Drop for Keyboard<'_> {
    fn drop(&mut self) {
        if !self.taken.is_cancelled() {
            *lock(&self.terminal.keyboard) = None;
        }
    }
}

/// Resolves when the other end of a stream that is only written to has ended or broken off.
async fn left(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buf = vec![0; PIECE_BYTES];
    while stream.read(&mut buf).await? > 0 {}
    std::future::pending().await // who types nothing may still read
}

// Methods and arguments are those that every console has.
#[driver(name = "console")]
impl TerminalConsole {
    /// Reads and writes, from now on and while the board is switched off and on. There is one writer
    /// at a time; a second is turned away, unless it takes the console over by force.
    #[export]
    async fn connect(
        &self,
        cx: &Context,
        /// Whether the present writer is cut off.
        #[default(false)]
        force: bool,
        stream: ByteStream,
    ) -> Result<(), Fault> {
        let keyboard = Keyboard::take(&self.terminal, cx.caller().as_str(), force)?;
        let (mut input, mut output) = tokio::io::split(stream);
        let typed = async {
            self.terminal.typed(&mut input).await?;
            std::future::pending::<io::Result<()>>().await // who types no more may still read
        };
        tokio::select! {
            biased;
            () = keyboard.taken.cancelled() => {
                Err(Fault::device("somebody else has taken the console over"))
            }
            () = cx.cancelled() => Ok(()), // the caller left
            ended = typed => ended.map_err(Fault::from),
            ended = self.terminal.show(None, &mut output) => ended.map_err(Fault::from),
        }
    }

    /// Reads along. A watcher never slows the board down: one that is too slow for it finds
    /// `[n bytes lost]` in the place of what it missed.
    #[export]
    async fn watch(
        &self,
        cx: &Context,
        /// The place to begin at; without one, whatever comes from now on.
        #[default(None)]
        from: Option<u64>,
        stream: ByteStream,
    ) -> Result<(), Fault> {
        let (mut input, mut output) = tokio::io::split(stream);
        let ended = tokio::select! {
            () = cx.cancelled() => return Ok(()), // the caller left
            ended = left(&mut input) => ended,
            ended = self.terminal.show(from, &mut output) => ended,
        };
        Ok(ended?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slow_reader_missed_is_counted() {
        let mut kept = Kept::default();
        kept.push(b"abc");
        assert_eq!(kept.from(1), (0, b"bc".to_vec()));
        kept.push(&vec![b'x'; KEPT_BYTES_MAX]);
        let (lost, bytes) = kept.from(1);
        assert_eq!((lost, bytes.len()), (2, PIECE_BYTES));
        assert_eq!(kept.from(kept.end), (0, Vec::new()));
    }
}
