//! The processes of the bench: peers, what they spend, and the cost of one `jmp-bus call`.

use std::{
    fmt,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use runtime::{Settings, floor::Bare};
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{
    Bench, Sides, median_us,
    row::{Meter, Round, Row, Target, measure},
};

/// Which side a peer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Bare async-nats.
    Floor,
    /// An exporter.
    Bus,
    /// Many exporters of many drivers.
    Fleet,
    /// Bare async-nats with as many subscriptions as [`Idle`](Self::Idle) has drivers.
    FloorIdle,
    /// One exporter of very many drivers that nobody calls.
    Idle,
}

impl PeerKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Floor, Self::Bus, Self::Fleet, Self::FloorIdle, Self::Idle];

    /// Its name as an argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Bus => "bus",
            Self::Fleet => "fleet",
            Self::FloorIdle => "floor-idle",
            Self::Idle => "idle",
        }
    }
}

/// The responder of one side: another process. Gone when dropped.
pub(crate) struct Peer {
    process: Child,
    /// Resident memory when it was ready, in bytes: what it did since may have left more.
    pub(crate) fresh_memory: u64,
}

impl Peer {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start(bench: &Bench, kind: PeerKind) -> anyhow::Result<Self> {
        let (program, args) = bench.program.split_first().context("a program to start")?;
        let mut process = Command::new(program)
            .args(args)
            .args(["--peer", kind.as_str(), "--root", bench.root.as_str()])
            .envs(bench.environment.iter().cloned())
            .stdin(Stdio::piped()) // it ends when this end is closed
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = process.stdout.take().context("a pipe was asked for")?;
        let ready = BufReader::new(stdout).lines().next_line().await?;
        anyhow::ensure!(
            ready.as_deref() == Some("ready"),
            "the {} peer did not start",
            kind.as_str()
        );
        let fresh_memory = memory_of(&process)?;
        Ok(Self { process, fresh_memory })
    }

    /// Lets it end, and clean up; one that does not is killed.
    pub(crate) async fn end(mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        drop(self.process.stdin.take());
        let _ = tokio::time::timeout(PATIENCE, self.process.wait()).await;
    }

    /// CPU time that the peer has spent.
    fn cpu(&self) -> Duration {
        self.process.id().map_or(Duration::ZERO, |pid| cpu_of(&pid.to_string(), OWN))
    }
}

/// Resident memory of a process, in bytes.
fn memory_of(process: &Child) -> anyhow::Result<u64> {
    let pid = process.id().context("the peer has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Whose CPU time counts as that of a row's requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// This process.
    Bench,
    /// The processes that it starts and waits for.
    Children,
    /// Nobody: the row is not about time.
    Nobody,
}

impl Requester {
    /// What requester and responder have spent so far; none where nobody is counted.
    pub(crate) fn cpu(self, responder: &Peer) -> Option<(Duration, Duration)> {
        let requester = match self {
            Self::Bench => cpu_of("self", OWN),
            Self::Children => cpu_of("self", OF_CHILDREN),
            Self::Nobody => return None,
        };
        Some((requester, responder.cpu()))
    }
}

/// Places in `/proc/<pid>/stat` behind the name (proc(5)) of the user time, which the system time
/// follows, in hundredths of a second: a process's own, and that of children it has waited for.
const OWN: usize = 11;
const OF_CHILDREN: usize = 13;

fn cpu_of(pid: &str, at: usize) -> Duration {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 =
        after_name.split_whitespace().skip(at).take(2).filter_map(|n| n.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// CPU time per operation, in µs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cpu {
    /// Of the requester.
    pub requester: f64,
    /// Of the responder.
    pub responder: f64,
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}+{:.1}", self.requester, self.responder)
    }
}

/// CPU time over several rounds.
#[derive(Default)]
pub(crate) struct Spent {
    requester: Duration,
    responder: Duration,
    operations: usize,
}

impl Spent {
    pub(crate) fn add(
        &mut self,
        before: Option<(Duration, Duration)>,
        after: Option<(Duration, Duration)>,
        operations: usize,
    ) {
        let (Some(before), Some(after)) = (before, after) else { return };
        self.requester += after.0.saturating_sub(before.0);
        self.responder += after.1.saturating_sub(before.1);
        self.operations += operations;
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of operations")]
    pub(crate) fn per_operation(&self) -> Option<Cpu> {
        let per = |span: Duration| span.as_secs_f64() * 1e6 / self.operations as f64;
        let counted = self.operations > 0;
        counted.then(|| Cpu { requester: per(self.requester), responder: per(self.responder) })
    }
}

/// One bare request in a process of its own: the floor of `jmp-bus call`. Called before anything
/// else of the program runs.
///
/// # Errors
///
/// A broker that cannot be reached, or nobody who answers.
pub fn bare_call(server: &str, token: Option<String>, subject: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let auth = token
            .map_or(runtime::Auth::None, |token| runtime::Auth::Token(runtime::Secret::new(token)));
        let settings = Settings { servers: vec![server.to_owned()], auth, ..Settings::default() };
        let bare = Bare::connect(&settings).await?;
        let answer = bare.request(subject.to_owned(), "hello".into()).await?;
        anyhow::ensure!(answer == "hello", "another answer came back");
        Ok(())
    })
}

/// A whole `jmp-bus call` beside a whole bare client process.
pub(crate) async fn cli_call(sides: &Sides) -> anyhow::Result<Row> {
    const RUNS: usize = 20;
    let bench = &sides.bench;
    let program = &bench.program[0];
    let run = |args: Vec<String>| async move {
        let mut spans = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let began = Instant::now();
            let done = Command::new(program)
                .args(&args)
                .envs(bench.environment.iter().cloned())
                .stdin(Stdio::null())
                .output()
                .await?;
            spans.push(began.elapsed());
            let said = String::from_utf8_lossy(&done.stderr);
            anyhow::ensure!(done.status.success(), "{args:?} failed: {said}");
        }
        Ok(Round { figure: median_us(spans) / 1000.0, operations: RUNS })
    };
    let floor = || run(vec!["__bare-call".to_owned(), super::peer::echo_subject(&bench.root)]);
    let root = bench.root.to_string();
    let bus = || {
        let args = ["call", "--root", &root, "bench-bus", "echo_text", "hello"];
        run(args.map(str::to_owned).to_vec())
    };
    let meter = Meter { responder: &sides.bus_peer, requester: Requester::Children };
    measure(sides, meter, "cli_call", "ms", Target::AtMost(2.0), floor, bus).await
}
