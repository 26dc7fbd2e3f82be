//! Many drivers: calls fanned out to all of them, and what an idle one costs.

use std::time::{Duration, Instant};

use bus_schema::{Address, Path};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{
    PeerKind, Sides,
    calls::per_second,
    peer::{BenchDriverClient, FLEET, IDLE, many_subject},
    process::{Peer, Requester},
    row::{Meter, Round, Row, Target, measure},
};

/// Calls in flight.
const AT_ONCE: usize = 256;

/// Every driver of a fleet is called once, beside as many bare requests.
pub(crate) async fn fanout(sides: &Sides) -> anyhow::Result<Row> {
    let (exporters, drivers) = FLEET;
    let fleet = Peer::start(&sides.bench, PeerKind::Fleet).await?;
    let payload = Bytes::from_static(b"sixteen bytes...");
    let count = exporters * drivers;
    let root = &sides.bench.root;
    let mut targets = Vec::with_capacity(count);
    for exporter in 0..exporters {
        for driver in 0..drivers {
            let exporter = format!("bench-{exporter}").parse()?;
            let address = Address { exporter, path: Path::ROOT.child(&format!("d{driver}"))? };
            targets.push(BenchDriverClient::new(sides.client.driver(&address)));
        }
    }
    let floor = || async {
        let subject = |at| many_subject(root, at);
        let took = sides.bare.request_many(subject, payload.clone(), count, AT_ONCE).await?;
        Ok(per_second(count, took))
    };
    let bus = || async {
        let began = Instant::now();
        let mut open = FuturesUnordered::new();
        let mut answered = 0;
        for target in &targets {
            open.push(target.echo(payload.clone()));
            if open.len() >= AT_ONCE {
                open.next().await.expect("there are some")?;
                answered += 1;
            }
        }
        while let Some(answer) = open.next().await {
            answer?;
            answered += 1;
        }
        anyhow::ensure!(answered == count, "{answered} of {count} drivers answered");
        Ok(per_second(count, began.elapsed()))
    };
    let row = measure(sides, &fleet, "fanout", "calls/s", Target::AtLeast(0.8), floor, bus).await;
    drop(fleet);
    row
}

/// Memory of a process with [`IDLE`] drivers that nobody calls, less that of one with a single
/// driver, for each; beside bare subscriptions, counted alike. Both are looked at when they are ready:
/// the one with a single driver has served every other row since.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
pub(crate) async fn memory(sides: &Sides) -> anyhow::Result<Row> {
    let per_one = |many: u64, alone: u64| many.saturating_sub(alone) as f64 / IDLE as f64 / 1024.0;
    let bare = || async {
        let many = Peer::start(&sides.bench, PeerKind::FloorIdle).await?;
        let figure = per_one(many.fresh_memory, sides.floor_peer.fresh_memory);
        Ok(Round { figure, operations: IDLE })
    };
    let slowest = std::cell::Cell::new(Duration::ZERO);
    let bus = || async {
        let began = Instant::now();
        let many = Peer::start(&sides.bench, PeerKind::Idle).await?;
        slowest.set(slowest.get().max(began.elapsed()));
        let figure = per_one(many.fresh_memory, sides.bus_peer.fresh_memory);
        Ok(Round { figure, operations: IDLE })
    };
    let row = measure(
        sides,
        Meter { responder: &sides.bus_peer, requester: Requester::Nobody },
        "driver_memory",
        "KiB",
        Target::FigureAtMost(24.0),
        bare,
        bus,
    )
    .await?;
    let up_in = slowest.get();
    let beside = row.jmp_bus - row.floor;
    let note = format!(
        "subscription {:.1}, all else {beside:.1}; {IDLE} drivers up in {up_in:.1?}",
        row.floor
    );
    Ok(Row { note, ..row })
}
