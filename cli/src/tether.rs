//! A command that does not outlive the process that runs it, however that ends.

use std::{
    io::{self, IsTerminal as _},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, getpgrp, kill_process, kill_process_group},
    termios::tcgetpgrp,
};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStdin, Command},
    signal::unix::SignalKind,
    time::timeout,
};

/// A command that was told to end has this long.
const END_WITHIN: Duration = Duration::from_secs(10);
const GUARD: &str = include_str!("tether.sh");

/// A running command. Where there is no terminal it leads a process group of its own, and what it
/// has started is told and ended with it. At a terminal it stays in ours: another group would not
/// be let read from it.
#[derive(Debug)]
pub(crate) struct Tethered {
    child: Child,
    pid: Pid,
    reach: Reach,
    /// Ends the command when this process is gone without a word.
    guard: Option<(Child, ChildStdin)>,
}

/// Who hears what is said to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Group,
    Alone,
}

impl Tethered {
    /// Starts a command.
    ///
    /// # Errors
    ///
    /// As the system says. That there is no `sh` to guard it is none.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        let reach = if has_terminal() { Reach::Alone } else { Reach::Group };
        if reach == Reach::Group {
            command.process_group(0);
        }
        let child = command.kill_on_drop(true).spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.ok_or_else(|| io::Error::other("it has no process id"))?;
        let guard = guard(pid, reach).ok();
        Ok(Self { child, pid, reach, guard })
    }

    /// Waits for its end. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = self.child.wait().await?;
        if let Some((mut guard, mut orders)) = self.guard.take() {
            let _ = orders.write_all(b"ended\n").await; // it may have been killed
            let _ = guard.wait().await;
        }
        Ok(ended)
    }

    /// Passes on what this process was told. A terminal tells a command that it shares with us
    /// itself, and a second Ctrl-C means another thing to many.
    pub(crate) fn pass_on(&self, signal: SignalKind) {
        let heard_it = self.reach == Reach::Alone && is_in_foreground();
        if signal != SignalKind::interrupt() || !heard_it {
            self.tell(signal);
        }
    }

    /// Ends it: first it is asked to.
    pub(crate) async fn end(&mut self) {
        self.tell(SignalKind::terminate());
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            self.tell(SignalKind::from_raw(Signal::KILL.as_raw()));
        }
        let _ = self.wait().await; // it has ended
    }

    fn tell(&self, signal: SignalKind) {
        // It may just have ended; its number is not given away before it was waited for.
        if let (Some(_), Some(signal)) =
            (self.child.id(), Signal::from_named_raw(signal.as_raw_value()))
        {
            let _ = match self.reach {
                Reach::Group => kill_process_group(self.pid, signal),
                Reach::Alone => kill_process(self.pid, signal),
            };
        }
    }
}

/// Whether this process has a terminal, from wherever it reads.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Whether what is typed at the terminal is meant for us.
fn is_in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    terminal.is_terminal() && tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp())
}

fn guard(pid: Pid, reach: Reach) -> io::Result<(Child, ChildStdin)> {
    let target = match reach {
        Reach::Group => format!("-{}", pid.as_raw_nonzero()),
        Reach::Alone => pid.as_raw_nonzero().to_string(),
    };
    let mut child = Command::new("/bin/sh")
        .args(["-c", GUARD, "jmp-bus-tether", &target])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let orders = child.stdin.take().expect("standard input is piped");
    Ok((child, orders))
}
