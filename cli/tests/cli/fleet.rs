//! A fleet as `jmp-bus admin` makes it: an authority, and a broker with its configuration.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use runtime::{BrokerOptions, LocalBroker};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::lab::{Ran, Running, program, run};

const PATIENCE: Duration = Duration::from_secs(30);

/// All of it. The broker ends when this is dropped.
pub(crate) struct Fleet {
    pub(crate) home: TempDir,
    pub(crate) port: u16,
    broker: Child,
}

impl Fleet {
    /// Makes one, with streams.
    pub(crate) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let port = free_port();
        let args = ["admin", "init", "--host", "localhost", "--host", "127.0.0.1", "--port"];
        run(program(&home).args(args).arg(port.to_string())).await.ok();
        let config = home.path().join(".config/jmp-bus/authority/broker/nats-server.conf");
        let fleet = Self { broker: broker(&config).await, home, port };
        fleet.admin(&["streams"]).await.ok();
        fleet
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.home.path().join(file)
    }

    /// `jmp-bus admin …`.
    pub(crate) async fn admin(&self, args: &[&str]) -> Ran {
        run(program(&self.home).current_dir(self.home.path()).arg("admin").args(args)).await
    }

    /// Makes the broker read its files anew. It takes a moment.
    pub(crate) fn reload_broker(&self) {
        let id = self.broker.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        rustix::process::kill_process(id.unwrap(), rustix::process::Signal::HUP).unwrap();
    }

    /// Gives credentials to somebody.
    pub(crate) async fn add(&self, role: &str, name: &str) {
        self.admin(&["add", role, name]).await.ok();
    }

    /// The program as somebody who has credentials.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = program(&self.home);
        let ca = self.path(".config/jmp-bus/authority/ca.pem");
        command.env("NATS_URL", format!("tls://localhost:{}", self.port)).env("NATS_CA", ca);
        command.env("NATS_CREDS", self.path(&format!("{name}.creds")));
        command.env_remove("JMP_BUS_CLIENT").current_dir(self.home.path()).args(args);
        command
    }

    pub(crate) async fn run(&self, name: &str, args: &[&str]) -> Ran {
        run(&mut self.command(name, args)).await
    }

    /// An exporter with a power switch, up.
    pub(crate) async fn serve(&self, name: &str) -> Running {
        let text = format!("metadata: {{name: {name}}}\nexport:\n  power: {{type: fake-power}}\n");
        let file = format!("{name}.yaml");
        std::fs::write(self.path(&file), text).unwrap();
        let mut serve = Running::start(&mut self.command(name, &["serve", &file]));
        assert_eq!(serve.line().await, format!("{name} is up with 2 drivers"));
        serve
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    // Below those that the system gives to connections, as one of them may be taken again before
    // the broker has it.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id().wrapping_mul(97) + step) % 12_000;
        let port = u16::try_from(port).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A broker with this configuration, ready.
async fn broker(config: &std::path::Path) -> Child {
    let server = LocalBroker::find(&BrokerOptions::default()).await.unwrap();
    let mut command = Command::new(server);
    command.arg("-c").arg(config).stderr(Stdio::piped()).kill_on_drop(true);
    let mut broker = command.spawn().unwrap();
    let mut log = BufReader::new(broker.stderr.take().unwrap()).lines();
    let ready = async {
        let mut said = String::new();
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains("Server is ready") {
                return;
            }
            said += &(line + "\n");
        }
        panic!("the broker ended: {said}");
    };
    timeout(PATIENCE, ready).await.expect("a broker in time");
    // Whoever writes a log that nobody reads stands still in the end.
    let runtime = tokio::runtime::Handle::current();
    drop(runtime.spawn(async move { while let Ok(Some(_)) = log.next_line().await {} }));
    broker
}
