//! Streams and streaming calls: bounds, ends and resets.

use std::time::Duration;

use bus_schema::{DriverId, FaultKind, limits::WINDOW_BYTES_MAX};
use bus_tests::{Lab, TestDriverClient};
use futures_util::FutureExt as _;
use runtime::{ByteStream, CallError, ExporterError, Node};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use crate::calls::bench;

const GRACE: Duration = Duration::from_secs(10);

/// What a writer may be ahead of a reader that stands still: the window, and a few chunks at the
/// writer's side.
const AHEAD_MAX: usize = WINDOW_BYTES_MAX + 8 * (64 << 10);

#[tokio::test]
async fn a_writer_stops_when_its_reader_does() -> anyhow::Result<()> {
    let (lab, driver, exporter, bench) = bench().await?;
    let mut stream = bench.stall().await?;
    let chunk = vec![0; 64 << 10];
    let mut pushed = 0;
    // Stopped means: other streams of the same process move a megabyte, and this one nothing.
    loop {
        let before = pushed;
        while let Some(written) = stream.write(&chunk).now_or_never() {
            pushed += written?;
        }
        move_a_megabyte(&bench).await?;
        assert!(pushed <= AHEAD_MAX, "{pushed} bytes wait for a reader that reads nothing");
        if pushed == before {
            break;
        }
    }
    assert!(pushed > 0);
    driver.release.add_permits(1);
    drop((stream, lab));
    exporter.shutdown(GRACE).await?;
    Ok(())
}

async fn move_a_megabyte(bench: &TestDriverClient<runtime::DriverRef>) -> anyhow::Result<()> {
    let mut stream = bench.measure().await?;
    stream.write_all(&vec![1; 1 << 20]).await?;
    stream.shutdown().await?;
    anyhow::ensure!(stream.read_u64().await? == 1 << 20, "all of it was counted");
    Ok(())
}

#[tokio::test]
async fn a_fast_producer_waits_for_a_slow_consumer() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let item = 10_000;
    let mut flood = bench.flood(item).await?;
    assert_eq!(flood.next().await.expect("it has no end")?.len(), item as usize);
    loop {
        let before = driver.events.all().len();
        move_a_megabyte(&bench).await?;
        let made = driver.events.all().len();
        assert!(made * item as usize <= 2 * AHEAD_MAX, "{made} items wait for nobody");
        if made == before {
            break;
        }
    }
    for _ in 0..2000 {
        assert_eq!(flood.next().await.expect("it has no end")?.len(), item as usize);
    }
    drop(flood);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn one_half_closes_and_the_other_goes_on() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let mut stream = bench.measure().await?;
    stream.write_all(&vec![1; 300_000]).await?;
    stream.shutdown().await?;
    assert_eq!(stream.read_u64().await?, 300_000);
    assert_eq!(stream.read(&mut [0]).await?, 0, "and then the end");
    assert!(stream.write_all(b"x").await.is_err(), "nothing is written after an end");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_driver_ends_its_half_and_hears_the_other_to_its_end() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let mut stream = bench.hear_out().await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    assert_eq!(said, b"bye");
    // More than any first credit: the half that is open goes on getting it.
    stream.write_all(&vec![1; 3 << 20]).await?;
    stream.shutdown().await?;
    driver.events.happened(&format!("heard {}", 3 << 20)).await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_reset_is_no_end_at_either_side() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    // By the client, with a reason.
    let mut stream = bench.measure().await?;
    stream.write_all(b"half of it").await?;
    stream.flush().await?;
    stream.reset("changed my mind");
    driver.events.happened("broken: the stream was reset (cancelled): changed my mind").await;
    // By the client, which just drops it.
    let mut stream = bench.measure().await?;
    stream.write_all(b"half of it").await?;
    drop(stream);
    driver
        .events
        .happened("broken: the stream was reset (cancelled): dropped before its end")
        .await;
    // By the driver, whose method fails.
    let mut stream = bench.break_off().await?;
    driver.release.add_permits(1);
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(error.to_string().contains("the cable is out"), "{error}");
    // A method that ends well ends its side, read or not.
    let mut stream = bench.stall().await?;
    driver.release.add_permits(1);
    assert_eq!(stream.read(&mut [0]).await?, 0);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_stalled_reader_among_two_hundred_streams_stalls_only_its_own() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let mut stalled = bench.stall().await?;
    while stalled.write(&[0; 65_536]).now_or_never().transpose()?.is_some() {}
    let mut flood = bench.flood(10_000).await?; // and a reader at our side that reads nothing
    let mut streams = JoinSet::new();
    for number in 0..200_u8 {
        let bench = bench.clone();
        streams.spawn(async move {
            let mut stream = bench.reflect().await?;
            let body = vec![number; 100_000];
            let mut back = vec![0; body.len()];
            for _ in 0..2 {
                let (mut read, mut write) = tokio::io::split(&mut stream);
                tokio::try_join!(write.write_all(&body), read.read_exact(&mut back))?;
                anyhow::ensure!(back == body, "stream {number} gave back something else");
            }
            stream.shutdown().await?;
            anyhow::ensure!(stream.read(&mut [0]).await? == 0);
            Ok(())
        });
    }
    while let Some(ended) = streams.join_next().await {
        ended??;
    }
    assert_eq!(flood.next().await.expect("it has no end")?.len(), 10_000);
    driver.release.add_permits(1);
    drop((stalled, flood));
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn items_of_every_size_arrive_once_and_in_order() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let mut numbers = bench.numbers(20_000).await?;
    for number in 0..20_000 {
        assert_eq!(numbers.next().await.expect("not the end")?, number);
    }
    assert!(numbers.next().await.is_none());
    for bytes in [0, 1, 255, 256, 65_536, 1 << 20] {
        let mut flood = bench.flood(bytes).await?;
        for _ in 0..3 {
            assert_eq!(flood.next().await.expect("it has no end")?.len(), bytes as usize);
        }
    }
    let mut flood = bench.flood((8 << 20) + 1).await?;
    let too_large = flood.next().await.expect("an end").unwrap_err();
    let CallError::Fault { fault, .. } = &too_large else { panic!("{too_large}") };
    assert_eq!(fault.kind, FaultKind::TooLarge, "{fault}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_streaming_call_ends_its_method() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let mut flood = bench.flood(1000).await?;
    flood.next().await.expect("it has no end")?;
    drop(flood);
    // Its method ends, so the exporter has nothing left to wait for.
    exporter.shutdown(GRACE).await?;
    assert!(driver.events.all().contains(&"item".to_owned()));
    Ok(())
}

#[tokio::test]
async fn what_does_not_fit_the_registry_is_told_at_the_start() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let described = Node { description: "x".repeat(2 << 20), ..Node::of("test", lab.driver()) };
    let refused = lab.serve(described).await.unwrap_err();
    assert!(refused.to_string().contains("labels and descriptions make a record"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn two_drivers_of_one_uuid_are_refused_at_the_start() -> anyhow::Result<()> {
    let lab = bus_tests::Lab::new().await?;
    let pinned = |node: Node| match node.role {
        runtime::Role::Driver { kind, factory, turn, .. } => {
            let id: DriverId = uuid::Uuid::from_u128(7).into();
            Node { role: runtime::Role::Driver { kind, factory, id: Some(id), turn }, ..node }
        }
        runtime::Role::Alias(_) => node,
    };
    let twin = || pinned(Node::of("test", lab.driver()));
    let tree = Node::of("test", lab.driver()).with_child("one", twin()).with_child("two", twin());
    let error = lab.serve(tree).await.unwrap_err();
    let Some(ExporterError::SameId { first, second, .. }) = error.downcast_ref() else {
        panic!("{error}")
    };
    assert_eq!((first.as_str(), second.as_str()), ("bench/one", "bench/two"));
    let client = lab.client("alice").await?;
    let gone = lab.bench(&client).count().await.unwrap_err();
    assert!(matches!(gone, CallError::NoDriver { .. }), "{gone}");
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_detached_streaming_call_is_read_by_its_own_caller_however_fast_it_is()
-> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let args = rmp_serde::to_vec(&(400_000_u64,))?.into();
    let form = bus_schema::message::Form::Typed;
    let mut started = bench.invoke().start("numbers", form, args, None, true).await?;
    for number in 0..400_000_u64 {
        let item = started.items.next().await.expect("not the end")?;
        assert_eq!(rmp_serde::from_slice::<u64>(&item)?, number);
    }
    assert!(started.items.next().await.is_none());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_detached_streaming_call_goes_on_when_its_caller_has_left() -> anyhow::Result<()> {
    let (lab, _, exporter, bench) = bench().await?;
    let args = rmp_serde::to_vec(&(400_000_u64,))?.into();
    let form = bus_schema::message::Form::Typed;
    let mut started = bench.invoke().start("numbers", form, args, None, true).await?;
    started.items.next().await.expect("not the end")?;
    let id = started.id;
    drop(started);
    let mut late = lab.client("bob").await?.attach(&"alice".parse()?, id, true).await?;
    for number in 0..400_000_u64 {
        let item = late.next().await.expect("not the end")?;
        assert_eq!(rmp_serde::from_slice::<u64>(&item)?, number);
    }
    assert!(late.next().await.is_none());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// Writes until nothing more is taken for a while, and says how much was.
async fn fill(stream: &mut ByteStream) -> anyhow::Result<u64> {
    let chunk = [0; 65_536];
    let mut taken = 0;
    while let Ok(wrote) =
        tokio::time::timeout(Duration::from_millis(500), stream.write(&chunk)).await
    {
        taken += wrote? as u64;
    }
    Ok(taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_on_both_sides_cost_an_exporter_little_memory() -> anyhow::Result<()> {
    const STREAMS: usize = 16;
    /// Credit of one connection, and what a pipe may hold besides.
    const MORE_MAX: u64 = 96 << 20;
    let lab = Lab::new().await?;
    let exporter = lab.spawn(env!("CARGO_BIN_EXE_test-exporter")).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    bench.echo(vec![0; 1 << 19].into()).await?;
    let before = exporter.resident_bytes()?;
    let (mut poured, mut filled) = (Vec::new(), Vec::new());
    for _ in 0..STREAMS {
        let mut stream = bench.pour().await?;
        assert_eq!(stream.read_u8().await?, 3);
        poured.push(stream); // and is not read any more
        let mut stream = bench.stall().await?;
        filled.push(stream.write(&[0; 65_536]).await? as u64);
        poured.push(stream);
    }
    let filled = Box::pin(fill(&mut poured[1])).await? + filled.iter().sum::<u64>();
    assert!(filled < MORE_MAX, "{filled} bytes were taken from one who is not read");
    let more = exporter.resident_bytes()?.saturating_sub(before);
    assert!(more < MORE_MAX, "the exporter grew by {more} bytes");
    // Those that are not read hold up nobody: one of them flows as soon as it is read.
    let mut read = (&mut poured[0]).take(64 << 20);
    assert_eq!(tokio::io::copy(&mut read, &mut tokio::io::sink()).await?, 64 << 20);
    let more = exporter.resident_bytes()?.saturating_sub(before);
    assert!(more < MORE_MAX, "the exporter grew by {more} bytes");
    drop(poured);
    client.close().await;
    exporter.kill().await?;
    Ok(())
}
