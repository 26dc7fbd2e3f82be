//! A power switch that starts and stops a command: that of a virtual board.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{Describe, Fault, Serve, driver};
use runtime::{Context, Factory, Items, Node};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt as _,
    process::{ChildStderr, Command},
    sync::{Mutex, watch},
    time::{interval, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::Instrument as _;

use super::{
    Power, PowerInterface, PowerReading, READ_EVERY_MIN, read_every,
    terminal::{Master, Terminal, TerminalConsole},
};
use crate::CaptureConfig;
use crate::process::{self, Group, LAST_WORDS, how, not_started};

/// What is kept of what the command wrote to its standard error: its last words.
const WORDS_BYTES_MAX: usize = 2 << 10;

/// A power switch that starts and stops a command on the exporter's host.
#[derive(Debug)]
pub struct ProcessPower {
    config: ProcessPowerConfig,
    terminal: Option<Arc<Terminal>>,
    running: Mutex<Option<Running>>,
    status: watch::Sender<ProcessStatus>,
    tasks: TaskTracker,
}

/// The configuration of a [`ProcessPower`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct ProcessPowerConfig {
    /// What runs while the device is on: program and arguments. It is to stay in the foreground.
    pub command: Vec<String>,
    /// Directory that it runs in.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Variables for its environment, in addition to that of the exporter.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long it has to end when it is switched off, before it is killed.
    #[serde(default = "stop_grace")]
    pub stop_grace: Duration,
    /// Whether it gets a terminal, which is then the child `console`.
    #[serde(default)]
    pub pty: bool,
    /// What is kept of what that console says.
    #[serde(default)]
    pub capture: CaptureConfig,
    /// How often `read` tells what the command uses.
    #[serde(default = "read_every")]
    pub read_every: Duration,
}

fn stop_grace() -> Duration {
    Duration::from_secs(5)
}

/// Whether the command of a [`ProcessPower`] runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Describe)]
pub struct ProcessStatus {
    /// Whether it runs now.
    pub running: bool,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// How it ended the last time, if it was not switched off: it crashed, or was done.
    pub died: Option<String>,
}

/// A command that runs.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    keeper: AbortOnDropHandle<()>,
}

impl ProcessPower {
    /// One whose command does not run yet. With `pty` in the configuration it has a terminal,
    /// but no console: see [`node`](Self::node).
    ///
    /// # Errors
    ///
    /// A fault if the command is an empty list.
    pub fn new(config: ProcessPowerConfig) -> Result<Self, Fault> {
        let terminal = config.pty.then(Arc::default);
        Self::on_terminal(config, terminal)
    }

    fn on_terminal(
        config: ProcessPowerConfig,
        terminal: Option<Arc<Terminal>>,
    ) -> Result<Self, Fault> {
        process::command(&config.command)?;
        config.capture.check().map_err(Fault::argument)?;
        Ok(Self {
            config,
            terminal,
            running: Mutex::default(),
            status: watch::Sender::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// The driver and, if it has a terminal, its child `console`.
    pub fn node(config: ProcessPowerConfig) -> Node {
        let terminal: Option<Arc<Terminal>> = config.pty.then(Arc::default);
        let capture = config.capture.clone();
        let console = terminal.clone().map(|terminal| {
            let factory: Factory = Arc::new(move || {
                let (terminal, capture) = (terminal.clone(), capture.clone());
                Box::pin(async move {
                    let console = TerminalConsole::start(&terminal, &capture).await?;
                    Ok(Arc::new(console) as Arc<dyn Serve>)
                })
            });
            Node::new("process-console", factory)
        });
        let factory: Factory = Arc::new(move || {
            let made = Self::on_terminal(config.clone(), terminal.clone());
            Box::pin(async move { Ok(Arc::new(made?) as Arc<dyn Serve>) })
        });
        let node = Node::new("process-power", factory);
        match console {
            Some(console) => node.with_child("console", console),
            None => node,
        }
    }

    fn start(&self) -> Result<Running, Fault> {
        let words = &self.config.command;
        let on_terminal = ["setsid", "--ctty", "--"].map(str::to_owned);
        let mut command = match &self.terminal {
            None => process::command(words)?,
            Some(_) => process::command(&[&on_terminal[..], &words[..]].concat())?,
        };
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        if self.terminal.is_some() {
            command.env("TERM", "vt100"); // that of the exporter, if any, is another terminal's
        }
        command.envs(&self.config.env);
        let started = self.spawn(command).map_err(|error| not_started(&words.join(" "), &error))?;
        let pid = started.group.id();
        self.status.send_replace(ProcessStatus { running: true, pid, died: None });
        let stop = CancellationToken::new();
        let keeper = keep(started, stop.clone(), self.config.stop_grace, self.status.clone());
        Ok(Running {
            stop,
            keeper: AbortOnDropHandle::new(self.tasks.spawn(keeper.in_current_span())),
        })
    }

    fn spawn(&self, mut command: Command) -> std::io::Result<Started> {
        let Some(terminal) = self.terminal.clone() else {
            let group = Group::spawn(command.stderr(Stdio::piped()))?;
            return Ok(Started { group, console: None });
        };
        let master = terminal.attach(&mut command)?;
        let group = Group::spawn_session(&mut command);
        if group.is_err() {
            terminal.detach(&master);
        }
        // With the command go the exporter's own copies of the board's side.
        Ok(Started { group: group?, console: Some((terminal, master)) })
    }

    async fn switch_off(&self) -> Result<(), Fault> {
        let mut running = self.running.lock().await;
        let Some(Running { stop, keeper }) = &mut *running else { return Ok(()) };
        stop.cancel();
        let ended = keeper.await;
        *running = None;
        ended.map_err(|error| Fault::device(format_args!("its keeper failed: {error}")))
    }
}

/// A command that was just started.
struct Started {
    group: Group,
    console: Option<(Arc<Terminal>, Arc<Master>)>,
}

/// Stays with a command until it ends, or has to.
async fn keep(
    started: Started,
    stop: CancellationToken,
    grace: Duration,
    status: watch::Sender<ProcessStatus>,
) {
    let Started { mut group, console } = started;
    let words = Mutex::default();
    let stderr = group.child().stderr.take();
    let listen = async {
        match &console {
            Some((_, master)) => master.read_to_end().await,
            None => last_words(stderr, &words).await,
        }
    };
    let mut listen = std::pin::pin!(listen);
    let ended = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                let _ = group.stop(grace).await;
                None
            }
            status = group.wait() => Some(status),
        }
    };
    let mut ended = std::pin::pin!(ended);
    let died = tokio::select! {
        died = &mut ended => {
            let _ = timeout(LAST_WORDS, &mut listen).await;
            died
        }
        () = &mut listen => ended.await,
    };
    if let Some((terminal, master)) = &console {
        terminal.detach(master);
    }
    let words = words.lock().await.clone();
    let died = died.map(|status| obituary(status, &words));
    if let Some(died) = &died {
        tracing::warn!(died, "process ended without being switched off");
    }
    status.send_replace(ProcessStatus { running: false, pid: None, died });
}

fn obituary(status: std::io::Result<ExitStatus>, words: &[u8]) -> String {
    let how = status.map_or_else(|error| error.to_string(), how);
    match String::from_utf8_lossy(words).trim() {
        "" => how,
        words => format!("{how}: {words}"),
    }
}

/// Reads to the end, and keeps the end.
async fn last_words(stderr: Option<ChildStderr>, words: &Mutex<Vec<u8>>) {
    let Some(mut stderr) = stderr else { return };
    let mut buf = vec![0; WORDS_BYTES_MAX];
    while let Ok(read @ 1..) = stderr.read(&mut buf).await {
        let mut words = words.lock().await;
        words.extend_from_slice(&buf[..read]);
        let over = words.len().saturating_sub(WORDS_BYTES_MAX);
        words.drain(..over);
    }
}

impl Power for ProcessPower {
    async fn on(&self) -> Result<(), Fault> {
        let mut running = self.running.lock().await;
        if running.as_ref().is_none_or(|running| running.keeper.is_finished()) {
            *running = Some(self.start()?);
        }
        Ok(())
    }

    async fn off(&self) -> Result<(), Fault> {
        self.switch_off().await
    }

    /// There is no meter: 1 V while the command runs, and 1 A for each processor that it keeps
    /// busy. A change is told at once.
    async fn read(&self, cx: &Context, items: Items<PowerReading>) -> Result<(), Fault> {
        let mut status = self.status.subscribe();
        let mut tick = interval(self.config.read_every.max(READ_EVERY_MIN));
        tick.tick().await;
        let mut meter = Meter::default();
        loop {
            let pid = status.borrow_and_update().pid;
            items.send(meter.read(pid)).await?;
            tokio::select! {
                biased;
                () = cx.cancelled() => return Ok(()),
                _ = status.changed() => {} // the sender lives as long as the driver
                _ = tick.tick() => {}
            }
        }
    }
}

/// What a process used between two readings.
#[derive(Default)]
struct Meter {
    last: Option<(u32, Instant, Duration)>,
}

impl Meter {
    fn read(&mut self, pid: Option<u32>) -> PowerReading {
        let used = pid.and_then(|pid| Some((pid, Instant::now(), process::processor_time(pid)?)));
        let current = match (self.last, used) {
            (Some((before, from, less)), Some((pid, to, more))) if before == pid && to > from => {
                more.saturating_sub(less).as_secs_f64() / (to - from).as_secs_f64()
            }
            _ => 0.0,
        };
        self.last = used;
        PowerReading { voltage: if pid.is_some() { 1.0 } else { 0.0 }, current }
    }
}

#[driver(Power, name = "process-power")]
impl ProcessPower {
    /// Whether the command runs, and how it ended if nobody switched it off.
    #[export]
    #[method(concurrent)]
    async fn status(&self) -> ProcessStatus {
        self.status.borrow().clone()
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.switch_off().await
    }
}
