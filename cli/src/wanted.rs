//! Which leases are wanted: what `lease acquire`, `shell` and `run` have in common.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use bus_schema::{
    Address, Board, ExporterName, LeaseTarget, PlaceName, Selector, Target, UnitState,
    limits::LEASE_MATCHES_MAX,
};
use runtime::{Client, Found, Lease, LeaseRequest, OnWait, Waiting};

use crate::{advice::CliError, request::not_found, session::Session, told};

/// `--wait` without a time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The leases that are wanted.
#[derive(Debug, clap::Args)]
#[group(id = "wanted")]
pub(crate) struct Wanted {
    /// The board: `exporter`, or a driver of the subtree that is leased apart; or all boards of a
    /// place, as `@place`.
    #[arg(required_unless_present_any = ["selector", "set"], conflicts_with_all = ["selector", "set"])]
    address: Option<LeaseTarget>,
    /// A board with these labels, whichever can be had first: `board=rpi4,rack!=3`.
    #[arg(short = 'l', long, conflicts_with = "set")]
    selector: Option<Selector>,
    /// So many of them; all or none.
    #[arg(long, requires = "selector", conflicts_with_all = ["address", "set"], value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// All of these boards or none: addresses and places with commas between.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    set: Vec<LeaseTarget>,
    /// How long at most: `2h`. Without it as the exporter says.
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    duration: Option<Duration>,
    /// Wait until it is free, for this long at most; a day without a time.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1day", value_parser = told::time)]
    wait: Option<Duration>,
    /// Before others who wait: higher is sooner.
    #[arg(long, value_name = "N", default_value_t = 0)]
    priority: u64,
}

impl Wanted {
    /// Takes the leases.
    pub(crate) async fn take(
        &self,
        session: &Session,
        detached: bool,
    ) -> Result<Vec<Lease>, CliError> {
        let client = session.client().await?;
        let wait = self.wait.unwrap_or_default().min(LONG * 31);
        let (duration, priority) = (self.duration, self.priority);
        let out = session.out;
        let on_wait = OnWait::new(move |waiting| out.note(line(waiting)));
        let request = LeaseRequest { duration, wait, priority, detached, place: None, on_wait };
        if let Some(LeaseTarget::Place(place)) = &self.address {
            return Ok(client.lease_place(place, &request).await?.into_leases());
        }
        if let Some(LeaseTarget::Driver(target)) = &self.address {
            let address = address_of(client, target).await?;
            return Ok(vec![client.lease(&address, &request).await?]);
        }
        match &self.selector {
            Some(selector) => {
                let boards = matches(client, selector).await?;
                Ok(client.leases(&boards, usize::from(self.count), &request).await?)
            }
            None => Ok(client.lease_set(&self.set(client).await?, &request).await?),
        }
    }

    /// The places that are leased as a whole.
    pub(crate) fn places(&self) -> Vec<PlaceName> {
        let place = |target: &LeaseTarget| match target {
            LeaseTarget::Place(place) => Some(place.clone()),
            LeaseTarget::Driver(_) => None,
        };
        self.address.iter().chain(&self.set).filter_map(place).collect()
    }

    /// The addresses of a set.
    async fn set(&self, client: &Client) -> Result<Vec<Address>, CliError> {
        let mut all = Vec::new();
        for target in &self.set {
            match target {
                LeaseTarget::Place(place) => all.extend(client.place(place).await?.addresses()),
                LeaseTarget::Driver(target) => all.push(address_of(client, target).await?),
            }
        }
        Ok(all)
    }
}

/// How one waits, for people.
fn line(waiting: &Waiting) -> String {
    let Waiting { address, before, holder, left } = waiting;
    let holder = match (holder, left) {
        (Some(holder), Some(left)) => {
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            format!("; {holder} has it for another {left} at most")
        }
        _ => String::new(),
    };
    let before = match before {
        0 => String::new(),
        before => format!("; {before} before this one"),
    };
    format!("waiting for {address}{holder}{before}")
}

/// A time that something is wanted for.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    match told::time(text)? {
        time if time.as_millis() == 0 => Err("nothing lasts no time at all: try 30m".to_owned()),
        time => Ok(time),
    }
}

/// The address of a driver that a person names.
pub(crate) async fn address_of(client: &Client, target: &Target) -> Result<Address, CliError> {
    let target = client.settle(target).await?;
    if let Target::Address(address) = target {
        return Ok(address);
    }
    let found = client.registry().resolve(&target).await?;
    match found.and_then(|found| found.address().ok()) {
        Some(address) => Ok(address),
        None => Err(not_found(client, &target).await),
    }
}

/// The boards that are meant: one, or all of a place.
pub(crate) async fn boards_of(
    client: &Client,
    target: &LeaseTarget,
) -> Result<BTreeSet<Address>, CliError> {
    match target {
        LeaseTarget::Driver(target) => Ok(BTreeSet::from([address_of(client, target).await?])),
        LeaseTarget::Place(name) => {
            let place = client.place(name).await?;
            let units = client.place_units(&place).await?;
            Ok(units.into_iter().map(|(_, unit)| unit).collect())
        }
    }
}

/// What has these labels.
async fn matches(client: &Client, selector: &Selector) -> Result<Vec<Address>, CliError> {
    let found = client.registry().select(selector).await?;
    let boards = client.registry().boards().await?;
    let addresses = units(found, &boards);
    if addresses.is_empty() {
        let instead = "see `jmp-bus list` for labels".to_owned();
        return Err(CliError::NotFound { what: format!("a board with {selector}"), instead });
    }
    Ok(addresses)
}

/// The subtrees that the drivers found are leased with, each once; free ones first.
fn units(found: Vec<Found>, boards: &[(ExporterName, Board)]) -> Vec<Address> {
    let mut units = Vec::new();
    let mut seen = HashSet::new();
    for address in found.iter().filter_map(|found| found.address().ok()) {
        let board = boards.iter().find(|(exporter, _)| *exporter == address.exporter);
        let around = board.and_then(|(_, board)| {
            let around = board.units.iter().filter(|unit| address.path.is_within(&unit.path));
            around.max_by_key(|unit| unit.path.steps().len())
        });
        let (path, free) = match around {
            Some(unit) => (unit.path.clone(), unit.state == UnitState::Free),
            None => (bus_schema::Path::ROOT, true),
        };
        let unit = Address { exporter: address.exporter, path };
        if seen.insert(unit.clone()) {
            units.push((!free, unit));
        }
    }
    units.sort_by_key(|(taken, _)| *taken); // stable: by address otherwise
    units.into_iter().take(LEASE_MATCHES_MAX).map(|(_, unit)| unit).collect()
}
