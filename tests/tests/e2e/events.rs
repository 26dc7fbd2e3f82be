//! What happens at an exporter is told to everybody, stored, and read by whoever wants to.

use std::time::Duration;

use bus_schema::{Event, EventKind};
use bus_tests::Lab;
use runtime::{CallError, Client, LocalBroker, Node, Said, Since, Tail};
use tokio::time::timeout;

const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

async fn next(tail: &mut Tail<Event>) -> anyhow::Result<Said<Event>> {
    Ok(timeout(PATIENCE, tail.next()).await??.expect("it is followed"))
}

/// The next event of this kind.
async fn wait_for(tail: &mut Tail<Event>, kind: EventKind) -> anyhow::Result<Event> {
    loop {
        let said = next(tail).await?;
        assert_eq!(said.lost, 0, "{said:?}");
        if said.message.kind == kind {
            return Ok(said.message);
        }
    }
}

async fn stored(client: &Client) -> anyhow::Result<Vec<EventKind>> {
    let mut tail = client.events(Some(&"bench".parse()?), Since::Ever);
    let mut kinds = Vec::new();
    while let Some(said) = timeout(PATIENCE, tail.next()).await?? {
        assert_eq!((said.message.number, said.lost), (kinds.len() as u64, 0));
        kinds.push(said.message.kind);
    }
    Ok(kinds)
}

#[tokio::test]
async fn every_reader_sees_every_event_whenever_it_comes() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let client = lab.client("alice").await?;
    let mut early = client.follow_events(None, Since::Ever).await?;
    let driver = lab.driver();
    let tree = Node::of("test", driver.clone());
    let exporter = lab.serve(Node::of("test", driver).with_child("dut", tree)).await?;
    wait_for(&mut early, EventKind::ExporterUp).await?;

    let dut = client.driver(&"bench/dut".parse()?);
    let dut = bus_tests::TestDriverClient::new(dut);
    assert!(dut.explode().await.is_err());
    let crashed = wait_for(&mut early, EventKind::DriverCrashed).await?;
    assert_eq!(crashed.path, "dut");
    assert!(crashed.reason.contains("boom"), "{crashed:?}");
    wait_for(&mut early, EventKind::DriverRestarted).await?;

    let other = lab.client("bob").await?;
    let mut late = other.follow_events(Some(exporter.name()), Since::Ever).await?;
    assert_eq!(next(&mut late).await?.message.kind, EventKind::ExporterUp);
    exporter.shutdown(GRACE).await?;
    for reader in [&mut early, &mut late] {
        wait_for(reader, EventKind::ExporterLeft).await?;
    }
    let all = [
        EventKind::ExporterUp,
        EventKind::DriverCrashed,
        EventKind::DriverRestarted,
        EventKind::ExporterDraining,
        EventKind::ExporterLeft,
    ];
    assert_eq!(stored(&client).await?, all);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_asks_for_what_is_new_gets_nothing_old() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let client = lab.client("alice").await?;
    let mut follower = client.follow_events(None, Since::Ever).await?;
    lab.serve(lab.driver()).await?.shutdown(GRACE).await?;
    wait_for(&mut follower, EventKind::ExporterLeft).await?;
    let hence = std::time::SystemTime::now() + Duration::from_secs(3600);
    assert_eq!(client.events(None, Since::Time(hence)).next().await?, None);
    let ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    assert!(client.events(None, Since::Time(ago)).next().await?.is_some());
    assert_eq!(client.events(Some(&"other".parse()?), Since::Ever).next().await?, None);
    Ok(())
}

#[tokio::test]
async fn events_of_an_outage_are_told_after_it() -> anyhow::Result<()> {
    let mut broker = LocalBroker::start(Default::default()).await?;
    let lab = Lab::on(&broker).await?;
    let client = lab.client("alice").await?;
    let mut follower = client.follow_events(None, Since::Ever).await?;
    let exporter = lab.serve(lab.driver()).await?;
    wait_for(&mut follower, EventKind::ExporterUp).await?;
    broker.kill().await;
    broker.start_again().await?;
    // Until the exporter is back, too, nobody executes it.
    while !matches!(lab.bench(&client).explode().await, Err(CallError::Fault { .. })) {
        tokio::task::yield_now().await;
    }
    wait_for(&mut follower, EventKind::DriverCrashed).await?;
    wait_for(&mut follower, EventKind::DriverRestarted).await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn what_jetstream_was_made_to_publish_is_no_event() -> anyhow::Result<()> {
    use bus_schema::{Incarnation, codec, subject::FromExporter};
    let lab = Lab::new().await?;
    let client = lab.client("alice").await?;
    let mut follower = client.follow_events(None, Since::Now).await?;
    let peer = lab.peer().await?;
    let subject = FromExporter::Event("bench".parse()?, EventKind::ExporterUp).under(&lab.root);
    let event = |number, kind| {
        codec::encode(&Event {
            kind,
            at_ms: 0,
            incarnation: Incarnation(7),
            number,
            path: String::new(),
            client: None,
            epoch: None,
            reason: String::new(),
        })
    };
    peer.send(&subject, Some("$JS.ACK.x"), None, event(0, EventKind::ExporterUp)).await?;
    peer.tell(&subject, "no event").await?;
    peer.send(&subject, None, None, event(1, EventKind::ExporterUp)).await?;
    let others = peer.mark(&subject.replace(".bench.", ".rogue."));
    peer.send(&subject, Some(&others), None, event(1, EventKind::ExporterUp)).await?;
    peer.tell(&subject, event(2, EventKind::ExporterUp)).await?;
    peer.nats.flush().await?;
    assert_eq!(next(&mut follower).await?.message.number, 2);
    Ok(())
}
