//! `jmp-bus admin`: who may use a fleet's broker.

mod add;
mod init;
mod list;
mod push;
mod renew_certificate;
mod revoke;
mod streams;
mod upgrade;

use std::path::PathBuf;

use runtime::{Authority, Flags, Settings, Sources};

pub(crate) use self::list::date;
use crate::{advice::CliError, args::variable, session::Session};

/// Make a fleet's authority, and say who may use its broker.
///
/// An authority is a directory with the keys that sign credentials. Keep it where only the fleet's
/// operator can read it, and keep a copy. The broker needs its `broker` directory and nothing else.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The authority's directory [default: jmp-bus/authority in the user's configuration].
    #[arg(long, global = true, value_name = "DIR", env = "JMP_BUS_AUTHORITY")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Init(init::Cmd),
    Add(add::Cmd),
    Revoke(revoke::Cmd),
    List(list::Cmd),
    Streams(streams::Cmd),
    Push(push::Cmd),
    RenewCertificate(renew_certificate::Cmd),
    Upgrade(upgrade::Cmd),
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let dir = self.dir.or_else(default_dir).ok_or_else(|| {
            CliError::Usage("no home directory is known: name a directory with --dir".to_owned())
        })?;
        match self.action {
            Action::Init(cmd) => cmd.run(session, &dir).await,
            Action::Add(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::Revoke(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::List(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::Streams(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::RenewCertificate(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::Push(cmd) => cmd.run(session, Authority::open(&dir)?).await,
            Action::Upgrade(cmd) => cmd.run(session, Authority::open(&dir)?).await,
        }
    }
}

fn default_dir() -> Option<PathBuf> {
    let dir = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
    Some(config?.join("jmp-bus").join("authority"))
}

/// How to reach the authority's broker: as flags and environment say, or else as it was planned.
/// Whoever the flags say to be does not matter, as the authority is its own user.
fn broker(session: &Session) -> Result<Settings, CliError> {
    let flags = session.global.flags();
    let place = |flags: Flags| Flags {
        creds: None,
        nkey: None,
        user: None,
        password: None,
        token: None,
        ..flags
    };
    let Sources { flags, environment, config_home, home } =
        Sources::from_variables(flags, variable);
    let sources =
        Sources { flags: place(flags), environment: place(environment), config_home, home };
    Ok(Settings::resolve(sources)?)
}
