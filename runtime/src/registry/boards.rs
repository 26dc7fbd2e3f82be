//! Who has leased what, as exporters last said themselves.

use bus_schema::{Board, ExporterName, codec, subject::FromExporter};

use super::{Registry, stored_subject};
use crate::bus::{BusError, Incoming, Subscription};

impl Registry {
    /// The boards of all exporters, by name.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn boards(&self) -> Result<Vec<(ExporterName, Board)>, BusError> {
        let records = self.read(FromExporter::board_all(self.0.root())).await?;
        let board = |record: &Incoming| self.board(stored_subject(record), record);
        let mut boards: Vec<_> = records.iter().filter_map(board).collect();
        boards.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(boards)
    }

    /// Follows the boards of all exporters. Take stock with [`boards`](Self::boards) after it.
    ///
    /// # Errors
    ///
    /// As [`exporters`](Self::exporters).
    pub async fn watch_boards(&self) -> Result<BoardWatch, BusError> {
        let control = self.0.0.control();
        let subject = FromExporter::board_all(self.0.root());
        let live = control.subscribe(subject.clone()).await?;
        let (own, name) = (self.0.0.inbox.token(crate::bus::random()), self.0.name().as_str());
        control.confirm(own, name, &[&subject]).await?;
        Ok(BoardWatch { registry: self.clone(), live })
    }

    fn board(&self, subject: &str, record: &Incoming) -> Option<(ExporterName, Board)> {
        match FromExporter::read(self.0.root(), subject).ok()? {
            FromExporter::Board(exporter) => {
                Some((exporter, codec::decode(record.payload()).ok()?))
            }
            _ => None,
        }
    }
}

/// The boards of all exporters, as they change.
#[derive(Debug)]
pub struct BoardWatch {
    registry: Registry,
    live: Subscription,
}

impl BoardWatch {
    /// The next one; `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<(ExporterName, Board)> {
        loop {
            let message = self.live.next().await?;
            let board = self.registry.board(message.subject(), &message);
            let board =
                board.filter(|(exporter, _)| message.is_of(exporter, self.registry.0.root()));
            if board.is_some() {
                return board;
            }
        }
    }
}
