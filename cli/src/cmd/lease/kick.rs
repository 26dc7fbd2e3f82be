//! `jmp-bus lease kick`: an admin ends a lease.

use bus_schema::{Address, LeaseTarget, TicketId};
use serde_json::json;

use super::each::each;
use crate::{
    advice::CliError,
    session::Session,
    wanted::{address_of, boards_of},
};

/// Ends the lease on a board, whoever has it. A board that is unsafe is made safe once more.
#[derive(Debug, clap::Args)]
pub(super) struct Cmd {
    /// The board, or `@place` for all boards of a place.
    address: LeaseTarget,
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
        if let LeaseTarget::Driver(target) = &self.address {
            let address = address_of(client, target).await?;
            let done = client.kick(&address, self.ticket, self.reason).await?;
            return session.out.document(&json!({ "done": done }), || format!("{done}\n")).await;
        }
        if self.ticket.is_some() {
            let text = "a ticket is one exporter's: name that instead of the place";
            return Err(CliError::Usage(text.to_owned()));
        }
        let units = boards_of(client, &self.address).await?;
        let kick = async |at: &Address| client.kick(at, None, self.reason.clone()).await;
        each(session, units, kick, |address, done| {
            let data = json!({ "address": address.to_string(), "done": done });
            (data, format!("{address}: {done}\n"))
        })
        .await
    }
}
