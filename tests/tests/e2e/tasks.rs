//! Every task ends with its owner: what is left is counted by the runtime itself.

use std::time::Duration;

use bus_tests::{Lab, TestDriver, TestDriverClient};
use bytes::Bytes;
use runtime::{Client, DriverRef, Exporter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Handle,
    task::{JoinSet, yield_now},
    time::timeout,
};

const GRACE: Duration = Duration::from_secs(10);

type Bench = TestDriverClient<DriverRef>;

/// Tasks of this test's own runtime. The test itself is none.
fn alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until no task is left but so many: connections take a moment to hear that they are not
/// wanted any more.
async fn settled(left: usize) {
    let settled = async {
        while alive() > left {
            yield_now().await;
        }
    };
    let within = timeout(GRACE, settled).await;
    assert!(within.is_ok(), "{} tasks are left, not {left}", alive());
}

/// Everything that ends well, badly, by a cancel, or not at all.
async fn all_kinds(bench: &Bench, driver: &TestDriver, round: u32) -> anyhow::Result<()> {
    bench.echo(Bytes::from_static(b"hi")).await?;
    bench.echo(vec![7; 3 << 20].into()).await?; // in parts, both ways
    assert!(bench.fail().await.is_err());
    let late = timeout(Duration::from_millis(50), bench.hold("late".to_owned())).await;
    assert!(late.is_err(), "{late:?}");

    let mut dropped = JoinSet::new();
    for number in 0..20 {
        let (bench, name) = (bench.clone(), format!("{round}/{number}"));
        let begun = format!("begin {name}");
        dropped.spawn(async move { bench.hold_beside(name).await });
        driver.events.happened(&begun).await;
    }
    dropped.shutdown().await;

    let mut numbers = bench.numbers(1_000).await?;
    while let Some(number) = numbers.next().await {
        number?;
    }
    let mut flood = bench.flood(1_000).await?;
    flood.next().await.expect("it has no end")?;
    drop(flood);

    let mut echoed = bench.reflect().await?;
    echoed.write_all(b"there and back").await?;
    echoed.shutdown().await?;
    let mut back = Vec::new();
    echoed.read_to_end(&mut back).await?;
    assert_eq!(back, b"there and back");
    drop(bench.stall().await?);
    drop((echoed, bench.reflect().await?));
    assert!(bench.explode().await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_exporter_and_a_client_leave_no_task_behind() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    settled(0).await;
    let driver = lab.driver();
    let exporter = lab.serve(driver.clone()).await?;
    let client = lab.client("alice").await?;
    all_kinds(&lab.bench(&client), &driver, 0).await?;
    exporter.shutdown(GRACE).await?;
    client.close().await;
    settled(0).await;
    Ok(())
}

#[tokio::test]
async fn operations_that_have_ended_leave_none_while_their_owners_live() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let driver = lab.driver();
    let exporter = lab.serve(driver.clone()).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    all_kinds(&bench, &driver, 0).await?; // and what is opened with the first of them
    bench_is_back(&bench).await;
    let usual = alive();
    // A stream answers late acks for a while after its end, so this is not at once.
    for round in 1..=2 {
        all_kinds(&bench, &driver, round).await?;
        bench_is_back(&bench).await;
    }
    settled(usual).await;
    exporter.shutdown(GRACE).await?;
    client.close().await;
    settled(0).await;
    Ok(())
}

/// Waits until the driver has been restarted.
async fn bench_is_back(bench: &Bench) {
    while bench.echo(Bytes::new()).await.is_err() {
        yield_now().await;
    }
}

#[tokio::test]
async fn who_is_dropped_in_the_middle_leaves_no_task_either() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    settled(0).await;
    let driver = lab.driver();
    let exporter: Exporter = lab.serve(driver.clone()).await?;
    let client: Client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    let mut call = Box::pin(bench.hold("in the middle".to_owned()));
    tokio::select! {
        ended = &mut call => anyhow::bail!("{ended:?}"),
        () = driver.events.happened("begin in the middle") => {}
    }
    let flood = bench.flood(1_000).await?;
    let stream = bench.reflect().await?;
    drop(call);
    drop((flood, stream, bench, client));
    drop(exporter);
    settled(0).await;
    Ok(())
}

#[tokio::test]
async fn a_client_whose_exporter_was_killed_leaves_no_task_behind() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    settled(0).await;
    let exporter = lab.spawn(env!("CARGO_BIN_EXE_test-exporter")).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    let mut stream = bench.reflect().await?;
    let mut flood = bench.flood(1_000).await?;
    flood.next().await.expect("it has no end")?;
    exporter.kill().await?;
    bench.echo(Bytes::new()).await.unwrap_err();
    stream.write_all(b"to nobody").await?;
    drop((stream, flood, bench));
    client.close().await;
    settled(0).await;
    Ok(())
}
