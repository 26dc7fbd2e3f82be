//! What is left of the last run: the journal read again, and the shortest one that says the same.

use std::time::Duration;

use bus_schema::{Board, Path, UnitState};

use super::{Book, Effect, End, Entry, Lease, Phase, UnitAt};

impl Book {
    /// Takes over what the last run left. What was held is held; what was being ended is ended
    /// from the start: its devices may not be safe. Time of silence begins anew.
    pub(crate) fn replay(&mut self, entries: impl IntoIterator<Item = Entry>, now: Duration) {
        for entry in entries {
            self.replay_one(entry);
        }
        for unit in 0..self.units.len() {
            self.resume(unit, now);
        }
    }

    fn replay_one(&mut self, entry: Entry) {
        let (path, epoch, phase) = match entry {
            Entry::Last { epoch } => (None, epoch, Phase::Free),
            Entry::Lease { path, lease } => (Some(path), lease.epoch, Phase::Held(lease)),
            Entry::Ending { path, lease, end } => {
                (Some(path), lease.epoch, Phase::Ending { lease, end })
            }
            Entry::Freed { path, epoch } => (Some(path), epoch, Phase::Free),
            Entry::Closed { path, closure } => {
                if let Some(unit) = self.unit_at(&path) {
                    self.units[unit].closure = closure;
                }
                return;
            }
        };
        self.last_epoch = self.last_epoch.max(epoch);
        // A subtree that the configuration no longer names has no leases.
        if let Some(unit) = path.and_then(|path| self.unit_at(&path)) {
            self.units[unit].phase = phase;
        }
    }

    fn resume(&mut self, unit: UnitAt, now: Duration) {
        match self.units[unit].phase.clone() {
            Phase::Held(lease) => {
                self.adopt_ticket(unit, &lease, now);
                self.effects.push(Effect::Admit(unit));
                if lease.starting {
                    self.effects.push(Effect::Begin(unit));
                }
            }
            Phase::Ending { .. } => {
                self.effects.push(Effect::Admit(unit));
                self.effects.push(Effect::Finish(unit));
            }
            _ => self.effects.push(Effect::Admit(unit)),
        }
    }

    /// Takes over what the exporter's last record shows as held, for one that has no journal.
    pub(crate) fn adopt(&mut self, board: Board, now: Duration) {
        let entries = board.units.into_iter().filter_map(|unit| {
            let (held, ticket) = (unit.lease?, unit.ticket?);
            let until = Duration::from_millis(unit.until_ms?);
            let lease = Lease {
                epoch: held.epoch,
                client: held.holder,
                ticket,
                allowed: held.allowed,
                since: now,
                // A record may be anybody's: it holds nothing for longer than a lease may last.
                until: until.min(now + self.rules.duration_max),
                detached: held.keep_alive_ms.is_none(),
                starting: false,
                place: held.place,
            };
            Some(match unit.state {
                UnitState::Held | UnitState::Starting => Entry::Lease { path: unit.path, lease },
                _ => {
                    let end =
                        End { why: bus_schema::LeaseEnd::Unknown, text: unit.why, heir: None };
                    Entry::Ending { path: unit.path, lease, end }
                }
            })
        });
        let entries: Vec<_> = entries.collect();
        self.replay(entries, now);
    }

    /// The shortest journal that says what this book says.
    pub(crate) fn summary(&self) -> Vec<Entry> {
        let units = self.units.iter().filter_map(|unit| {
            let path = unit.path.clone();
            match unit.phase.clone() {
                Phase::Held(lease) => Some(Entry::Lease { path, lease }),
                Phase::Ending { lease, end } | Phase::Unsafe { lease, end, .. } => {
                    Some(Entry::Ending { path, lease, end })
                }
                Phase::Free | Phase::Offered { .. } => None,
            }
        });
        let closed = self.units.iter().filter_map(|unit| {
            let closure = Some(unit.closure.clone()?);
            Some(Entry::Closed { path: unit.path.clone(), closure })
        });
        std::iter::once(Entry::Last { epoch: self.last_epoch }).chain(units).chain(closed).collect()
    }

    /// The subtree that is exactly at `path`.
    fn unit_at(&self, path: &Path) -> Option<UnitAt> {
        self.units.iter().position(|unit| unit.path == *path)
    }
}
