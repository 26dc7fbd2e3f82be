//! Streams and streaming calls beside bare publishing.

use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Sides,
    calls::per_second,
    median_us,
    peer::{
        FLOOR_CHUNK, ITEM, PACKED, data_subject, echo_subject, produce_subject, stored_subject,
    },
    row::{Round, Row, Target, measure},
};

/// How the floor sends items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    OneEach,
    Packed,
}

/// Items of 128 bytes, stored, and verified by the follower.
pub(crate) async fn items(sides: &Sides, how: Floor) -> anyhow::Result<Row> {
    let count =
        sides.scaled(if how == Floor::OneEach { 100_000 } else { 400_000 }) / PACKED * PACKED;
    let (root, driver) = (&sides.bench.root, sides.driver()?);
    let wanted = vec![0x5a; ITEM];
    let floor = || async {
        let mut live = sides.bare.subscribe(stored_subject(root)).await?;
        let order = if how == Floor::OneEach { "one" } else { "packed" };
        let began = Instant::now();
        let done = sides.bare.request(produce_subject(root), format!("{order} {count}").into());
        let follow = async {
            let mut verified = 0;
            while verified < count {
                let message = live.next().await.ok_or_else(|| anyhow::anyhow!("no more items"))?;
                anyhow::ensure!(message.chunks(ITEM).all(|item| item == wanted));
                verified += message.len() / ITEM;
            }
            Ok(())
        };
        let (done, followed) = tokio::join!(done, follow);
        done?;
        followed?;
        Ok(per_second(count, began.elapsed()))
    };
    let bus = || async {
        let began = Instant::now();
        let mut items = driver.items(count as u64, ITEM as u64).await?;
        let mut verified = 0;
        while let Some(item) = items.next().await {
            anyhow::ensure!(item? == wanted);
            verified += 1;
        }
        anyhow::ensure!(verified == count, "{verified} of {count} items came");
        Ok(per_second(count, began.elapsed()))
    };
    let (key, must) = match how {
        Floor::OneEach => ("streaming_items", 3.0),
        Floor::Packed => ("streaming_packed", 0.8),
    };
    measure(sides, &sides.bus_peer, key, "items/s", Target::AtLeast(must), floor, bus).await
}

/// From asking for a streaming call to its first item, beside a bare request.
pub(crate) async fn first_item(sides: &Sides) -> anyhow::Result<Row> {
    let count = sides.scaled(300);
    let (subject, driver) = (echo_subject(&sides.bench.root), sides.driver()?);
    let payload = Bytes::from(vec![0x5a; ITEM]);
    let floor = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            sides.bare.request(subject.clone(), payload.clone()).await?;
            spans.push(began.elapsed());
        }
        Ok(Round { figure: median_us(spans), operations: count })
    };
    let bus = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let mut items = driver.items(1, ITEM as u64).await?;
            let first = items.next().await.ok_or_else(|| anyhow::anyhow!("no item"))??;
            spans.push(began.elapsed());
            anyhow::ensure!(first == payload && items.next().await.is_none());
        }
        Ok(Round { figure: median_us(spans), operations: count })
    };
    measure(sides, &sides.bus_peer, "streaming_first_item", "us", Target::AtMost(2.0), floor, bus)
        .await
}

/// One direction, between `AsyncWrite` and `AsyncRead`.
pub(crate) async fn throughput(sides: &Sides) -> anyhow::Result<Row> {
    let chunks = sides.scaled(4_000);
    let bytes = chunks * FLOOR_CHUNK;
    let driver = sides.driver()?;
    let floor = || bare_chunks(sides, chunks);
    let bus = || async {
        let began = Instant::now();
        let mut stream = driver.source(bytes as u64).await?;
        let mut block = vec![0; FLOOR_CHUNK];
        let mut received = 0;
        loop {
            match stream.read(&mut block).await? {
                0 => break,
                n => received += n,
            }
        }
        stream.shutdown().await?;
        anyhow::ensure!(received == bytes, "{received} of {bytes} bytes came");
        Ok(mib_per_second(bytes, began.elapsed()))
    };
    measure(sides, &sides.bus_peer, "stream_throughput", "MiB/s", Target::AtLeast(0.75), floor, bus)
        .await
}

/// The floor of what moves bytes in one direction: a publisher and a subscriber.
pub(crate) async fn bare_chunks(sides: &Sides, chunks: usize) -> anyhow::Result<Round> {
    let (root, bytes) = (&sides.bench.root, chunks * FLOOR_CHUNK);
    let mut live = sides.bare.subscribe(data_subject(root)).await?;
    let began = Instant::now();
    let done = sides.bare.request(produce_subject(root), format!("chunks {chunks}").into());
    let follow = async {
        let mut received = 0;
        while received < bytes {
            let chunk = live.next().await.ok_or_else(|| anyhow::anyhow!("no more chunks"))?;
            received += chunk.len();
        }
        Ok::<_, anyhow::Error>(())
    };
    let (done, followed) = tokio::join!(done, follow);
    done?;
    followed?;
    Ok(mib_per_second(bytes, began.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "a count of bytes")]
pub(crate) fn mib_per_second(bytes: usize, took: std::time::Duration) -> Round {
    let figure = bytes as f64 / (1024.0 * 1024.0) / took.as_secs_f64();
    Round { figure, operations: bytes / FLOOR_CHUNK }
}

/// One byte there and back over an open stream, beside a bare request.
pub(crate) async fn echo(sides: &Sides) -> anyhow::Result<Row> {
    let count = sides.scaled(2_000);
    let (subject, driver) = (echo_subject(&sides.bench.root), sides.driver()?);
    let floor = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            sides.bare.request(subject.clone(), Bytes::from_static(b"x")).await?;
            spans.push(began.elapsed());
        }
        Ok(Round { figure: median_us(spans), operations: count })
    };
    let bus = || async {
        let mut stream = driver.loop_back().await?;
        let mut spans = Vec::with_capacity(count);
        for at in 0..count {
            let byte = [u8::try_from(at % 251)?];
            let mut back = [0];
            let began = Instant::now();
            stream.write_all(&byte).await?;
            stream.read_exact(&mut back).await?;
            spans.push(began.elapsed());
            anyhow::ensure!(back == byte);
        }
        stream.shutdown().await?;
        Ok(Round { figure: median_us(spans), operations: count })
    };
    measure(sides, &sides.bus_peer, "stream_echo", "us", Target::AtMost(1.25), floor, bus).await
}
