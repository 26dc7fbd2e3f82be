//! `jmp-bus lease kick`: an admin ends a lease.

use bus_schema::{Address, TicketId};
use serde_json::json;

use crate::{advice::CliError, session::Session};

/// Ends the lease on a board, whoever has it. A board that is unsafe is made safe once more.
#[derive(Debug, clap::Args)]
pub(super) struct Cmd {
    /// The board.
    address: Address,
    /// Why, for its holder.
    #[arg(long, value_name = "TEXT", required = true)]
    reason: String,
    /// This ticket of the exporter instead: a place in a queue (see `lease queue`).
    #[arg(long, value_name = "TICKET")]
    ticket: Option<TicketId>,
}

impl Cmd {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let done = client.kick(&self.address, self.ticket, self.reason).await?;
        session.out.document(&json!({ "done": done }), || format!("{done}\n")).await
    }
}
