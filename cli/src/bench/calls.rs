//! Calls beside bare requests.

use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{
    Sides, median_us,
    peer::{BenchDriverClient, echo_subject},
    row::{Round, Row, Target, measure},
};

/// Bytes that are echoed.
const PAYLOAD: &[u8] = b"sixteen bytes...";

impl Sides {
    pub(crate) fn driver(&self) -> anyhow::Result<BenchDriverClient<runtime::DriverRef>> {
        Ok(BenchDriverClient::new(self.client.driver(&"bench-bus".parse()?)))
    }
}

/// One call after the other.
pub(crate) async fn latency(sides: &Sides) -> anyhow::Result<Row> {
    let count = sides.scaled(2_000);
    let payload = Bytes::from_static(PAYLOAD);
    let (subject, driver) = (echo_subject(&sides.bench.root), sides.driver()?);
    let floor = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let answer = sides.bare.request(subject.clone(), payload.clone()).await?;
            spans.push(began.elapsed());
            anyhow::ensure!(answer == payload);
        }
        Ok(Round { figure: median_us(spans), operations: count })
    };
    let bus = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let answer = driver.echo(payload.clone()).await?;
            spans.push(began.elapsed());
            anyhow::ensure!(answer == payload);
        }
        Ok(Round { figure: median_us(spans), operations: count })
    };
    measure(sides, &sides.bus_peer, "call_latency", "us", Target::AtMost(1.20), floor, bus).await
}

/// 256 calls in flight.
pub(crate) async fn throughput(sides: &Sides) -> anyhow::Result<Row> {
    const IN_FLIGHT: usize = 256;
    let count = sides.scaled(50_000);
    let payload = Bytes::from_static(PAYLOAD);
    let (subject, driver) = (echo_subject(&sides.bench.root), sides.driver()?);
    let floor = || async {
        let took =
            sides.bare.request_many(|_| subject.clone(), payload.clone(), count, IN_FLIGHT).await?;
        Ok(per_second(count, took))
    };
    let bus = || async {
        let began = Instant::now();
        let mut open = FuturesUnordered::new();
        for _ in 0..count {
            open.push(driver.echo(payload.clone()));
            if open.len() >= IN_FLIGHT {
                let answer = open.next().await.expect("there are some")?;
                anyhow::ensure!(answer == payload);
            }
        }
        while let Some(answer) = open.next().await {
            anyhow::ensure!(answer? == payload);
        }
        Ok(per_second(count, began.elapsed()))
    };
    measure(sides, &sides.bus_peer, "call_throughput", "calls/s", Target::AtLeast(0.75), floor, bus)
        .await
}

#[expect(clippy::cast_precision_loss, reason = "a count of operations")]
pub(crate) fn per_second(count: usize, took: std::time::Duration) -> Round {
    Round { figure: count as f64 / took.as_secs_f64(), operations: count }
}
