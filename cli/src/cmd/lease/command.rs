//! `jmp-bus lease renew`, `release`, `transfer` and `allow`: words about a lease that one has.

use std::time::Duration;

use bus_schema::{
    Address, ClientName, LeaseAction, LeaseTarget, Leased, Place, PlaceName, Refusal, RefusalCode,
};
use futures_util::future::join_all;
use runtime::{Client, LeaseError, PlaceError};
use serde_json::json;

use super::{acquire::time, boards, each::each};
use crate::{
    advice::CliError,
    session::Session,
    wanted::{address_of, some_time},
};

/// Lets a lease last this long from now.
#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The board, or `@place` for all that is held of a place.
    address: LeaseTarget,
    /// How long.
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    duration: Duration,
}

/// Gives a lease back.
#[derive(Debug, clap::Args)]
pub(super) struct Release {
    /// The board, or `@place` for all that is held of a place.
    address: LeaseTarget,
}

/// Gives a lease to another client.
#[derive(Debug, clap::Args)]
pub(super) struct Transfer {
    /// The board, or `@place` for all that is held of a place.
    address: LeaseTarget,
    /// Whose it is then.
    #[arg(long, value_name = "CLIENT")]
    to: ClientName,
}

/// Lets another client use a lease too.
#[derive(Debug, clap::Args)]
pub(super) struct Allow {
    /// The board, or `@place` for all that is held of a place.
    address: LeaseTarget,
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
        if self.to == *session.client().await?.name() {
            return Err(CliError::Usage(format!("{} has it already", self.to)));
        }
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
    target: &LeaseTarget,
    action: LeaseAction,
) -> Result<(), CliError> {
    let client = session.client().await?;
    let place = match target {
        LeaseTarget::Place(place) => place,
        LeaseTarget::Driver(target) => {
            let address = address_of(client, target).await?;
            let stands = client.command_lease(&address, action).await?;
            return session.out.document(&json!(stands), || shown(&address, &stands)).await;
        }
    };
    let mine = held_of(client, place).await?;
    let say = async |address: &Address| client.command_lease(address, action.clone()).await;
    each(session, mine, say, |address, stands| {
        let data = json!({ "address": address.to_string(), "stands": stands });
        (data, shown(address, stands))
    })
    .await
}

/// What this client holds of a place: the boards that the place has now, and those that were
/// leased as a part of it, whatever an admin has made of it since.
async fn held_of(client: &Client, name: &PlaceName) -> Result<Vec<Address>, CliError> {
    let (units, unknown) = match client.place(name).await {
        Ok(place) => (units_of(client, &place).await, None),
        Err(unknown @ PlaceError::Unknown { .. }) => (Vec::new(), Some(unknown)),
        Err(other) => return Err(other.into()),
    };
    let now = units.iter().map(|unit| unit.exporter.clone()).collect();
    let mut mine = Vec::new();
    for (exporter, board) in boards::now(client, boards::Which::AndThese(now)).await?.boards {
        for unit in board.units {
            let address = Address { exporter: exporter.clone(), path: unit.path };
            let of_it = |of: Option<&PlaceName>| of == Some(name) || units.contains(&address);
            let own = |lease: &bus_schema::Held| {
                lease.holder == *client.name() && of_it(lease.place.as_ref())
            };
            if unit.lease.as_ref().is_some_and(own) {
                mine.push(address);
            }
        }
    }
    match (mine.is_empty(), unknown) {
        (false, _) => Ok(mine),
        (true, Some(unknown)) => Err(unknown.into()),
        (true, None) => {
            let text = format!("{} holds no board of it", client.name());
            let refusal = Refusal::new(RefusalCode::NotLeased, text);
            Err(LeaseError::Refused { address: format!("@{name}"), refusal }.into())
        }
    }
}

/// The boards of a place that can be asked. One that is away cannot be given back now.
async fn units_of(client: &Client, place: &Place) -> Vec<Address> {
    let addresses = place.addresses();
    let units = join_all(addresses.iter().map(|address| client.lease_unit(address))).await;
    units.into_iter().filter_map(Result::ok).collect()
}

fn shown(address: &Address, stands: &Leased) -> String {
    match stands {
        Leased::Held(held) => {
            let mut users = vec![held.holder.to_string()];
            users.extend(held.allowed.iter().map(ToString::to_string));
            format!("{address}: {} for {}\n", users.join(", "), time(held.left_ms))
        }
        Leased::Ended { why, text } if text.is_empty() => format!("{address}: {why}\n"),
        Leased::Ended { why, text } => format!("{address}: {why}: {text}\n"),
        _ => String::new(),
    }
}
