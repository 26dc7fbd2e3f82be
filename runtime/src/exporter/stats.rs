//! What an exporter counts of itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use bus_schema::{FaultKind, RefusalCode, subject::DriverVerb};

use super::{lease::LeaseStats, usage::Ended};

/// Figures of all drivers together.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    calls: VerbStats,
    opens: VerbStats,
    /// Messages dropped because their sender or form could not be trusted.
    pub(crate) dropped: AtomicU64,
    /// Lines of logs that were dropped.
    pub(crate) lines_lost: AtomicU64,
    /// Faults and refusals, in the order of the known ones.
    pub(crate) faults: [AtomicU64; FaultKind::KNOWN.len()],
    pub(crate) refusals: [AtomicU64; RefusalCode::KNOWN.len()],
    pub(crate) leases: LeaseStats,
}

/// What the service API reports of one verb.
#[derive(Debug, Default)]
pub(crate) struct VerbStats {
    pub(crate) requests: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    /// The place of the last error among all words for one, from 1.
    last_error: AtomicUsize,
}

impl VerbStats {
    /// The word for what went wrong last; empty if nothing has.
    pub(crate) fn last_error(&self) -> &'static str {
        let last = self.last_error.load(Relaxed);
        let faults = FaultKind::KNOWN.iter().map(FaultKind::as_str).chain(["fault"]);
        let refusals = RefusalCode::KNOWN.iter().map(RefusalCode::as_str).chain(["refused"]);
        match last.checked_sub(1) {
            Some(at) => faults.chain(refusals).nth(at).unwrap_or_default(),
            None => "",
        }
    }

    fn failed(&self, place: usize) {
        self.errors.fetch_add(1, Relaxed);
        self.last_error.store(place + 1, Relaxed);
    }
}

impl Stats {
    /// Those of a verb.
    pub(crate) fn of(&self, verb: DriverVerb) -> &VerbStats {
        match verb {
            DriverVerb::Call => &self.calls,
            DriverVerb::Open => &self.opens,
        }
    }

    /// Counts how an operation, or the wish for one, ended.
    pub(crate) fn ended(&self, verb: DriverVerb, ended: Ended) {
        match ended {
            Ended::Fault(kind) => self.of(verb).failed(kind),
            Ended::Refused(code) => self.of(verb).failed(FaultKind::KNOWN.len() + 1 + code),
            Ended::Well | Ended::Unknown => {}
        }
        let count = match ended {
            Ended::Fault(kind) => self.faults.get(kind),
            Ended::Refused(code) => self.refusals.get(code),
            Ended::Well | Ended::Unknown => None,
        };
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
    }
}
