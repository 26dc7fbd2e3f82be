//! Flashes that are interrupted, and one image for many boards.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use actors::{
    FakeFlasher, FakeFlasherConfig, FileStorage, FlasherClient, MediumConfig, StorageClient,
};
use bus_schema::FaultKind;
use bus_tests::{Lab, TakerClient};
use futures_util::future::try_join_all;
use runtime::{BrokerOptions, CallError, LocalBroker, Node, Put};

use crate::lend::{Lending, digest, noise};

const EXPORTER: &str = env!("CARGO_BIN_EXE_test-exporter");
const GRACE: Duration = Duration::from_secs(10);
const BOARDS: usize = 50;
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restarted_in_a_flash_costs_time_and_nothing_else() -> anyhow::Result<()> {
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let lending = Lending::on(Lab::on(&broker).await?).await?;
    let bytes = noise(120 * MIB, 1);
    let stored = lending.client.put(Put::new(lending.file("disk.img", &bytes)?)).await?;
    let bench = lending.bench();
    let restarting = async {
        lending.taker.events.happened("begun").await;
        broker.kill().await;
        broker.start_again().await
    };
    let (took, restarted) = tokio::join!(bench.take(&stored), restarting);
    restarted?;
    let took = took?;
    assert_eq!((took.bytes, took.sha256), (120 * MIB, digest(&bytes).to_string()));
    lending.stop().await?;
    broker.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_killed_in_a_flash_leaves_a_call_that_may_have_acted() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    let client = lab.client("alice").await?;
    let taker = TakerClient::new(client.driver(&"bench/taker".parse()?));
    let path = lab.dir.path().join("disk.img");
    let bytes = noise(64 * MIB, 2);
    std::fs::write(&path, &bytes)?;
    let stored = client.put(Put::new(&path)).await?;
    let mut items = taker.follow(&stored).await?;
    let first = items.next().await;
    assert!(matches!(first, Some(Ok(_))), "{first:?}");
    exporter.kill().await?;
    let error = loop {
        match items.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the call ended well"),
        }
    };
    assert!(error.may_have_acted(), "{error:?}");
    // The next run has it all once more, without an upload.
    let exporter = lab.spawn(EXPORTER).await?;
    let again = client.put(Put::new(&path)).await?;
    assert_eq!(again.sent, 0);
    assert_eq!(taker.take(&again).await?.sha256, digest(&bytes).to_string());
    client.close().await;
    exporter.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_reader_along() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bob = lending.lab.client("bob").await?;
    let taker = TakerClient::new(bob.driver(&lending.lab.address()));
    let begun = lending.taker.events.happened("begun");
    let endless = runtime::Lend::reader(tokio::io::repeat(1));
    tokio::select! {
        took = taker.take(endless) => panic!("it ended: {took:?}"),
        () = begun => {}
    }
    bob.close().await;
    // Its call is over, so the next one's turn comes.
    let took = lending.bench().take(runtime::Lend::bytes("next")).await?;
    assert_eq!(took.bytes, 4);
    lending.stop().await
}

/// A file system of one MiB, or none where it may not be made.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn at(dir: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "small"]).arg(dir);
        let made = mount.output().is_ok_and(|output| output.status.success());
        if !made {
            eprintln!("skipped: a file system cannot be mounted here");
        }
        made.then_some(Self(dir))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[tokio::test]
async fn no_space_on_the_exporter_is_said_as_such() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let dir = lab.dir.path().join("small");
    std::fs::create_dir(&dir)?;
    let Some(_small) = Small::at(&dir) else { return Ok(()) };
    let path = dir.join("disk");
    std::fs::write(&path, b"")?;
    let storage = FileStorage::new(MediumConfig { path: path.clone(), size: None })?;
    let exporter = lab.serve(Node::of("storage", storage)).await?;
    let client = lab.client("alice").await?;
    let storage = StorageClient::new(client.driver(&lab.address()));
    let image = lab.dir.path().join("image");
    std::fs::write(&image, noise(5 * MIB, 3))?;
    let CallError::Fault { fault, .. } = storage.write(&*image, 0, false).await.unwrap_err() else {
        panic!("no fault");
    };
    assert_eq!(fault.kind, FaultKind::Io);
    assert!(fault.text.contains("no space is left on the exporter's disk"), "{fault}");
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_boards_take_one_upload() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let mut tree = Node::of("fake-flasher", FakeFlasher::new(FakeFlasherConfig::default())?);
    for at in 0..BOARDS {
        let board = FakeFlasher::new(FakeFlasherConfig::default())?;
        tree = tree.with_child(format!("b{at}"), Node::of("fake-flasher", board));
    }
    let exporter = lab.serve(tree).await?;
    let client = lab.client("alice").await?;
    let board = |at: usize| {
        let address = format!("bench/b{at}").parse().expect("an address");
        FlasherClient::new(client.driver(&address))
    };
    let path = lab.dir.path().join("disk.img");
    let bytes = noise(12 * MIB, 4);
    std::fs::write(&path, &bytes)?;
    let began = Instant::now();
    let stored = client.put(Put::new(&path)).await?;
    let flashes = (0..BOARDS).map(|at| {
        let (board, stored) = (board(at), &stored);
        async move { board.flash(stored, None, true).await }
    });
    let written = try_join_all(flashes).await?;
    let once = (stored.sent, began.elapsed());
    let sha256 = Some(digest(&bytes).to_string());
    assert!(written.iter().all(|one| one.sha256 == sha256 && one.verified));
    assert!(once.0 < 13 * MIB, "one upload of 12 MiB sent {}", once.0);

    // Beside that: each board with an upload of its own.
    let (began, mut sent) = (Instant::now(), 0);
    for at in 0..BOARDS {
        let stored = client.put(Put { again: true, ..Put::new(&path) }).await?;
        sent += stored.sent;
        board(at).flash(&stored, None, true).await?;
    }
    let each = (sent, began.elapsed());
    assert!(each.0 >= BOARDS as u64 * 12 * MIB);
    eprintln!(
        "{BOARDS} boards, an image of 12 MiB: one upload {} MiB in {:.1?}, one each {} MiB in {:.1?}",
        once.0 / MIB,
        once.1,
        each.0 / MIB,
        each.1
    );
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}
