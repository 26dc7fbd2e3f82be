//! What the demo stands on: a directory, a broker, a service, and everything that was started.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bus_schema::Root;
use runtime::{Auth, BrokerOptions, LocalBroker, ScratchDir};
use tokio::{
    process::Command,
    sync::OnceCell,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    board::Board,
    process::{PATIENCE, Process},
    service::Service,
};
use crate::advice::CliError;

/// Longest path of the directory: below it are sockets, whose paths have to be short.
const DIR_PATH_MAX: usize = 60;
/// How long all that was started may take to end.
const STRIKE_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A broker that someone has set up is none of the demo's business.
const NOT_OURS: [&str; 11] = [
    "NATS_CONTEXT",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "JMP_BUS_ROOT",
    "JMP_BUS_CLIENT",
    "STATE_DIRECTORY",
];

/// Everything that has to be gone in the end.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) board: &'static Board,
    dir: ScratchDir,
    options: BrokerOptions,
    broker: OnceCell<LocalBroker>,
    root: Root,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Stage {
    pub(crate) fn set(
        board: &'static Board,
        options: BrokerOptions,
        root: Root,
    ) -> Result<Self, CliError> {
        let dir = ScratchDir::short("demo", DIR_PATH_MAX)
            .map_err(|source| CliError::io("make a directory", source))?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { board, dir, options, broker: OnceCell::new(), root, tasks, stop })
    }

    /// The broker, started when it is asked for the first time.
    pub(crate) async fn broker(&self) -> Result<&LocalBroker, CliError> {
        let start = async || {
            let broker = Box::pin(LocalBroker::start(self.options.clone())).await?;
            Box::pin(broker.connect_settings().make_streams(&self.root)).await?;
            Ok(broker)
        };
        self.broker.get_or_try_init(start).await
    }

    pub(super) async fn service(&self) -> anyhow::Result<Service> {
        let page = format!("a page of the demo in {}\n", self.dir.path().display());
        Ok(Service::start(page, &self.tasks, self.stop.clone()).await?)
    }

    /// Writes the exporter's configuration.
    pub(super) fn configuration(&self, service: &Service) -> anyhow::Result<PathBuf> {
        let file = self.dir.path().join("exporter.yaml");
        let text = self.board.yaml.replace("port: 8080", &format!("port: {}", service.port));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Starts this program once more, to stay until it is told to stop.
    pub(super) async fn start(
        &self,
        name: &'static str,
        words: &[&str],
    ) -> anyhow::Result<Process> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", include_str!("keeper.sh"), "jmp-bus-demo"]);
        command.arg(self.dir.path().join(name).with_extension("keys"));
        command.arg(std::env::current_exe()?);
        self.equip(&mut command, words).await?;
        Process::start(name, command, &self.tasks)
    }

    /// Runs it to its end and gives what it says.
    pub(super) async fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        self.equip(&mut command, words).await?;
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.with_context(|| format!("`{}` does not end", words.join(" ")))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => bail!("`{}`: {}: {}", words.join(" "), output.status, text(&output.stderr)),
        }
    }

    async fn equip(&self, command: &mut Command, words: &[&str]) -> anyhow::Result<()> {
        let broker = self.broker().await?;
        let Auth::Token(token) = broker.connect_settings().auth else {
            bail!("a private broker asks for a token");
        };
        let dir = self.dir.path();
        command.args(words).env("NATS_URL", broker.url()).env("NATS_TOKEN", token.expose());
        command.args(["--root", self.root.as_str()]);
        for variable in NOT_OURS {
            command.env_remove(variable);
        }
        // All that they write is in the directory, which makes them easy to tell from others.
        for variable in ["TMPDIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env(variable, dir);
        }
        // Ctrl-C is for the demo alone, which stops them in their order.
        command.process_group(0).kill_on_drop(true);
        Ok(())
    }

    /// The processes that are the board.
    pub(super) fn board_processes(&self) -> Vec<u32> {
        let dir = self.dir.path();
        let is_board = |pid: &u32| is_of(*pid, dir, self.board.process);
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_board).collect()
    }

    /// Waits until no process is left that is the board.
    pub(super) async fn board_is_gone(&self) -> anyhow::Result<()> {
        let mut look = interval(LOOK_EVERY);
        let gone = async {
            while !self.board_processes().is_empty() {
                look.tick().await;
            }
        };
        let gone = timeout(PATIENCE, gone).await;
        gone.with_context(|| format!("still there: processes {:?}", self.board_processes()))
    }

    /// Ends everything, and waits for it. Processes that nobody holds any more end by themselves.
    pub(crate) async fn strike(self) -> anyhow::Result<((), String)> {
        self.stop.cancel();
        self.tasks.close();
        let ended = timeout(STRIKE_WITHIN, self.tasks.wait()).await;
        let left = self.board_processes();
        if let Some(broker) = self.broker.into_inner() {
            broker.stop().await;
        }
        let dir = self.dir.path().to_owned();
        self.dir.close().with_context(|| format!("cannot remove {}", dir.display()))?;
        ended.context("a process of the demo does not end")?;
        ensure!(left.is_empty(), "the board is still on: processes {left:?}");
        Ok(((), "no process and no file is left".to_owned()))
    }
}

/// Whether a process runs this program with the directory as its TMPDIR.
fn is_of(pid: u32, dir: &Path, program: &str) -> bool {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let ours = format!("TMPDIR={}", dir.display());
    let told = read("environ");
    read("cmdline").starts_with(program.as_bytes())
        && told.split(|byte| *byte == 0).any(|entry| entry == ours.as_bytes())
}
