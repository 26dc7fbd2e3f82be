//! What is told: how a ticket stands, who has what.

use std::time::Duration;

use bus_schema::{
    Board, BoardUnit, ClientName, Held, Incarnation, LeaseEnd, Leased, Refusal, RefusalCode,
    UnitState, Waiter, codec,
    limits::{BOARD_BYTES_MAX, BOARD_QUEUE_MAX},
};

use super::{Absent, Book, Closure, Key, Lease, Phase, TicketState, Unit, UnitAt};
use crate::exporter::lease::rules::shown;

/// Whether a board shows who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    Shown,
    Counted,
}

/// Who may use a subtree now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everybody.
    Open,
    /// The holder of this lease, and whom it allows.
    Leased(Lease),
    /// Who works on it.
    Maintained(Closure),
    /// Nobody.
    Closed { why: String, lease: Option<Lease> },
}

impl Book {
    /// How a ticket stands.
    pub(crate) fn stands(&self, key: &Key, now: Duration) -> Leased {
        let Some(ticket) = self.tickets.get(key) else {
            return Leased::Ended { why: LeaseEnd::Unknown, text: String::new() };
        };
        let unit = &self.units[ticket.unit];
        match (&ticket.state, &unit.phase) {
            (TicketState::Held, Phase::Held(lease)) => Leased::Held(self.held(unit, lease, now)),
            (TicketState::Offered, Phase::Offered { until, .. }) => {
                Leased::Offered { left_ms: ms(until.saturating_sub(now)) }
            }
            (TicketState::Ended { why, text, .. }, _) => {
                Leased::Ended { why: why.clone(), text: text.clone() }
            }
            _ => {
                let lease = unit.lease();
                Leased::Waiting {
                    before: self.before(key) as u64,
                    holder: lease.map(|lease| lease.client.clone()),
                    left_ms: lease.map(|lease| ms(lease.until.saturating_sub(now))),
                }
            }
        }
    }

    fn held(&self, unit: &Unit, lease: &Lease, now: Duration) -> Held {
        Held {
            epoch: lease.epoch,
            path: unit.path.clone(),
            holder: lease.client.clone(),
            allowed: lease.allowed.clone(),
            left_ms: ms(lease.until.saturating_sub(now)),
            keep_alive_ms: (!lease.detached).then(|| ms(self.rules.keep_alive)),
            starting: lease.starting,
            place: lease.place.clone(),
        }
    }

    /// Who may use a subtree.
    pub(crate) fn standing(&self, unit: UnitAt) -> Standing {
        let closed =
            |why: String, lease: &Lease| Standing::Closed { why, lease: Some(lease.clone()) };
        match &self.units[unit].phase {
            Phase::Held(lease) if lease.starting => {
                closed(format!("the hook before the lease of {} still runs", lease.client), lease)
            }
            Phase::Held(lease) => Standing::Leased(lease.clone()),
            Phase::Ending { lease, .. } => {
                closed(format!("the lease of {} is being ended", lease.client), lease)
            }
            Phase::Unsafe { why, .. } => {
                Standing::Closed { why: format!("it is not ready: {why}"), lease: None }
            }
            Phase::Free | Phase::Offered { .. } if self.units[unit].absent.is_some() => {
                let why = self.units[unit].closed().unwrap_or_default();
                Standing::Closed { why, lease: None }
            }
            Phase::Free | Phase::Offered { .. } if self.units[unit].closure.is_some() => {
                match &self.units[unit].closure {
                    Some(closure) if closure.maintenance => Standing::Maintained(closure.clone()),
                    closure => Standing::Closed {
                        why: closure.as_ref().map(ToString::to_string).unwrap_or_default(),
                        lease: None,
                    },
                }
            }
            Phase::Free | Phase::Offered { .. } if self.rules.required => {
                Standing::Closed { why: "it needs a lease".to_owned(), lease: None }
            }
            Phase::Free | Phase::Offered { .. } => Standing::Open,
        }
    }

    /// The refusal for somebody who cannot have a subtree now and does not wait.
    pub(super) fn taken(&self, unit: UnitAt, now: Duration) -> Refusal {
        let place = &self.units[unit];
        let path = shown(&place.path);
        let text = match (&place.phase, place.closed()) {
            (Phase::Held(lease) | Phase::Ending { lease, .. }, _) => {
                let left = lease.until.saturating_sub(now).as_secs();
                let left = humantime::format_duration(Duration::from_secs(left));
                format!("{path} is leased by {} for another {left} at most", lease.client)
            }
            (Phase::Unsafe { why, .. }, _) => format!("{path} is not ready: {why}"),
            (Phase::Offered { key, .. }, _) => format!("{path} is offered to {}", key.client),
            (Phase::Free, Some(why)) => format!("{path} is not granted now: {why}"),
            (Phase::Free, None) => format!("others wait for {path}"),
        };
        self.with_holder(unit, Refusal::new(RefusalCode::Busy, text), now)
    }

    /// The same refusal, with who has the subtree and for how long.
    pub(super) fn with_holder(&self, unit: UnitAt, refusal: Refusal, now: Duration) -> Refusal {
        match self.units[unit].lease() {
            Some(lease) => Refusal {
                holder: Some(lease.client.clone()),
                left_ms: Some(ms(lease.until.saturating_sub(now))),
                since_ms: Some(ms(now.saturating_sub(lease.since))),
                ..refusal
            },
            None => refusal,
        }
    }

    /// Everything that can be leased, and who has it. No larger than a message may be.
    pub(crate) fn board(&self, incarnation: Incarnation, queues: Queues, now: Duration) -> Board {
        let units = self.units.iter().filter(|unit| unit.absent != Some(Absent::Removed));
        let units = units.map(|unit| self.board_unit(unit, queues, now)).collect();
        let required = self.rules.required;
        let mut board = Board { incarnation, required, units, at: None, more: 0 };
        while codec::encode(&board).len() > BOARD_BYTES_MAX && !board.units.is_empty() {
            let keep = board.units.len() / 2;
            board.more += (board.units.len() - keep) as u64;
            board.units.truncate(keep);
        }
        board
    }

    fn board_unit(&self, unit: &Unit, queues: Queues, now: Duration) -> BoardUnit {
        let lease = unit.lease();
        let shown = match queues {
            Queues::Shown => BOARD_QUEUE_MAX,
            Queues::Counted => 0,
        };
        let waiter = |key: &Key| {
            let ticket = &self.tickets[key];
            Waiter {
                client: key.client.clone(),
                priority: ticket.asked.priority,
                since_ms: ms(now.saturating_sub(ticket.since)),
                ticket: key.ticket,
            }
        };
        BoardUnit {
            path: unit.path.clone(),
            state: unit.state(),
            why: unit.why(),
            lease: lease.map(|lease| self.held(unit, lease, now)),
            ticket: lease.map(|lease| lease.ticket),
            until_ms: lease.map(|lease| ms(lease.until)),
            queue: unit.queue.iter().take(shown).map(waiter).collect(),
            waiting: unit.queue.len() as u64,
        }
    }

    /// What a board shows, but for how time passes: it is published when this changes.
    pub(crate) fn shown(&self) -> bytes::Bytes {
        let unit =
            |unit: &Unit| (unit.state(), unit.why(), unit.lease().cloned(), unit.queue.len());
        format!("{:?}", self.units.iter().map(unit).collect::<Vec<_>>()).into()
    }
}

impl Unit {
    /// The lease that is held, or is being ended.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &self.phase {
            Phase::Held(lease) | Phase::Ending { lease, .. } => Some(lease),
            _ => None,
        }
    }

    fn state(&self) -> UnitState {
        match &self.phase {
            Phase::Free if self.closed().is_some() => UnitState::Closed,
            Phase::Free => UnitState::Free,
            Phase::Offered { .. } => UnitState::Offered,
            Phase::Held(lease) if lease.starting => UnitState::Starting,
            Phase::Held(_) => UnitState::Held,
            Phase::Ending { .. } => UnitState::Ending,
            Phase::Unsafe { .. } => UnitState::Unsafe,
        }
    }

    fn why(&self) -> String {
        match &self.phase {
            Phase::Ending { end, .. } if end.text.is_empty() => end.why.to_string(),
            Phase::Ending { end, .. } => format!("{}: {}", end.why, end.text),
            Phase::Unsafe { why, .. } => why.clone(),
            Phase::Offered { key, .. } => format!("to {}", key.client),
            Phase::Free | Phase::Held(_) => self.closed().unwrap_or_default(),
        }
    }
}

pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a client may use what this lease covers.
impl Lease {
    pub(crate) fn lets_in(&self, client: &ClientName) -> bool {
        self.client == *client || self.allowed.contains(client)
    }
}
