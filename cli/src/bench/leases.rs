//! Leases beside bare requests.

use std::{
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use bus_schema::{Address, UnitState};
use runtime::{Client, LeaseRequest};

use super::{
    Sides, median_us,
    peer::echo_subject,
    row::{Round, Row, Target, measure},
};

/// Bytes of a line of the journal, about.
const LINE: [u8; 256] = [b'x'; 256];

fn board() -> anyhow::Result<Address> {
    Ok("bench-bus".parse()?)
}

/// Waits until nobody has the board and its devices are safe.
async fn is_free(client: &Client) -> anyhow::Result<()> {
    let board = board()?;
    while client.board(&board.exporter).await?.units[0].state != UnitState::Free {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// A free board by its address. It must take at most 2.5 bare requests and one write to the disk:
/// so the floor is a request and so much of a write as makes it that.
pub(crate) async fn acquire(sides: &Sides) -> anyhow::Result<Row> {
    let count = sides.scaled(100);
    let subject = echo_subject(&sides.bench.root);
    let dir = tempfile::tempdir()?;
    let floor = || async {
        let mut file = File::create(dir.path().join("floor"))?;
        let (mut asked, mut written) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let began = Instant::now();
            sides.bare.request(subject.clone(), LINE[..64].to_vec().into()).await?;
            asked.push(began.elapsed());
            let began = Instant::now();
            file.write_all(&LINE)?;
            file.sync_data()?;
            written.push(began.elapsed());
        }
        let figure = median_us(asked) + median_us(written) / 2.5;
        Ok(Round { figure, operations: count })
    };
    let bus = || async {
        let (board, request) = (board()?, LeaseRequest::default());
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            is_free(&sides.client).await?;
            let began = Instant::now();
            let lease = sides.client.lease(&board, &request).await?;
            spans.push(began.elapsed());
            lease.release().await?;
        }
        is_free(&sides.client).await?;
        Ok(Round { figure: median_us(spans), operations: count })
    };
    measure(sides, &sides.bus_peer, "lease_acquire", "us", Target::AtMost(2.5), floor, bus).await
}

/// From a release to the lease of the next who waits.
pub(crate) async fn handover(sides: &Sides) -> anyhow::Result<Row> {
    let count = sides.scaled(30);
    let subject = echo_subject(&sides.bench.root);
    let (settings, root) = (sides.bench.settings.clone(), sides.bench.root.clone());
    let other = Client::connect(settings, root, "bench-next".parse()?).await?;
    let floor = || async {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            sides.bare.request(subject.clone(), LINE[..64].to_vec().into()).await?;
            spans.push(began.elapsed());
        }
        Ok(Round { figure: median_us(spans) / 1e3, operations: count })
    };
    let bus = || async {
        let board = board()?;
        let waits = LeaseRequest { wait: Duration::from_secs(20), ..LeaseRequest::default() };
        let mut spans = Vec::with_capacity(count);
        is_free(&sides.client).await?;
        let mut held = sides.client.lease(&board, &LeaseRequest::default()).await?;
        for turn in 0..count {
            let next = if turn % 2 == 0 { &other } else { &sides.client };
            let waiting = next.lease(&board, &waits);
            let release = async {
                while next.board(&board.exporter).await?.units[0].waiting == 0 {
                    tokio::task::yield_now().await;
                }
                let began = Instant::now();
                held.release().await?;
                anyhow::Ok(began)
            };
            let (lease, began) = tokio::join!(waiting, release);
            (held, _) = (lease?, spans.push(began?.elapsed()));
        }
        held.release().await?;
        is_free(&sides.client).await?;
        Ok(Round { figure: median_us(spans) / 1e3, operations: count })
    };
    let must = Target::FigureAtMost(50.0);
    let row = measure(sides, &sides.bus_peer, "lease_handover", "ms", must, floor, bus).await;
    other.close().await;
    row
}
