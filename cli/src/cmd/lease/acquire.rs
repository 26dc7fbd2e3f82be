//! `jmp-bus lease acquire`.

use std::time::Duration;

use bus_schema::Leased;
use runtime::Lease;
use serde_json::{Value as Json, json};

use crate::{advice::CliError, session::Session, table::table, wanted::Wanted};

/// Takes a lease that goes on when this command has ended.
#[derive(Debug, clap::Args)]
pub(super) struct Cmd {
    #[command(flatten)]
    wanted: Wanted,
}

impl Cmd {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let leases = self.wanted.take(session, true).await?;
        let data: Vec<_> = leases.iter().map(as_json).collect();
        let rows: Vec<_> = leases.iter().map(row).collect();
        let shown = session.out.document(&data, || table(&rows)).await;
        if shown.is_ok() {
            leases.into_iter().for_each(Lease::keep);
        }
        shown
    }
}

/// A lease for programs.
pub(crate) fn as_json(lease: &Lease) -> Json {
    let (left_ms, holder) = match lease.stands() {
        Leased::Held(held) => (held.left_ms, Some(held.holder)),
        _ => (0, None),
    };
    json!({
        "address": lease.address().to_string(),
        "epoch": lease.epoch(),
        "ticket": lease.ticket(),
        "holder": holder,
        "left_ms": left_ms,
        "place": lease.place(),
    })
}

fn row(lease: &Lease) -> [String; 3] {
    let left = match lease.stands() {
        Leased::Held(held) => held.left_ms,
        _ => 0,
    };
    [lease.address().to_string(), format!("for {}", time(left)), format!("epoch {}", lease.epoch())]
}

/// A time for people: whole seconds.
pub(crate) fn time(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}
