//! A command on the exporter's host, in a process group of its own: what ends it ends all that it
//! started.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bus_schema::{Fault, FaultKind};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::{Instant, interval, timeout_at},
};

/// What is kept of each output of a command: enough for its error message, and for a reading.
const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// How often a group is looked at that is to end. Nobody tells when the last of a group is gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A command and everything it started, as far as that stays in its process group.
///
/// Dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    /// None once the group has been ended: then the number may be somebody else's.
    id: Option<Pid>,
    reach: Reach,
}

/// What belongs to a [`Group`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The process group.
    Group,
    /// The session: a shell with job control gives each job a group of its own.
    Session,
}

impl Group {
    /// Starts a command at the head of a new group.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::start(command.process_group(0), Reach::Group)
    }

    /// Starts a command that makes itself the head of a session (as `setsid` does).
    pub(crate) fn spawn_session(command: &mut Command) -> io::Result<Self> {
        Self::start(command, Reach::Session)
    }

    fn start(command: &mut Command, reach: Reach) -> io::Result<Self> {
        let child = command.kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, id, reach })
    }

    /// The process id of the command.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The command, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the command to end; what it left running is killed then. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.kill();
        Ok(status)
    }

    /// Asks the group to end, and kills what is left of it after `grace`.
    pub(crate) async fn stop(&mut self, grace: Duration) -> io::Result<ExitStatus> {
        let until = Instant::now() + grace;
        self.signal(Signal::TERM);
        if self.reach == Reach::Session {
            self.signal(Signal::HUP); // an interactive shell ignores TERM
        }
        self.signal(Signal::CONT); // who is stopped hears nothing else
        if timeout_at(until, self.child.wait()).await.is_ok() {
            // The command may have been a shell whose child still writes its last block.
            let _ = timeout_at(until, self.emptied()).await;
        }
        self.kill();
        self.child.wait().await
    }

    /// Resolves when nothing of the group is left.
    async fn emptied(&self) {
        let Some(id) = self.id else { return };
        let mut look = interval(LOOK_EVERY);
        while test_kill_process_group(id).is_ok() {
            look.tick().await;
        }
    }

    /// Kills the group. There is nothing to signal after that.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let (Reach::Session, Some(id)) = (self.reach, self.id) {
            for member in session(id) {
                let _ = kill_process(member, Signal::KILL); // it may have ended meanwhile
            }
        }
        let _ = self.child.start_kill(); // it may not have made its group yet; or it has ended
        self.id = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal); // fails if the group is gone already
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The processes of a session.
fn session(id: Pid) -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let session = u64::try_from(id.as_raw_nonzero().get()).ok();
    ids.filter(move |process| stat(*process, SESSION) == session).filter_map(Pid::from_raw)
}

/// Where `/proc/ID/stat` has the session, counted from the state.
const SESSION: usize = 3;
/// Where it has the ticks of processor time, of the process and of the kernel for it.
const TICKS: [usize; 2] = [11, 12];

/// A number of `/proc/ID/stat`, counted from the state, which follows the name in parentheses.
fn stat(process: i32, at: usize) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(at)?.parse().ok()
}

/// How much processor time a process has used.
pub(crate) fn processor_time(process: u32) -> Option<Duration> {
    let process = i32::try_from(process).ok()?;
    let ticks = TICKS.iter().map(|at| stat(process, *at)).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
}

/// Linux tells processor time in these, whatever its own clock is.
const TICKS_PER_SECOND: u64 = 100;

/// A command without input, output or environment of its own yet.
///
/// # Errors
///
/// A fault if `words` is empty.
pub(crate) fn command(words: &[String]) -> Result<Command, Fault> {
    let [program, args @ ..] = words else {
        return Err(Fault::argument("the command is empty: write its words as a list"));
    };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// The fault of a command that does not start.
pub(crate) fn not_started(program: &str, error: &io::Error) -> Fault {
    Fault::new(FaultKind::Io, format_args!("{program:?} does not start: {error}"))
}

/// How a command ended, for people.
pub(crate) fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Runs a command to its end and gives what it wrote to its standard output.
///
/// # Errors
///
/// A fault that holds its output if it failed, or took longer than `limit`; it is killed then.
pub(crate) async fn run(
    words: &[String],
    command: Command,
    limit: Duration,
) -> Result<Vec<u8>, Fault> {
    let shown = words.join(" ");
    let mut command = command;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = Group::spawn(&mut command).map_err(|error| not_started(&shown, &error))?;
    let (stdout, stderr) = (group.child().stdout.take(), group.child().stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = {
        // What runs on in a session of its own may hold the pipes open for ever.
        let read = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
        let mut read = std::pin::pin!(read);
        let ended = async {
            tokio::select! {
                _ = &mut read => group.wait().await,
                status = group.wait() => {
                    let _ = timeout_at(Instant::now() + LAST_WORDS, &mut read).await;
                    status
                }
            }
        };
        timeout_at(Instant::now() + limit, ended).await
    };
    let said = said(&out, &err);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(out),
        Ok(Ok(status)) => {
            Err(Fault::device(format_args!("{shown:?} failed with {}{said}", how(status))))
        }
        Ok(Err(error)) => Err(not_started(&shown, &error)),
        Err(_elapsed) => {
            let _ = group.stop(KILLED_AFTER).await;
            let text = format!("{shown:?} did not end within {limit:?} and was stopped{said}");
            Err(Fault::timeout(text))
        }
    }
}

/// How long output is waited for after the command's end.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a command that is stopped has for its own tidying. Shorter than what an operation has when
/// it is cancelled, so that it ends as it should and not by being dropped.
pub(crate) const KILLED_AFTER: Duration = Duration::from_secs(2);

/// Reads to the end, and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buf = vec![0; 8 << 10];
    while let Ok(read @ 1..) = from.read(&mut buf).await {
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buf[..read.min(room)]);
    }
}

/// The output of a command, as the end of a sentence.
fn said(out: &[u8], err: &[u8]) -> String {
    let text = if err.trim_ascii().is_empty() { out } else { err };
    match String::from_utf8_lossy(text).trim() {
        "" => " and said nothing".to_owned(),
        text => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn run_script(script: &str, limit: Duration) -> Result<Vec<u8>, Fault> {
        let words = words(script);
        run(&words, command(&words)?, limit).await
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_command_gives_its_output() {
        assert_eq!(run_script("echo 5 1", LONG).await.unwrap(), b"5 1\n");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_what_it_said() {
        let fault = run_script("echo no relay >&2; exit 3", LONG).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Device);
        assert!(fault.text.ends_with("failed with exit code 3: no relay"), "{fault}");
    }

    #[tokio::test]
    async fn a_command_that_is_missing_is_named() {
        let words = ["/nonexistent/relay".to_owned()];
        let fault = run(&words, command(&words).unwrap(), LONG).await.unwrap_err();
        assert!(fault.text.contains("/nonexistent/relay"), "{fault}");
    }

    #[tokio::test]
    async fn an_empty_command_is_refused() {
        assert_eq!(command(&[]).unwrap_err().kind, FaultKind::Argument);
    }

    #[tokio::test]
    async fn output_past_what_is_kept_does_not_stop_a_command() {
        let out = run_script("head -c 1000000 /dev/zero", LONG).await.unwrap();
        assert_eq!(out.len(), OUTPUT_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_command_past_its_time_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("trap '' TERM; sleep 1000 & echo $! >{}; wait", pid.display());
        let fault = run_script(&script, Duration::from_millis(300)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Timeout);
        let grandchild: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        gone(grandchild).await;
    }

    /// Waits for the end of a process that somebody else reaps.
    async fn gone(id: i32) {
        let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let mut look = interval(LOOK_EVERY);
        while !state().is_empty() && !state().contains(") Z ") {
            look.tick().await;
        }
    }
}
