//! A root of its own on a broker, and what is connected to it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use bus_schema::{Address, Root};
use runtime::{Client, Exporter, ExporterConfig, LocalBroker, Node, Settings};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{Peer, TestDriver, TestDriverClient};

/// A root of its own on a broker.
#[derive(Debug)]
pub struct Lab {
    /// How to reach the broker.
    pub settings: Settings,
    /// The first token of all subjects.
    pub root: Root,
    /// Where the drivers of this lab write.
    pub dir: TempDir,
    /// The token, where there is one to be given to another process.
    token_file: PathBuf,
}

impl Lab {
    /// A lab on the broker that all tests of the process share.
    pub async fn new() -> anyhow::Result<Self> {
        Self::on(LocalBroker::shared().await?).await
    }

    /// A lab on this broker.
    pub async fn on(broker: &LocalBroker) -> anyhow::Result<Self> {
        let root: Root =
            format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..15]).parse()?;
        let settings = broker.connect_settings();
        settings.make_streams(&root).await?;
        let dir = tempfile::tempdir()?;
        Ok(Self { settings, root, dir, token_file: broker.token_file() })
    }

    /// A test driver that counts in this lab's file.
    pub fn driver(&self) -> TestDriver {
        TestDriver::new(self.dir.path().join("count"))
    }

    /// The ids that `count` was executed for.
    pub fn counted(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("count")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// An exporter `bench` in this process.
    pub async fn serve(&self, node: impl Into<Node>) -> anyhow::Result<Exporter> {
        let config = ExporterConfig {
            root: self.root.clone(),
            ..ExporterConfig::new("bench".parse()?, node.into())
        };
        Ok(Exporter::start(config, self.settings.clone()).await?)
    }

    /// An exporter `name` in this process, leased by these rules.
    pub async fn lend(
        &self,
        name: &str,
        node: impl Into<Node>,
        rules: impl FnOnce(&mut ExporterConfig),
    ) -> anyhow::Result<Exporter> {
        let mut config = ExporterConfig {
            root: self.root.clone(),
            state_dir: Some(self.dir.path().join(name)),
            ..ExporterConfig::new(name.parse()?, node.into())
        };
        rules(&mut config);
        Ok(Exporter::start(config, self.settings.clone()).await?)
    }

    /// An exporter `bench` in a process of its own, with a test driver.
    pub async fn spawn(&self, program: &str) -> anyhow::Result<ExporterProcess> {
        ExporterProcess::start(program, self, "bench", self.dir.path(), None).await
    }

    /// An exporter `name` in a process of its own, in a directory of its own. Its leases end when
    /// their holders are silent for `keep_alive`.
    pub async fn spawn_board(
        &self,
        program: &str,
        name: &str,
        keep_alive: Duration,
    ) -> anyhow::Result<ExporterProcess> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir)?;
        ExporterProcess::start(program, self, name, &dir, Some(keep_alive)).await
    }

    /// A client `name` in a process of its own.
    pub fn spawn_client(&self, program: &str, name: &str, boards: &str) -> anyhow::Result<Child> {
        let mut command = Command::new(program);
        command.args([&self.settings.servers[0], &self.token()?, self.root.as_str(), name, boards]);
        Ok(command.kill_on_drop(true).spawn()?)
    }

    /// A client.
    pub async fn client(&self, name: &str) -> anyhow::Result<Client> {
        Ok(Client::connect(self.settings.clone(), self.root.clone(), name.parse()?).await?)
    }

    /// The test driver of `bench` as `client` sees it.
    pub fn bench(&self, client: &Client) -> TestDriverClient<runtime::DriverRef> {
        TestDriverClient::new(client.driver(&self.address()))
    }

    /// Where the test driver is.
    pub fn address(&self) -> Address {
        "bench".parse().expect("an address")
    }

    /// A plain NATS client, which may say anything.
    pub async fn peer(&self) -> anyhow::Result<Peer> {
        Peer::connect(self).await
    }

    /// The broker's token.
    pub fn token(&self) -> anyhow::Result<String> {
        token(&self.token_file)
    }
}

fn token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)?;
    Ok(text.split('"').nth(1).context("token: \"…\"")?.to_owned())
}

/// An exporter in a process of its own.
#[derive(Debug)]
pub struct ExporterProcess(Child);

impl ExporterProcess {
    async fn start(
        program: &str,
        lab: &Lab,
        name: &str,
        dir: &Path,
        keep_alive: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args([&lab.settings.servers[0], &lab.token()?, lab.root.as_str(), name])
            .arg(dir)
            .args(keep_alive.map(|time| time.as_millis().to_string()))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("it is piped")?;
        let up = BufReader::new(stdout).lines().next_line().await?;
        anyhow::ensure!(up.as_deref() == Some("up"), "the exporter says {up:?}");
        Ok(Self(child))
    }

    /// Its memory that is in use, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let pid = self.0.id().context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Its process.
    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }

    /// Kills it as `kill -9` does, and returns when it is gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.0.kill().await?)
    }
}
