//! What of a lease outlasts what: the store of the broker, the exporter, its disk.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bus_schema::{Address, ExporterName, LeaseEnd, RefusalCode, UnitState};
use bus_tests::{Lab, TestDriverClient};
use runtime::{
    BrokerOptions, CallError, Client, ExporterConfig, ExporterError, Lease, LeaseError,
    LeaseRequest, LocalBroker, Node, OnWait,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GRACE: Duration = Duration::from_secs(10);
const EXPORTER: &str = env!("CARGO_BIN_EXE_test-exporter");

fn bench() -> Address {
    "bench".parse().expect("an address")
}

fn exporter() -> ExporterName {
    "bench".parse().expect("a name")
}

async fn lease(client: &Client) -> Result<Lease, LeaseError> {
    client.lease(&bench(), &LeaseRequest::default()).await
}

async fn waited_for(client: &Client) -> anyhow::Result<Lease> {
    let wait = Duration::from_secs(20);
    Ok(client.lease(&bench(), &LeaseRequest { wait, ..LeaseRequest::default() }).await?)
}

/// Who a call of somebody else is refused for.
async fn fenced_for(lab: &Lab, client: &Client) -> String {
    match lab.bench(client).count().await.expect_err("it is leased") {
        CallError::Refused { refusal, .. } if refusal.code == RefusalCode::NotLeased => {
            refusal.holder.map(|holder| holder.to_string()).unwrap_or_default()
        }
        other => panic!("{other}"),
    }
}

/// Waits until the registry shows what the exporter says.
async fn shown(client: &Client, state: UnitState) -> anyhow::Result<()> {
    loop {
        let boards = client.registry().boards().await.unwrap_or_default();
        let tree = client.registry().tree(&exporter()).await.unwrap_or_default();
        let board = boards.iter().find(|(name, _)| *name == exporter());
        if board.is_some_and(|(_, board)| board.units[0].state == state) && !tree.is_empty() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_a_broker_that_is_killed_and_loses_its_store() -> anyhow::Result<()> {
    let store = tempfile::tempdir()?;
    let kept = BrokerOptions { store: Some(store.path().to_owned()), ..BrokerOptions::default() };
    let mut broker = LocalBroker::start(kept).await?;
    let lab = Lab::on(&broker).await?;
    let process = lab.spawn(EXPORTER).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    shown(&bob, UnitState::Held).await?;

    broker.kill().await;
    for entry in fs::read_dir(store.path())? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }
    broker.start_again().await?;
    TestDriverClient::new(held.driver(&bench())).count().await?;
    assert_eq!(fenced_for(&lab, &bob).await, "alice", "without any stream");
    let board = bob.board(&exporter()).await?;
    assert_eq!(board.units[0].lease.as_ref().map(|lease| lease.epoch), Some(held.epoch()));
    assert!(bob.registry().boards().await.is_err(), "its store was wiped");

    lab.settings.make_streams(&lab.root).await?; // as its deployment does
    tokio::time::timeout(Duration::from_secs(20), shown(&bob, UnitState::Held)).await??;
    held.release().await?;
    waited_for(&bob).await?.release().await?;
    process.kill().await?;
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn who_waits_goes_on_waiting_when_the_exporter_is_killed_and_comes_back() -> anyhow::Result<()>
{
    let lab = Lab::new().await?;
    let process = lab.spawn(EXPORTER).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    let (told, mut waits) = tokio::sync::mpsc::channel(8);
    let request = LeaseRequest {
        wait: Duration::from_secs(60),
        on_wait: OnWait::new(move |waiting| told.try_send(waiting.clone()).expect("few")),
        ..LeaseRequest::default()
    };
    let address = bench();
    let waiting = bob.lease(&address, &request);
    let meanwhile = async {
        let first = waits.recv().await.expect("it waits");
        assert_eq!((first.before, first.holder), (0, Some("alice".parse()?)));
        process.kill().await?;
        let process = lab.spawn(EXPORTER).await?;
        while alice.board(&exporter()).await?.units[0].waiting != 1 {
            tokio::task::yield_now().await;
        }
        held.release().await?;
        anyhow::Ok(process)
    };
    let (next, process) = tokio::join!(waiting, meanwhile);
    next?.release().await?;
    process?.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_lease_is_over_at_its_deadline_even_if_nobody_is_left_to_say_so() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let process = lab.spawn(EXPORTER).await?;
    let alice = lab.client("alice").await?;
    let request =
        LeaseRequest { duration: Some(Duration::from_secs(2)), ..LeaseRequest::default() };
    let held = alice.lease(&bench(), &request).await?;
    process.kill().await?;
    let (why, text) = tokio::time::timeout(Duration::from_secs(20), held.ended()).await?;
    assert_eq!((why, text.contains("does not answer")), (LeaseEnd::Expired, true), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_expiry_is_acted_on_within_two_seconds_of_the_deadline() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let process = lab.spawn(EXPORTER).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let began = Instant::now();
    let duration = Duration::from_secs(2);
    let request =
        LeaseRequest { duration: Some(duration), detached: true, ..LeaseRequest::default() };
    let held = alice.lease(&bench(), &request).await?;
    let mut stream =
        TestDriverClient::new(alice.driver(&bench()).under(held.epoch())).reflect().await?;
    stream.write_all(b"x").await?;
    assert_eq!(stream.read_u8().await?, b'x');
    held.keep();
    let next = waited_for(&bob).await?;
    let after = began.elapsed();
    assert!((duration..duration + Duration::from_secs(2)).contains(&after), "{after:?}");
    assert!(stream.read_u8().await.is_err(), "it is cut");
    next.release().await?;
    process.kill().await?;
    Ok(())
}

#[tokio::test]
async fn an_exporter_without_a_state_directory_takes_what_its_last_record_shows_as_held()
-> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let config = |lab: &Lab| ExporterConfig {
        root: lab.root.clone(),
        ..ExporterConfig::new(exporter(), Node::of("test", lab.driver()))
    };
    let first = runtime::Exporter::start(config(&lab), lab.settings.clone()).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    let held = lease(&alice).await?;
    shown(&bob, UnitState::Held).await?;
    drop(first); // as a crash: nobody says goodbye
    let second = loop {
        match runtime::Exporter::start(config(&lab), lab.settings.clone()).await {
            Ok(second) => break second,
            Err(ExporterError::NameTaken { .. }) => tokio::task::yield_now().await,
            Err(other) => return Err(other.into()),
        }
    };
    assert_eq!(fenced_for(&lab, &bob).await, "alice");
    TestDriverClient::new(held.driver(&bench())).count().await?;
    let error = lease(&bob).await.unwrap_err();
    assert!(error.to_string().contains("leased by alice"), "{error}");
    held.release().await?;
    waited_for(&bob).await?.release().await?;
    second.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn an_exporter_whose_state_directory_cannot_be_used_does_not_start() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let file = lab.dir.path().join("file");
    fs::write(&file, "")?;
    for dir in [file.join("below"), Path::new("/proc/none").to_owned()] {
        let config = ExporterConfig {
            root: lab.root.clone(),
            state_dir: Some(dir.clone()),
            ..ExporterConfig::new(exporter(), Node::of("test", lab.driver()))
        };
        let error = runtime::Exporter::start(config, lab.settings.clone()).await.unwrap_err();
        assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    }
    let client = lab.client("alice").await?;
    assert!(matches!(lease(&client).await, Err(LeaseError::NoExporter { .. })));
    Ok(())
}

/// A program that starts the exporter with files of 512 bytes at most: to it the disk is full.
fn on_a_full_disk(lab: &Lab) -> anyhow::Result<String> {
    let file = lab.dir.path().join("full");
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -S -f 1\nexec {EXPORTER} \"$@\"\n");
    fs::write(&file, script)?;
    fs::set_permissions(&file, Permissions::from_mode(0o700))?;
    Ok(file.to_str().expect("it is text").to_owned())
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_granted_until_it_can() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let process = lab.spawn(&on_a_full_disk(&lab)?).await?;
    let (alice, bob) = (lab.client("alice").await?, lab.client("bob").await?);
    lease(&alice).await?.release().await?;
    let refusal = loop {
        match lease(&alice).await {
            Ok(held) => held.release().await?,
            Err(LeaseError::Refused { refusal, .. }) if refusal.code == RefusalCode::Failed => {
                break refusal;
            }
            Err(LeaseError::Refused { .. }) => tokio::task::yield_now().await, // made safe first
            Err(other) => return Err(other.into()),
        }
    };
    assert!(refusal.text.contains("leases.journal"), "{refusal}");
    while bob.board(&exporter()).await?.units[0].state != UnitState::Free {
        tokio::task::yield_now().await; // made safe first
    }
    lab.bench(&bob).count().await?; // nobody has it: it is not half granted

    let pid = process.id().expect("it runs").to_string();
    let space = ["--pid", &pid, "--fsize=unlimited:unlimited"];
    assert!(Command::new("prlimit").args(space).status()?.success());
    let held = loop {
        match lease(&alice).await {
            Ok(held) => break held,
            Err(LeaseError::Refused { .. }) => tokio::task::yield_now().await,
            Err(other) => return Err(other.into()),
        }
    };
    process.kill().await?;
    let process = lab.spawn(EXPORTER).await?;
    assert_eq!(fenced_for(&lab, &bob).await, "alice", "the journal is whole again");
    held.release().await?;
    process.kill().await?;
    Ok(())
}
