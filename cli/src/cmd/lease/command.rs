//! `jmp-bus lease renew`, `release`, `transfer` and `allow`: words about a lease that one has.

use std::time::Duration;

use bus_schema::{Address, ClientName, LeaseAction, Leased};
use serde_json::json;

use super::acquire::time;
use crate::{advice::CliError, session::Session};

/// Lets a lease last this long from now.
#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The board.
    address: Address,
    /// How long.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// Gives a lease back.
#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The board.
    address: Address,
}

/// Gives a lease to another client.
#[derive(Debug, clap::Args)]
pub(super) struct Transfer {
    /// The board.
    address: Address,
    /// Whose it is then.
    #[arg(long, value_name = "CLIENT")]
    to: ClientName,
}

/// Lets another client use a lease too.
#[derive(Debug, clap::Args)]
pub(super) struct Allow {
    /// The board.
    address: Address,
    // Not named `client`: `--as` has that id, and one would be taken for the other.
    /// Who may use it too.
    #[arg(value_name = "CLIENT")]
    whom: ClientName,
    /// Take it back.
    #[arg(long)]
    revoke: bool,
}

impl Renew {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let duration_ms = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        command(session, &self.address, LeaseAction::Renew { duration_ms }).await
    }
}

impl Release {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        command(session, &self.address, LeaseAction::Release).await
    }
}

impl Transfer {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        command(session, &self.address, LeaseAction::Transfer { to: self.to }).await
    }
}

impl Allow {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let action = LeaseAction::Allow { client: self.whom, revoke: self.revoke };
        command(session, &self.address, action).await
    }
}

async fn command(
    session: &Session,
    address: &Address,
    action: LeaseAction,
) -> Result<(), CliError> {
    let stands = session.client().await?.command_lease(address, action).await?;
    let text = match &stands {
        Leased::Held(held) => {
            let mut users = vec![held.holder.to_string()];
            users.extend(held.allowed.iter().map(ToString::to_string));
            format!("{address}: {} for {}\n", users.join(", "), time(held.left_ms))
        }
        Leased::Ended { why, text } if text.is_empty() => format!("{address}: {why}\n"),
        Leased::Ended { why, text } => format!("{address}: {why}: {text}\n"),
        _ => String::new(),
    };
    session.out.document(&json!(stands), || text).await
}
