//! `jmp-bus drain`: boards that are granted to nobody for a while.

use std::{collections::BTreeSet, time::Duration};

use bus_schema::{Address, LeaseTarget, Path};
use runtime::Client;
use serde_json::json;
use tokio::time::sleep;

use super::lease::{each, time};
use crate::{advice::CliError, session::Session, wanted::boards_of};

/// Between two looks at what is still held.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Grants no more leases on boards. For admins.
///
/// Whoever has a lease keeps it to its end; whoever waits keeps the place in the queue. It lasts
/// until `jmp-bus resume`, also over restarts of the exporter.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    what: What,
}

#[derive(Debug, clap::Args)]
pub(super) struct What {
    /// The exporter, a board that is leased apart, or `@place`. What lies within it is closed, too.
    target: LeaseTarget,
    /// Why, for those who are refused.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until nobody has a lease there any more.
    #[arg(long)]
    wait: bool,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        self.what.close(session, false).await
    }
}

impl What {
    /// Closes it. With `maintenance` it is ours to use.
    pub(super) async fn close(self, session: &Session, maintenance: bool) -> Result<(), CliError> {
        let client = session.client().await?;
        let boards = boards_of(client, &self.target).await?;
        let drain = async |at: &Address| client.drain(at, self.reason.clone(), maintenance).await;
        each(session, boards.clone(), drain, shown).await?;
        if self.wait {
            until_free(session, client, &boards).await?;
        }
        Ok(())
    }
}

/// What an exporter says that it did.
pub(super) fn shown(address: &Address, done: &String) -> (serde_json::Value, String) {
    let data = json!({ "address": address.to_string(), "done": done });
    (data, format!("{address}: {done}\n"))
}

/// Waits until no lease is left, and says on whom it waits whenever that changes.
async fn until_free(
    session: &Session,
    client: &Client,
    boards: &BTreeSet<Address>,
) -> Result<(), CliError> {
    let mut told = String::new();
    loop {
        let mut held = Vec::new();
        for Address { exporter, path } in boards {
            let board = client.board(exporter).await?;
            let within = |unit: &Path| unit.is_within(path) || path.is_within(unit);
            for unit in board.units.iter().filter(|unit| within(&unit.path)) {
                if let Some(lease) = &unit.lease {
                    let address = Address { exporter: exporter.clone(), path: unit.path.clone() };
                    held.push((format!("{} ({address})", lease.holder), lease.left_ms));
                }
            }
        }
        let Some(longest) = held.iter().map(|(_, left_ms)| *left_ms).max() else { return Ok(()) };
        let holders: Vec<_> = held.into_iter().map(|(holder, _)| holder).collect();
        let holders = holders.join(", ");
        if holders != told {
            let longest = time(longest);
            session.out.note(format_args!("waits for {holders}, {longest} at most"));
            told = holders;
        }
        sleep(LOOK_EVERY).await;
    }
}
