//! Who has what, as exporters say now; of one that does not answer, as it said last.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{Board, ExporterName};
use futures_util::{StreamExt as _, stream};
use runtime::{Client, LeaseError};
use tokio::time::timeout;

use crate::advice::CliError;

/// An exporter that does not answer within this time is shown as it said last.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many are asked at a time.
const AT_ONCE: usize = 64;

/// Whose boards.
#[derive(Clone, Debug)]
pub(super) enum Which {
    /// Those of all exporters that are there.
    All,
    /// Those, and these.
    AndThese(BTreeSet<ExporterName>),
}

/// The boards of exporters.
#[derive(Debug)]
pub(super) struct Boards {
    /// By name.
    pub(super) boards: Vec<(ExporterName, Board)>,
    /// Those of them that did not answer.
    pub(super) silent: Vec<ExporterName>,
}

/// Asks all of them.
pub(super) async fn now(client: &Client, which: Which) -> Result<Boards, CliError> {
    let here = client.registry().exporters().await?;
    let mut names: BTreeSet<_> = here.into_iter().map(|presence| presence.exporter).collect();
    if let Which::AndThese(these) = which {
        names.extend(these);
    }
    let ask = async |exporter: ExporterName| {
        let board = timeout(PATIENCE, client.board(&exporter)).await;
        (exporter, board.unwrap_or_else(|_| Err(LeaseError::Bus("no answer in time".to_owned()))))
    };
    let asked: Vec<_> = stream::iter(names).map(ask).buffered(AT_ONCE).collect().await;
    let (mut boards, mut silent, mut missing) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (exporter, board) in asked {
        match board {
            Ok(board) => boards.push((exporter, board)),
            Err(error) => {
                // An observer asks nobody anything, and knows that.
                if !matches!(error, LeaseError::NotAllowed(_)) {
                    silent.push(exporter.clone());
                }
                missing.insert(exporter);
            }
        }
    }
    if !missing.is_empty() {
        let said = client.registry().boards().await?.into_iter();
        let said = said.filter(|(exporter, _)| missing.contains(exporter));
        boards.extend(said.map(|(exporter, board)| (exporter, aged(board))));
        boards.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    Ok(Boards { boards, silent })
}

/// A record says how long leases lasted when it was written: less than that is left now, as far as
/// the clocks of two hosts agree.
fn aged(mut board: Board) -> Board {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    for unit in &mut board.units {
        if let (Some(lease), Some(until)) = (&mut unit.lease, unit.until_ms) {
            lease.left_ms = lease.left_ms.min(until.saturating_sub(now));
        }
    }
    board
}
