//! What an exporter and its drivers say is on the bus: for every reader all of it, and at no
//! cost to the exporter.

use std::time::Duration;

use bus_schema::{DriverId, Level, LogLines, LogSource, driver};
use bus_tests::Lab;
use runtime::{Client, Exporter, ExporterConfig, LocalBroker, LogTap, Node, Since, Tail};
use tokio::time::timeout;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A driver that says what it is told to.
struct Talker;

#[driver]
impl Talker {
    /// Says this many lines.
    #[export]
    async fn say(&self, what: String, lines: u64) {
        for line in 0..lines {
            tracing::info!(line, "{what}");
        }
    }
}

/// An exporter whose log is on the bus; its tasks run on the thread of the test.
async fn serve(lab: &Lab) -> anyhow::Result<(Exporter, DefaultGuard)> {
    let tap = LogTap::new();
    let subscriber = tracing_subscriber::registry().with(tap.layer(Level::Info));
    let guard = tracing::subscriber::set_default(subscriber);
    let tree = Node::of("talker", Talker).with_child("dut", Node::of("talker", Talker));
    let config = ExporterConfig {
        root: lab.root.clone(),
        log: Some(tap),
        ..ExporterConfig::new("bench".parse()?, tree)
    };
    Ok((Exporter::start(config, lab.settings.clone()).await?, guard))
}

async fn say(client: &Client, address: &str, what: &str, lines: u64) -> anyhow::Result<()> {
    let talker = TalkerClient::new(client.driver(&address.parse()?));
    Ok(talker.say(what.to_owned(), lines).await?)
}

/// Everything of one driver up to a line that ends with `last`; none is lost.
async fn hear(tail: &mut Tail<LogLines>, last: &str) -> anyhow::Result<Vec<String>> {
    let mut heard = Vec::new();
    loop {
        let said = timeout(PATIENCE, tail.next()).await??.expect("it is followed");
        assert_eq!(said.lost, 0, "{heard:?}");
        heard.extend(said.message.lines.into_iter().map(|line| line.text));
        if heard.last().is_some_and(|line| line.ends_with(last)) {
            return Ok(heard);
        }
    }
}

fn dut() -> Option<LogSource> {
    let (bench, dut) = ("bench".parse().expect("a name"), "dut".parse().expect("a path"));
    Some(LogSource::Driver(DriverId::at(&bench, &dut)))
}

#[tokio::test]
async fn two_followers_see_every_line_and_one_that_comes_late_too() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (exporter, _log) = serve(&lab).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let bench = "bench".parse()?;
    let mut first = alice.follow_logs(Some(&bench), dut(), Since::Ever).await?;
    let mut second = bob.follow_logs(Some(&bench), dut(), Since::Now).await?;
    say(&alice, "bench/dut", "hello", 1000).await?;
    say(&alice, "bench", "from the root", 1).await?;
    let expected: Vec<_> = (0..1000).map(|line| format!("hello line={line}")).collect();
    for tail in [&mut first, &mut second] {
        assert_eq!(hear(tail, "line=999").await?, expected);
    }
    let mut late = bob.follow_logs(Some(&bench), dut(), Since::Ever).await?;
    assert_eq!(hear(&mut late, "line=999").await?, expected);
    let mut all = bob.follow_logs(None, None, Since::Ever).await?;
    let mut paths = Vec::new();
    while !paths.contains(&String::new()) {
        let said = timeout(PATIENCE, all.next()).await??.expect("it is followed");
        if said.source != Some(LogSource::Exporter) {
            paths.push(said.message.path);
        }
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stands_still_slows_nobody_and_a_flood_is_cut_and_counted()
-> anyhow::Result<()> {
    const LINES: u64 = 100_000;
    let lab = Lab::new().await?;
    let (exporter, _log) = serve(&lab).await?;
    let client = lab.client("alice").await?;
    let stands_still = lab.client("bob").await?.follow_logs(None, None, Since::Ever).await?;
    let mut reader = client.follow_logs(None, dut(), Since::Ever).await?;
    // The driver says them in one go, so no more than the queue can hold gets out.
    timeout(PATIENCE, say(&client, "bench/dut", "flood", LINES)).await??;
    say(&client, "bench/dut", "after it", 1).await?;
    let (mut heard, mut lost) = (0, 0);
    loop {
        let said = timeout(PATIENCE, reader.next()).await??.expect("it is followed");
        (heard, lost) = (heard + said.message.lines.len() as u64, lost + said.lost);
        if said.message.lines.iter().any(|line| line.text == "after it line=0") {
            break;
        }
    }
    assert_eq!(heard + lost, LINES + 1, "{lost} were lost");
    assert!(lost > 0 && heard > 4096, "{heard}");
    drop(stands_still);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn lines_around_an_outage_are_there_once() -> anyhow::Result<()> {
    let mut broker = LocalBroker::start(Default::default()).await?;
    let lab = Lab::on(&broker).await?;
    let (exporter, _log) = serve(&lab).await?;
    let client = lab.client("alice").await?;
    let mut reader = client.follow_logs(None, dut(), Since::Ever).await?;
    say(&client, "bench/dut", "before", 1).await?;
    assert_eq!(hear(&mut reader, "line=0").await?, ["before line=0"]);
    broker.kill().await;
    broker.start_again().await?;
    while say(&client, "bench/dut", "after", 1).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(hear(&mut reader, "after line=0").await?.last().unwrap(), "after line=0");
    exporter.shutdown(GRACE).await?;
    broker.stop().await;
    Ok(())
}
