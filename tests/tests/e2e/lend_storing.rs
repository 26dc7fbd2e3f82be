//! Files that are lent while they are being stored.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use bus_schema::FaultKind;
use bus_tests::{Brake, Lab};
use runtime::{BrokerOptions, Lend, LendError, LocalBroker, Put};

use crate::lend::{GRACE, Lending, MIB, fault, is, noise};

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_begins_with_a_file_that_is_still_being_stored() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(41 * MIB + 1, 8);
    let path = lending.file("disk.img", &bytes)?;
    let (brake, put) = Brake::at(41 * MIB + 1, &path);
    let storing = lending.client.store(put).await?;
    let bench = lending.bench();
    let begun = async {
        lending.taker.events.happened("begun").await;
        let waits = tokio::time::timeout(Duration::from_millis(50), storing.stored()).await;
        drop(brake);
        waits
    };
    let (took, waits) = tokio::join!(bench.take(&storing), begun);
    assert!(waits.is_err(), "it was stored before the driver began: {waits:?}");
    let took = took?;
    assert!(is(&took, &bytes) && took.announced == Some(41 * MIB + 1), "{took:?}");
    assert_eq!(took.name, "disk.img");
    let stored = storing.stored().await?;
    assert_eq!(lending.client.put(Put::new(&path)).await?, runtime::Stored { sent: 0, ..stored });
    // Now it is a file like any other.
    assert!(is(&bench.take(&storing).await?, &bytes));
    lending.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_all_be_stored_is_no_end_for_who_began_with_it() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let path = lending.file("disk.img", &noise(40 * MIB, 9))?;
    // It is cut off when the first block is stored, and others are still to be read.
    let file = std::fs::File::options().write(true).open(&path)?;
    let cut = move |_| file.set_len(MIB).expect("it can be cut");
    let put = Put { on_moved: Some(Arc::new(cut)), ..Put::new(&path) };
    let storing = lending.client.store(put).await?;
    let (kind, text) = fault(lending.bench().take(&storing).await.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    assert!(text.contains("could not be stored") && text.contains("has fewer"), "{text}");
    assert_eq!(lending.taker.done.load(Ordering::Relaxed), 0);
    let ended = storing.stored().await;
    assert!(matches!(ended, Err(LendError::Changed { .. })), "{ended:?}");
    assert_eq!(storing.trouble().map(|why| why.to_string()), ended.err().map(|e| e.to_string()));
    // A client that closes gives it up.
    let (brake, put) = Brake::at(MIB, &lending.file("other.img", &noise(MIB, 10))?);
    let bob = lending.lab.client("bob").await?;
    let storing = bob.store(put).await?;
    bob.close().await;
    drop(brake);
    assert!(storing.stored().await.is_err());
    lending.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_blocks_that_is_not_as_long_as_its_file_is_an_error() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let (brake, put) = Brake::at(4 * MIB, &lending.file("disk.img", &noise(4 * MIB, 11))?);
    let storing = lending.client.store(put).await?;
    let driver = lending.client.driver(&lending.lab.address());
    for (bytes, said) in [
        (Some(9 * MIB), "ends after 1 of 3"),
        (Some(0), "goes on after 0"),
        (Some(MIB + 1), "has 4194304 bytes, not 1048577"),
        (None, "has a length"),
    ] {
        let mut loan = bus_schema::Invoke::lend(&driver, Lend::from(&storing)).await?;
        assert!(matches!(loan.lent.from, bus_schema::LentFrom::Storing(_)));
        loan.lent = bus_schema::Lent { bytes, ..loan.lent };
        let word = bus_schema::Value::of(&loan.lent).context("a value")?;
        let error = driver.call_words_with("take", &[word], vec![loan]).await.unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
    }
    assert_eq!(lending.taker.done.load(Ordering::Relaxed), 0);
    drop(brake);
    lending.stop().await
}

#[tokio::test]
async fn where_there_is_nothing_to_store_files_in_it_is_said_at_once() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let path = lending.file("a", &noise(5 * MIB, 12))?;
    let peer = lending.lab.peer().await?;
    let delete = format!("$JS.API.STREAM.DELETE.{}_files", lending.lab.root);
    peer.nats.request(delete, "".into()).await?;
    for again in [false, true] {
        let put = lending.client.put(Put { again, ..Put::new(&path) });
        let ended = tokio::time::timeout(GRACE, put).await?;
        let Err(LendError::NotStored(why)) = ended else { panic!("{ended:?}") };
        assert!(why.contains("no stream for files"), "{why}");
    }
    let storing = lending.client.store(Put::new(&path)).await?;
    let (_, text) = fault(lending.bench().take(&storing).await.unwrap_err());
    assert!(text.contains("could not be stored") && text.contains("no stream for files"), "{text}");
    assert!(matches!(storing.trouble(), Some(LendError::NotStored(_))));
    lending.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_restarted_meanwhile_costs_time_and_nothing_else() -> anyhow::Result<()> {
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let lending = Lending::on(Lab::on(&broker).await?).await?;
    let bytes = noise(120 * MIB, 13);
    let storing = lending.client.store(Put::new(lending.file("disk.img", &bytes)?)).await?;
    let bench = lending.bench();
    let restarting = async {
        lending.taker.events.happened("begun").await;
        broker.kill().await;
        broker.start_again().await
    };
    let (took, restarted) = tokio::join!(bench.take(&storing), restarting);
    restarted?;
    let took = took?;
    assert!(is(&took, &bytes), "{took:?}");
    assert_eq!(storing.stored().await?.bytes, 120 * MIB);
    lending.stop().await?;
    broker.stop().await;
    Ok(())
}
