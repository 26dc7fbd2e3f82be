//! What figures tell of leases.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bus_schema::{BoardUnit, EventKind, UnitState};

use crate::exporter::usage::{BOUNDS_MS, Durations};

/// Upper bounds of the histogram of waits, in ms: from a free board to one that is had tomorrow.
pub(crate) const WAITS_MS: [u64; BOUNDS_MS.len()] = [
    100, 1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 14_400_000,
    43_200_000, 86_400_000,
];

/// What figures tell of an exporter's leases.
#[derive(Debug, Default)]
pub(crate) struct LeaseStats {
    /// Events so far, in the order of the known kinds.
    events: [AtomicU64; EventKind::KNOWN.len()],
    /// Subtrees, by how they are, in the order of the known states.
    units: [AtomicU64; UnitState::KNOWN.len()],
    /// Requests that wait.
    waiting: AtomicU64,
    /// How long those waited that have got a lease.
    pub(crate) waits: Durations,
}

impl LeaseStats {
    /// Something happened to a lease.
    pub(crate) fn happened(&self, kind: &EventKind) {
        if let Some(at) = EventKind::KNOWN.iter().position(|known| known == kind) {
            self.events[at].fetch_add(1, Relaxed);
        }
    }

    /// Somebody has got a lease.
    pub(crate) fn granted(&self, waited: Duration) {
        self.waits.count(&WAITS_MS, waited);
    }

    /// How the subtrees are now.
    pub(crate) fn show(&self, units: &[BoardUnit]) {
        for (state, count) in UnitState::KNOWN.iter().zip(&self.units) {
            let so = units.iter().filter(|unit| unit.state == *state).count();
            count.store(so as u64, Relaxed);
        }
        self.waiting.store(units.iter().map(|unit| unit.waiting).sum(), Relaxed);
    }

    /// How often each thing happened that can happen to a lease.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = EventKind::KNOWN.iter().zip(&self.events);
        known.filter_map(|(kind, count)| {
            Some((kind.as_str().strip_prefix("lease-")?, count.load(Relaxed)))
        })
    }

    /// How many subtrees are in each state.
    pub(crate) fn units(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = UnitState::KNOWN.iter().zip(&self.units);
        known.map(|(state, count)| (state.as_str(), count.load(Relaxed)))
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}
