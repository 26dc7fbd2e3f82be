//! `jmp-bus lease`: exclusive use of boards, for a time.

mod acquire;
mod boards;
mod command;
mod each;
mod kick;
mod list;

pub(crate) use self::{acquire::time, each::each};
use crate::{advice::CliError, session::Session};

/// Lease boards: have them to yourself for a time.
///
/// A board is named by the address of any driver of it, `@place` are all boards of a place. A lease belongs
/// to the client's name: every command of yours may use it. `jmp-bus shell` and
/// `jmp-bus run` hold one just as long as a command runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take a lease, and leave it running until its end.
    Acquire(acquire::Cmd),
    /// Let a lease last this long from now.
    Renew(command::Renew),
    /// Give a lease back.
    Release(command::Release),
    /// Give what is left of a lease to another client.
    Transfer(command::Transfer),
    /// Let another client use a lease too.
    Allow(command::Allow),
    /// End another's lease. For admins.
    Kick(kick::Cmd),
    /// Who has what.
    List(list::List),
    /// Who waits for what, in the order of service.
    Queue(list::Queue),
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self.command {
            Command::Acquire(cmd) => Box::pin(cmd.run(session)).await,
            Command::Renew(cmd) => cmd.run(session).await,
            Command::Release(cmd) => cmd.run(session).await,
            Command::Transfer(cmd) => cmd.run(session).await,
            Command::Allow(cmd) => cmd.run(session).await,
            Command::Kick(cmd) => cmd.run(session).await,
            Command::List(cmd) => Box::pin(cmd.run(session)).await,
            Command::Queue(cmd) => cmd.run(session).await,
        }
    }
}
