//! The same permissions on a broker without JWTs: users are nkeys in its configuration.

use std::{fs, os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio, time::Duration};

use bus_schema::{Address, Root, permission::Role};
use bus_tests::{TestDriver, TestDriverClient};
use nkeys::KeyPair;
use runtime::{
    Auth, BrokerOptions, CallError, Client, Exporter, ExporterConfig, LocalBroker, Settings,
};
use serde_json::json;
use tokio::{net::TcpStream, process::Command, time::timeout};

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

#[tokio::test]
async fn nkeys_prove_who_one_is_and_the_same_table_says_what_one_may() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let users = [
        user(dir.path(), Role::Exporter, "bench")?,
        user(dir.path(), Role::Client, "alice")?,
        user(dir.path(), Role::Observer, "eve")?,
        user(dir.path(), Role::Admin, "root")?,
    ];
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = json!({
        "listen": format!("127.0.0.1:{port}"),
        "jetstream": { "store_dir": dir.path().join("store"), "max_file_store": 64_u64 << 30 },
        "authorization": { "users": users },
    });
    let file = dir.path().join("nats-server.conf");
    fs::write(&file, config.to_string())?;
    let mut server = Command::new(LocalBroker::find(&BrokerOptions::default()).await?);
    let _broker = server.arg("-c").arg(&file).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let up = async { while TcpStream::connect(("127.0.0.1", port)).await.is_err() {} };
    timeout(GRACE, up).await?;
    let settings = |name: &str| Settings {
        servers: vec![format!("nats://127.0.0.1:{port}")],
        auth: Auth::Nkey(dir.path().join(name)),
        ..Settings::default()
    };
    let driver = TestDriver::new(dir.path().join("count"));
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
