//! The whole normal life, on a deployment, by those whose role it is.

use std::time::Duration;

use bus_schema::{Address, driver, message::Form, permission::Role};
use bus_tests::{Deployment, TestDriver, TestDriverClient, settled};
use bytes::Bytes;
use runtime::{
    ByteStream, CallError, Client, Exporter, ExporterConfig, LeaseError, LeaseRequest, Node,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GRACE: Duration = Duration::from_secs(10);

pub(crate) async fn serve(
    deployment: &Deployment,
    name: &str,
    driver: TestDriver,
) -> anyhow::Result<Exporter> {
    let settings = deployment.settings(Role::Exporter, name)?;
    let config = ExporterConfig {
        root: deployment.root.clone(),
        ..ExporterConfig::new(name.parse()?, driver.into())
    };
    Ok(Exporter::start(config, settings).await?)
}

pub(crate) async fn client(
    deployment: &Deployment,
    role: Role,
    name: &str,
) -> anyhow::Result<Client> {
    let settings = deployment.settings(role, name)?;
    Ok(Client::connect(settings, deployment.root.clone(), name.parse()?).await?)
}

#[tokio::test]
async fn calls_streams_records_and_the_registry_work_for_whom_they_are() -> anyhow::Result<()> {
    crate::log::keep();
    let deployment = Deployment::start().await?;
    let exporter =
        serve(&deployment, "bench", TestDriver::new(deployment.dir.path().join("count"))).await?;
    for (role, name) in [(Role::Client, "alice"), (Role::Admin, "root")] {
        let client = client(&deployment, role, name).await?;
        let address: Address = "bench".parse()?;
        let bench = TestDriverClient::new(client.driver(&address));
        assert_eq!(bench.echo("hello".into()).await?, "hello");
        // Larger than a message: it travels in parts.
        let large = Bytes::from(vec![7; 3 << 20]);
        assert_eq!(bench.echo(large.clone()).await?, large);

        let driver = client.driver(&address);
        let args = rmp_serde::to_vec(&(5,))?.into();
        let mut started = driver.start("numbers", Form::Typed, args, None, false).await?;
        let mut items = 0;
        while started.items.next().await.transpose()?.is_some() {
            items += 1;
        }
        assert_eq!(items, 5);
        let mut record = client.attach(client.name(), started.id, true).await?;
        let mut replayed = 0;
        while record.next().await.transpose()?.is_some() {
            replayed += 1;
        }
        assert_eq!(replayed, 5);

        let mut stream = bench.reflect().await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        assert_eq!(heard, b"hello");

        // Somebody else's record: an observer's and an admin's to see, and no other client's.
        let eve = self::client(&deployment, Role::Observer, "eve").await?;
        eve.attach(client.name(), started.id, false).await?;
        let bob = self::client(&deployment, Role::Client, "bob").await?;
        let refused = bob.attach(client.name(), started.id, false).await.unwrap_err();
        assert!(matches!(refused, CallError::NotAllowed { .. }), "{refused}");

        let exporters = client.registry().exporters().await?;
        assert_eq!(exporters[0].exporter.as_str(), "bench");
        let tree = client.registry().tree(&exporters[0].exporter).await?;
        assert!(!client.registry().interfaces(&tree[0], &exporters[0].exporter).await?.is_empty());
        client.ping(&exporters[0].exporter, GRACE).await?;
        eve.ping(&exporters[0].exporter, GRACE).await?;
        for client in [client, eve, bob] {
            client.close().await;
        }
    }
    exporter.shutdown(GRACE).await?;
    // Nothing of this was denied but what was meant to be.
    let log = deployment.log();
    let denied: Vec<_> = log.lines().filter(|line| line.contains("Violation")).collect();
    assert!(denied.iter().all(|line| line.contains("client bob")), "{denied:#?}");
    Ok(())
}

#[tokio::test]
async fn one_name_has_one_exporter_where_permissions_are_enforced_too() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let driver = || TestDriver::new(deployment.dir.path().join("count"));
    let first = serve(&deployment, "bench", driver()).await?;
    let second = serve(&deployment, "bench", driver()).await.unwrap_err();
    assert!(second.to_string().contains("is up already"), "{second}");
    first.shutdown(GRACE).await?;
    serve(&deployment, "bench", driver()).await?.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn an_exporter_with_the_credentials_of_another_says_so_at_once() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let settings = deployment.settings(Role::Exporter, "rogue")?;
    let driver = TestDriver::new(deployment.dir.path().join("count"));
    let config = ExporterConfig::new("bench".parse()?, driver.into());
    let refused = Exporter::start(config, settings).await.unwrap_err();
    assert!(refused.to_string().contains("not allowed by the broker: bench may not"), "{refused}");
    let nats = deployment.nats(Role::Exporter, "rogue").await?;
    settled(&nats, "jmp.v1.ix.rogue.1.1".to_owned()).await?;
    Ok(())
}

/// A console that says one thing.
struct Console;

#[driver]
impl Console {
    #[export]
    #[method(observe)]
    async fn watch(&self, mut stream: ByteStream) -> std::io::Result<()> {
        stream.write_all(b"booted").await?;
        stream.shutdown().await
    }

    #[export]
    async fn connect(&self, mut stream: ByteStream) -> std::io::Result<()> {
        stream.write_all(b"login:").await
    }
}

#[tokio::test]
async fn an_observer_reads_along_at_a_console_that_somebody_has_leased() -> anyhow::Result<()> {
    let deployment = Deployment::start().await?;
    let config = ExporterConfig {
        root: deployment.root.clone(),
        ..ExporterConfig::new("bench".parse()?, Node::of("console", Console))
    };
    let exporter = Exporter::start(config, deployment.settings(Role::Exporter, "bench")?).await?;
    let alice = client(&deployment, Role::Client, "alice").await?;
    let eve = client(&deployment, Role::Observer, "eve").await?;
    let address: Address = "bench".parse()?;
    let held = alice.lease(&address, &LeaseRequest::default()).await?;
    let console = ConsoleClient::new(eve.driver(&address));
    let mut seen = Vec::new();
    console.watch().await?.read_to_end(&mut seen).await?;
    assert_eq!(seen, b"booted");
    let refused = console.connect().await.map(drop).unwrap_err();
    assert!(matches!(refused, CallError::NotAllowed { .. }), "{refused}");
    let refused = eve.lease(&address, &LeaseRequest::default()).await.unwrap_err();
    assert!(matches!(refused, LeaseError::NotAllowed(_)), "{refused}");
    held.release().await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}
