//! Which leases are wanted: what `lease acquire`, `shell` and `run` have in common.

use std::{collections::HashSet, time::Duration};

use bus_schema::{Address, Board, ExporterName, Selector, UnitState, limits::LEASE_MATCHES_MAX};
use runtime::{Client, Found, Lease, LeaseRequest};

use crate::{advice::CliError, session::Session};

/// `--wait` without a time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The leases that are wanted.
#[derive(Debug, clap::Args)]
#[group(id = "wanted")]
pub(crate) struct Wanted {
    /// The board: `exporter`, or a driver of the subtree that is leased apart.
    #[arg(required_unless_present_any = ["selector", "set"], conflicts_with_all = ["selector", "set"])]
    address: Option<Address>,
    /// A board with these labels, whichever can be had first: `board=rpi4,rack!=3`.
    #[arg(short = 'l', long, conflicts_with = "set")]
    selector: Option<Selector>,
    /// So many of them; all or none.
    #[arg(long, requires = "selector", value_name = "N", default_value_t = 1)]
    count: u16,
    /// All of these boards or none: addresses with commas between.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    set: Vec<Address>,
    /// How long at most: `2h`. Without it as the exporter says.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Wait until it is free, for this long at most; a day without a time.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1day", value_parser = humantime::parse_duration)]
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
        let (addresses, count) = self.addresses(client).await?;
        let wait = self.wait.unwrap_or_default().min(LONG * 31);
        let request =
            LeaseRequest { duration: self.duration, wait, priority: self.priority, detached };
        if !wait.is_zero() {
            let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            tracing::info!(boards = names.join(","), "waiting");
        }
        Ok(client.leases(&addresses, count, &request).await?)
    }

    /// What tickets are put on, and how many of them are wanted.
    async fn addresses(&self, client: &Client) -> Result<(Vec<Address>, usize), CliError> {
        if let Some(address) = &self.address {
            return Ok((vec![address.clone()], 1));
        }
        let Some(selector) = &self.selector else {
            let mut seen = HashSet::new();
            let set: Vec<_> =
                self.set.iter().filter(|address| seen.insert(*address)).cloned().collect();
            let count = set.len();
            return Ok((set, count));
        };
        let count = usize::from(self.count);
        let found = client.registry().select(selector).await?;
        let boards = client.registry().boards().await?;
        let addresses = units(found, &boards);
        if addresses.is_empty() {
            let instead = "see `jmp-bus list` for labels".to_owned();
            let what = format!("a board with {selector}");
            return Err(CliError::NotFound { what, instead });
        }
        Ok((addresses, count))
    }
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
