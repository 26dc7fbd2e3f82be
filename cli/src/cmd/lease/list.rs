//! `jmp-bus lease list` and `queue`: who has what, who waits for what.

use bus_schema::{Address, Board, BoardUnit, ExporterName};
use serde_json::{Value as Json, json};

use super::{acquire::time, boards};
use crate::{advice::CliError, output::Output, session::Session, table::table};

/// Everything that can be leased, and who has it.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Of this exporter only, as it says now.
    exporter: Option<ExporterName>,
    /// Go on: a line for each change.
    #[arg(long)]
    watch: bool,
}

/// Who waits.
#[derive(Debug, clap::Args)]
pub(super) struct Queue {
    /// Of this exporter only.
    exporter: Option<ExporterName>,
}

impl List {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        if self.watch {
            return watch(session, self.exporter.as_ref()).await;
        }
        let boards = boards(session, self.exporter.as_ref()).await?;
        let units: Vec<_> = flat(&boards).collect();
        let data: Vec<_> = units.iter().map(|(exporter, unit)| as_json(exporter, unit)).collect();
        let rows: Vec<_> = units.iter().map(|(exporter, unit)| row(exporter, unit)).collect();
        session.out.document(&data, || table(&rows)).await?;
        let more: u64 = boards.iter().map(|(_, board)| board.more).sum();
        if more > 0 {
            session.out.note(format_args!("{more} more have no room in the messages"));
        }
        Ok(())
    }
}

impl Queue {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let (mut data, mut rows) = (Vec::new(), Vec::new());
        for (exporter, board) in boards(session, self.exporter.as_ref()).await? {
            for unit in &board.units {
                let address = address(&exporter, unit);
                for (at, waiter) in unit.queue.iter().enumerate() {
                    data.push(json!({ "address": address, "place": at + 1, "waiter": waiter }));
                    rows.push([
                        address.clone(),
                        format!("{}.", at + 1),
                        waiter.client.to_string(),
                        format!("for {}", time(waiter.since_ms)),
                        format!("priority {}", waiter.priority),
                        waiter.ticket.to_string(),
                    ]);
                }
            }
        }
        session.out.document(&data, || table(&rows)).await
    }
}

/// What one exporter says now, or all of them.
async fn boards(
    session: &Session,
    exporter: Option<&ExporterName>,
) -> Result<Vec<(ExporterName, Board)>, CliError> {
    let client = session.client().await?;
    if let Some(exporter) = exporter {
        return Ok(vec![(exporter.clone(), client.board(exporter).await?)]);
    }
    let boards::Boards { boards, silent } = boards::now(client, boards::Which::All).await?;
    for exporter in silent {
        session.out.note(format_args!("{exporter} does not answer: this is what it said last"));
    }
    Ok(boards)
}

async fn watch(session: &Session, only: Option<&ExporterName>) -> Result<(), CliError> {
    let registry = session.client().await?.registry();
    let mut live = registry.watch_boards().await?;
    let mut seen: Vec<(String, Json)> = Vec::new();
    for (exporter, board) in boards(session, only).await? {
        show_changes(session.out, &exporter, &board, &mut seen).await?;
    }
    while let Some((exporter, board)) = live.next().await {
        if only.is_none_or(|only| *only == exporter) {
            show_changes(session.out, &exporter, &board, &mut seen).await?;
        }
    }
    Err(runtime::BusError::Closed.into())
}

/// A line for each subtree that is not as it was.
async fn show_changes(
    out: Output,
    exporter: &ExporterName,
    board: &Board,
    seen: &mut Vec<(String, Json)>,
) -> Result<(), CliError> {
    for unit in &board.units {
        let (address, data) = (address(exporter, unit), as_json(exporter, unit));
        let mut timeless = data.clone();
        if let Some(lease) = timeless["lease"].as_object_mut() {
            lease.remove("left_ms");
        }
        let known = seen.iter_mut().find(|(known, _)| *known == address);
        match known {
            Some((_, before)) if *before == timeless => continue,
            Some((_, before)) => *before = timeless,
            None => seen.push((address, timeless)),
        }
        out.document(&data, || table(&[row(exporter, unit)])).await?;
    }
    Ok(())
}

fn flat(boards: &[(ExporterName, Board)]) -> impl Iterator<Item = (&ExporterName, &BoardUnit)> {
    boards.iter().flat_map(|(exporter, board)| board.units.iter().map(move |unit| (exporter, unit)))
}

fn address(exporter: &ExporterName, unit: &BoardUnit) -> String {
    Address { exporter: exporter.clone(), path: unit.path.clone() }.to_string()
}

fn as_json(exporter: &ExporterName, unit: &BoardUnit) -> Json {
    let mut data = json!(unit);
    data["address"] = address(exporter, unit).into();
    data
}

fn row(exporter: &ExporterName, unit: &BoardUnit) -> [String; 6] {
    let (mut who, mut left, mut place) = (String::new(), String::new(), String::new());
    if let Some(lease) = &unit.lease {
        let users = std::iter::once(&lease.holder).chain(&lease.allowed);
        who = users.map(ToString::to_string).collect::<Vec<_>>().join(",");
        left = format!("for {}", time(lease.left_ms));
        place = lease.place.as_ref().map(|place| format!("@{place}")).unwrap_or_default();
    }
    let waiting = match unit.waiting {
        0 => String::new(),
        waiting => format!("{waiting} waiting"),
    };
    let more = [waiting, unit.why.clone()];
    [
        address(exporter, unit),
        unit.state.to_string(),
        who,
        left,
        place,
        more.iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>().join("; "),
    ]
}
