//! A configuration that changes while its exporter serves.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::PowerClient;
use bus_schema::{Address, LeaseEnd, Leased, RefusalCode};
use bus_tests::Lab;
use runtime::{
    CallError, Client, Config, ConfigSource, DriverRef, Exporter, ExporterConfig, LeaseError,
    LeaseRequest,
};

const GRACE: Duration = Duration::from_secs(10);

/// A file that is edited, and the exporter that it is of.
struct Edited {
    text: Arc<Mutex<String>>,
    exporter: Exporter,
}

impl Edited {
    async fn serve(lab: &Lab, text: &str) -> anyhow::Result<Self> {
        let text = Arc::new(Mutex::new(text.to_owned()));
        let (file, root, state) = (text.clone(), lab.root.clone(), lab.dir.path().to_owned());
        let read = move || {
            let text = file.lock().expect("nobody panics with it").clone();
            let config = Config::parse(&text, "bench.yaml", &actors::kinds(), &state)
                .map_err(|errors| errors.to_string())?;
            Ok(ExporterConfig {
                root: root.clone(),
                state_dir: Some(state.clone()),
                labels: config.labels,
                leases: config.leases,
                hooks: config.hooks,
                ..ExporterConfig::new(config.name, config.root)
            })
        };
        let first = read().map_err(anyhow::Error::msg)?;
        let config = ExporterConfig { source: Some(ConfigSource::new(read)), ..first };
        Ok(Self { text, exporter: Exporter::start(config, lab.settings.clone()).await? })
    }

    fn edit(&self, old: &str, new: &str) {
        let mut text = self.text.lock().expect("nobody panics with it");
        assert!(text.contains(old), "{old} is not in {text}");
        *text = text.replace(old, new);
    }
}

const BEFORE: &str = "
metadata: {name: bench}
leases: {subtrees: [a, b]}
export:
  a: {type: fake-power, config: {read_every: 10ms}}
  b: {type: fake-power}
  c: {type: fake-power}
";

fn power(client: &Client, at: &str) -> PowerClient<DriverRef> {
    let address: Address = at.parse().expect("an address");
    PowerClient::new(client.driver(&address))
}

async fn lease(client: &Client, at: &str) -> Result<runtime::Lease, LeaseError> {
    client.lease(&at.parse().expect("an address"), &LeaseRequest::default()).await
}

#[tokio::test]
async fn what_a_new_configuration_does_not_change_goes_on_leases_and_streams_included()
-> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let bench = Edited::serve(&lab, BEFORE).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let (kept, ended) = (lease(&alice, "bench/a").await?, lease(&bob, "bench/b").await?);
    power(&alice, "bench/a").on().await?;
    let mut readings = power(&alice, "bench/a").read().await?;
    readings.next().await.expect("a reading")?;

    bench.edit("b: {type: fake-power}", "b: {type: fake-power, config: {voltage: 12.0}}");
    bench.edit("  c: {type: fake-power}", "  d: {type: fake-power}");
    let done = alice.reload(&"bench".parse()?).await?;
    assert_eq!(done, "drivers: 1 new, 1 changed, 1 gone, 2 as they were");

    for _ in 0..5 {
        let reading = readings.next().await.expect("a reading")?;
        assert!(reading.voltage > 0.0, "it was on, and is the same");
    }
    drop(readings);
    power(&alice, "bench/a").off().await?;
    kept.release().await?;
    assert_eq!(ended.ended().await.0, LeaseEnd::Withdrawn);
    power(&bob, "bench/b").on().await?;
    let reading = power(&bob, "bench/b").read().await?.next().await.expect("a reading")?;
    assert!((reading.voltage - 12.0).abs() < 0.1, "{reading:?}");
    power(&alice, "bench/d").on().await?;
    let gone = power(&alice, "bench/c").on().await.unwrap_err();
    assert!(matches!(gone, CallError::NoDriver { .. }), "{gone}");
    bench.exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_is_not_valid_changes_nothing_and_says_why() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let bench = Edited::serve(&lab, BEFORE).await?;
    let alice = lab.client("alice").await?;
    let held = lease(&alice, "bench/b").await?;
    let refused = async || match alice.reload(&"bench".parse().unwrap()).await {
        Err(LeaseError::Refused { refusal, .. }) => {
            assert_eq!(refusal.code, RefusalCode::Failed);
            refusal.text
        }
        other => panic!("{other:?}"),
    };
    bench.edit("b: {type: fake-power}", "b: {type: fake-powr}");
    let text = refused().await;
    assert!(text.contains("bench.yaml:6") && text.contains("did you mean"), "{text}");
    bench.edit("fake-powr", "fake-power");
    bench.edit("name: bench", "name: other");
    assert!(refused().await.contains("the name cannot change, from bench to other"));
    bench.edit("name: other", "name: bench");
    bench.edit("subtrees: [a, b]", "subtrees: [a, b, x]");
    assert!(refused().await.contains("there is no driver at x"));
    power(&alice, "bench/b").on().await?;
    held.release().await?;
    bench.exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn rules_and_subtrees_follow_the_configuration() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let bench = Edited::serve(&lab, BEFORE).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice, "bench/a").await?;
    // c is leased apart from now on, b no longer; and only alice may have anything.
    bench.edit("subtrees: [a, b]}", "subtrees: [a, c]}\naccess: [{clients: [alice]}]");
    bench.exporter.reload("the test").await.map_err(anyhow::Error::msg)?;
    power(&alice, "bench/a").on().await?;
    let apart = lease(&alice, "bench/c").await?;
    let unit = |lease: &runtime::Lease| match lease.stands() {
        Leased::Held(held) => held.path,
        other => panic!("{other:?}"),
    };
    assert_eq!(unit(&apart), "c".parse()?);
    let with_the_tree = lease(&alice, "bench/b").await?;
    assert!(unit(&with_the_tree).is_root());
    let error = lease(&bob, "bench/a").await.unwrap_err();
    assert!(error.to_string().contains("no rule of `access` names bob"), "{error}");
    let units = alice.board(&"bench".parse()?).await?.units;
    assert_eq!(units.len(), 3, "{units:?}");
    for lease in [held, apart, with_the_tree] {
        lease.release().await?;
    }
    // And back: what was there before has its number again.
    bench.edit("subtrees: [a, c]}\naccess: [{clients: [alice]}]", "subtrees: [a, b]}");
    bench.exporter.reload("the test").await.map_err(anyhow::Error::msg)?;
    let again = lease(&bob, "bench/b").await?;
    power(&bob, "bench/b").on().await?;
    again.release().await?;
    bench.exporter.shutdown(GRACE).await?;
    Ok(())
}
