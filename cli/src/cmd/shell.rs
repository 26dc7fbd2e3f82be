//! `jmp-bus shell`: a shell that has boards to itself.

use super::run::{Lost, hold, own_shell};
use crate::{advice::CliError, session::Session, wanted::Wanted};

/// Start a shell that has boards to itself: the lease ends with it.
///
/// As `run`, with your own shell. If the lease is lost, the shell goes on, and calls are refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    wanted: Wanted,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        hold(session, &self.wanted, own_shell(), Lost::IsTold).await
    }
}
