//! `jmp-bus resume`: boards are granted again.

use bus_schema::{Address, LeaseTarget};

use super::{drain::shown, lease::each};
use crate::{advice::CliError, session::Session, wanted::boards_of};

/// Ends `drain` and `maintenance`. For admins.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The exporter, a board that is leased apart, or `@place`.
    target: LeaseTarget,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let client = session.client().await?;
        let boards = boards_of(client, &self.target).await?;
        each(session, boards, async |at: &Address| client.resume(at).await, shown).await
    }
}
