//! The same permissions on a broker without JWTs: users are nkeys in its configuration.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio, time::Duration};

use anyhow::Context as _;
use bus_schema::{Address, Root, permission::Role, subject::SubjectSet};
use bus_tests::{Brake, Taker, TakerClient, TestDriver, TestDriverClient};
use nkeys::KeyPair;
use runtime::{
    Auth, BrokerOptions, CallError, Client, Exporter, ExporterConfig, LocalBroker, Node, Settings,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

const GRACE: Duration = Duration::from_secs(10);

/// Makes a user's key, whose seed is in a file; gives its entry in the configuration.
fn user(dir: &Path, role: Role, name: &str) -> anyhow::Result<serde_json::Value> {
    use std::io::Write as _;
    let key = KeyPair::new_user();
    let seed = key.seed().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(dir.join(name))?;
    writeln!(file, "{seed}")?;
    let permissions = role.permissions(&Root::default(), name).to_config();
    Ok(json!({ "nkey": key.public_key(), "permissions": permissions }))
}

/// A broker that knows these users.
struct Broker {
    dir: TempDir,
    port: u16,
    _server: Child,
}

impl Broker {
    async fn of(dir: TempDir, users: &[serde_json::Value]) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "log_file": dir.path().join("broker.log"),
            "jetstream": { "store_dir": dir.path().join("store"), "max_file_store": 64_u64 << 30 },
            "authorization": { "users": users },
        });
        let file = dir.path().join("nats-server.conf");
        fs::write(&file, config.to_string())?;
        let mut server = Command::new(LocalBroker::find(&BrokerOptions::default()).await?);
        let server =
            server.arg("-c").arg(&file).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let up = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
        timeout(GRACE, up).await?;
        Ok(Self { dir, port, _server: server })
    }

    /// How often it denied somebody to subscribe.
    fn denied(&self) -> anyhow::Result<usize> {
        let log = fs::read_to_string(self.dir.path().join("broker.log"))?;
        Ok(log.matches("Subscription Violation").count())
    }

    fn settings(&self, name: &str) -> Settings {
        Settings {
            servers: vec![format!("nats://127.0.0.1:{}", self.port)],
            auth: Auth::Nkey(self.dir.path().join(name)),
            ..Settings::default()
        }
    }
}

#[tokio::test]
async fn nkeys_prove_who_one_is_and_the_same_table_says_what_one_may() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let users = [
        user(dir.path(), Role::Exporter, "bench")?,
        user(dir.path(), Role::Client, "alice")?,
        user(dir.path(), Role::Observer, "eve")?,
        user(dir.path(), Role::Admin, "root")?,
    ];
    let broker = Broker::of(dir, &users).await?;
    let settings = |name: &str| broker.settings(name);
    let driver = TestDriver::new(broker.dir.path().join("count"));
    let config = ExporterConfig::new("bench".parse()?, driver.into());
    let exporter = Exporter::start(config, settings("bench")).await?;
    let address: Address = "bench".parse()?;
    for (name, may) in [("alice", true), ("root", true), ("eve", false)] {
        let client = Client::connect(settings(name), Root::default(), name.parse()?).await?;
        assert!(client.is_authenticated());
        let bench = TestDriverClient::new(client.driver(&address));
        match bench.echo("hello".into()).await {
            Ok(echo) => assert!(may && echo == "hello"),
            Err(CallError::NotAllowed { who, .. }) => assert!(!may && who == name),
            Err(other) => panic!("{name}: {other}"),
        }
        client.close().await;
    }
    // Whoever says to be somebody else is told by the broker, as no credentials say who they are.
    let mallory = Client::connect(settings("alice"), Root::default(), "bob".parse()?).await?;
    let denied = TestDriverClient::new(mallory.driver(&address)).echo("x".into()).await;
    let denied = denied.unwrap_err().to_string();
    assert!(denied.contains("bob may not publish"), "{denied}");
    mallory.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_may_not_listen_for_files_reads_them_all_the_same() -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let mut bench = user(dir.path(), Role::Exporter, "bench")?;
    let files = SubjectSet::FilesTo.pattern(&Root::default(), "bench");
    let may = bench["permissions"]["subscribe"]["allow"].as_array_mut().context("a list")?;
    let all = may.len();
    may.retain(|pattern| *pattern != json!(files));
    assert_eq!(may.len() + 1, all);
    let users = [bench, user(dir.path(), Role::Admin, "admin")?];
    let broker = Broker::of(dir, &users).await?;
    broker.settings("admin").make_streams(&Root::default()).await?;
    let taker = Taker::default();
    let config = ExporterConfig::new("bench".parse()?, Node::of("taker", taker.clone()));
    let exporter = Exporter::start(config, broker.settings("bench")).await?;
    let admin =
        Client::connect(broker.settings("admin"), Root::default(), "admin".parse()?).await?;
    let bench = TakerClient::new(admin.driver(&"bench".parse()?));
    let path = broker.dir.path().join("disk.img");
    let mut denied = Vec::new();
    for byte in 0..2 {
        fs::write(&path, (0..40_u32 << 20).map(|n| (n % 251) as u8 ^ byte).collect::<Vec<_>>())?;
        let (brake, put) = Brake::at(4 << 20, &path);
        let storing = admin.store(put).await?;
        let mut taking = std::pin::pin!(bench.take(&storing));
        tokio::select! {
            took = &mut taking => anyhow::bail!("it was all stored before: {took:?}"),
            () = taker.events.happened("begun") => drop(brake),
        }
        let took = taking.await?;
        assert_eq!(took.bytes, 40 << 20);
        assert_eq!(bench.take(storing.stored().await?).await?.sha256, took.sha256);
        denied.push(broker.denied()?);
    }
    // It tried, and not again.
    assert!(denied[0] > 0 && denied[0] == denied[1], "{denied:?}");
    admin.close().await;
    Ok(exporter.shutdown(GRACE).await?)
}
