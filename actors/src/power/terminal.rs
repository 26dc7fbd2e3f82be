//! The terminal of a virtual board: a PTY for each time it is switched on, behind one console that
//! stays.

use std::{io, os::fd::OwnedFd, process::Stdio, sync::Arc};

use bus_schema::{Fault, driver};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    process::Command,
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    CaptureConfig, ConsoleInterface,
    console::{CurrentOpener, HasPort, LineEnd, Port},
};

/// The size that programs see, until somebody can say another.
const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// What a board and its console share. It outlives both, and every time the board is on.
#[derive(Debug, Default)]
pub(crate) struct Terminal(watch::Sender<Option<Arc<Master>>>);

/// The board's side of a PTY. It is no pipe, but it can be polled, read and written like one.
#[derive(Debug)]
pub(crate) struct Master {
    screen: Receiver,
    keys: Sender,
    /// Cancelled when the console has read to the end.
    read: CancellationToken,
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
            read: CancellationToken::new(),
        });
        self.0.send_replace(Some(master.clone()));
        Ok(master)
    }

    /// Ends the connection to a PTY that was attached, which hangs its programs up.
    pub(crate) fn detach(&self, master: &Arc<Master>) {
        self.0.send_if_modified(|present| {
            present.take_if(|present| Arc::ptr_eq(present, master)).is_some()
        });
    }
}

impl Master {
    /// Until the console has read all that the board said: nobody is left who has the PTY open.
    pub(crate) async fn read_to_end(&self) {
        self.read.cancelled().await;
    }
}

impl LineEnd for Master {
    async fn readable(&self) -> io::Result<()> {
        self.screen.readable().await
    }

    async fn writable(&self) -> io::Result<()> {
        self.keys.writable().await
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.screen.try_read(buf)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.keys.try_write(bytes)
    }

    fn ended(&self) {
        self.read.cancel();
    }
}

/// The console of a virtual board: keyboard and screen of its terminal.
#[derive(Debug)]
pub(crate) struct TerminalConsole(Port);

impl TerminalConsole {
    pub(crate) async fn start(terminal: &Terminal, capture: &CaptureConfig) -> Result<Self, Fault> {
        let opener = CurrentOpener(terminal.0.subscribe());
        Ok(Self(Port::start(opener, true, capture).await?))
    }
}

impl HasPort for TerminalConsole {
    fn port(&self) -> &Port {
        &self.0
    }
}

#[driver(Console, name = "process-console")]
impl TerminalConsole {}
