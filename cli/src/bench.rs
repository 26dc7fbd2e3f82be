//! The bench: every promise of speed beside its floor, bare async-nats, on the same broker in the
//! same run.
//!
//! Broker, responder and requester are three processes on both sides; the sides take turns; a row
//! is the median of its rounds; only what the receiver verified counts. No code path exists for
//! the bench alone.

mod calls;
mod files;
mod fleet;
mod forward;
mod leases;
mod peer;
mod process;
mod row;
mod streams;

use std::{process::ExitCode, time::Duration};

use bus_schema::Root;
use runtime::{Client, Settings, floor::Bare};

use self::process::Peer;
pub use self::{
    peer::serve_as,
    process::{Cpu, PeerKind, bare_call},
    row::Row,
};
use crate::args::variable;

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The broker.
    pub settings: Settings,
    /// A root of the bench's own.
    pub root: Root,
    /// Rounds of each row.
    pub rounds: usize,
    /// Scales the work of each round: 1.0 takes about two minutes in all.
    pub scale: f64,
    /// The rows to run; all if empty.
    pub only: Vec<String>,
    /// How a second process of this program is started: program and arguments, to which the peer's
    /// are added.
    pub program: Vec<String>,
    /// Its environment: what the broker wants to know of it.
    pub environment: Vec<(String, String)>,
}

/// The floor of `cli_call`, if that is what this process was started for. Asked before anything
/// else: it must not pay for anything of ours, not even for the parser of the command line.
pub(crate) fn bare_call_asked_for() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    args.next().filter(|first| first == "__bare-call")?;
    let server = variable("NATS_URL").unwrap_or_default();
    let subject = args.next().unwrap_or_default();
    Some(match bare_call(&server, variable("NATS_TOKEN"), &subject) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::output::tell(format_args!("jmp-bus: {error:#}\n"));
            ExitCode::FAILURE
        }
    })
}

/// Every row's key, in the order they are run.
pub const ROWS: [&str; 14] = [
    "call_latency",
    "call_throughput",
    "streaming_items",
    "streaming_packed",
    "streaming_first_item",
    "stream_throughput",
    "stream_echo",
    "forward_throughput",
    "flash",
    "lease_acquire",
    "lease_handover",
    "fanout",
    "driver_memory",
    "cli_call",
];

/// Both sides of the bench, ready.
pub(crate) struct Sides {
    pub(crate) bench: Bench,
    pub(crate) bare: Bare,
    pub(crate) client: Client,
    pub(crate) floor_peer: Peer,
    pub(crate) bus_peer: Peer,
}

impl Bench {
    /// Runs the rows one after the other; `done` sees each as it is there.
    ///
    /// # Errors
    ///
    /// A broker or a peer that does not start; a row that fails.
    pub async fn run(self, mut done: impl FnMut(&Row)) -> anyhow::Result<Vec<Row>> {
        self.settings.make_streams(&self.root).await?;
        let floor_peer = Peer::start(&self, PeerKind::Floor).await?;
        let bus_peer = Peer::start(&self, PeerKind::Bus).await?;
        let bare = Bare::connect(&self.settings).await?;
        let name = "bench".parse()?;
        let client = Client::connect(self.settings.clone(), self.root.clone(), name).await?;
        let sides = Sides { bench: self, bare, client, floor_peer, bus_peer };
        let mut rows = Vec::new();
        for key in ROWS {
            if sides.bench.only.is_empty() || sides.bench.only.iter().any(|only| only == key) {
                let row = sides.row(key).await?;
                done(&row);
                rows.push(row);
            }
        }
        sides.client.close().await;
        sides.bus_peer.end().await;
        sides.floor_peer.end().await;
        Ok(rows)
    }
}

impl Sides {
    async fn row(&self, key: &str) -> anyhow::Result<Row> {
        match key {
            "call_latency" => calls::latency(self).await,
            "call_throughput" => calls::throughput(self).await,
            "streaming_items" => streams::items(self, streams::Floor::OneEach).await,
            "streaming_packed" => streams::items(self, streams::Floor::Packed).await,
            "streaming_first_item" => streams::first_item(self).await,
            "stream_throughput" => streams::throughput(self).await,
            "stream_echo" => streams::echo(self).await,
            "forward_throughput" => forward::throughput(self).await,
            "flash" => files::flash(self).await,
            "lease_acquire" => leases::acquire(self).await,
            "lease_handover" => leases::handover(self).await,
            "fanout" => fleet::fanout(self).await,
            "driver_memory" => fleet::memory(self).await,
            _ => process::cli_call(self).await,
        }
    }

    /// A count of operations for one round, scaled.
    pub(crate) fn scaled(&self, count: usize) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of operations"
        )]
        let scaled = (count as f64 * self.bench.scale) as usize;
        scaled.max(16)
    }
}

/// The median of spans, in µs.
pub(crate) fn median_us(mut spans: Vec<Duration>) -> f64 {
    spans.sort_unstable();
    spans[spans.len() / 2].as_secs_f64() * 1e6
}
