//! `jmp-bus maintenance`: boards that somebody works on.

use super::drain::What;
use crate::{advice::CliError, session::Session};

/// Takes boards out of use to work on them. For admins.
///
/// As `drain`; and while nobody has a lease on such a board, whoever asked for it may use it.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    what: What,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        self.what.close(session, true).await
    }
}
