//! When nothing is granted: the exporter leaves, or an admin says so.

use std::time::Duration;

use bus_schema::{ClientName, EventKind};

use super::{Book, Closure, Effect, Entry, Phase, Unit, UnitAt};
use crate::exporter::lease::rules::shown;

impl Book {
    /// Nothing is granted for the rest of this run; what is held goes on.
    pub(crate) fn leave(&mut self, why: &str, now: Duration) {
        for unit in 0..self.units.len() {
            self.units[unit].leaving = Some(why.to_owned());
            self.withdraw(unit, now);
        }
    }

    /// Nothing is granted on a subtree and those within it until an admin says otherwise. Says
    /// what that means.
    pub(crate) fn drain(&mut self, unit: UnitAt, closure: &Closure, now: Duration) -> String {
        let within = self.within(unit);
        for unit in &within {
            if self.units[*unit].closure.as_ref() != Some(closure) {
                self.set_closure(*unit, Some(closure.clone()));
                let kind = match closure.maintenance {
                    true => EventKind::Maintenance,
                    false => EventKind::Drained,
                };
                self.event(kind, *unit, Some(&closure.by), None, &closure.reason);
            }
            self.withdraw(*unit, now);
        }
        let held: Vec<_> = within.iter().filter_map(|unit| self.still_held(*unit)).collect();
        match held.is_empty() {
            true => format!("nothing is granted on {}", self.listed(&within)),
            false => {
                let listed = self.listed(&within);
                format!("nothing more is granted on {listed}; {}", held.join(", "))
            }
        }
    }

    /// Leases are granted again on a subtree and those within it.
    pub(crate) fn resume_grants(&mut self, unit: UnitAt, by: &ClientName, now: Duration) -> String {
        let within = self.within(unit);
        let closed = |unit: &UnitAt| self.units[*unit].closure.is_some();
        let (closed, open): (Vec<_>, Vec<_>) = within.into_iter().partition(closed);
        if closed.is_empty() {
            return format!("{} was not drained", self.listed(&open));
        }
        for unit in &closed {
            self.set_closure(*unit, None);
            self.event(EventKind::Resumed, *unit, Some(by), None, "");
            self.serve(*unit, now, None);
        }
        format!("leases are granted again on {}", self.listed(&closed))
    }

    fn set_closure(&mut self, unit: UnitAt, closure: Option<Closure>) {
        let path = self.units[unit].path.clone();
        self.effects.push(Effect::Keep(Entry::Closed { path, closure: closure.clone() }));
        self.effects.push(Effect::Admit(unit));
        self.units[unit].closure = closure;
    }

    /// Takes an offer back that nobody has confirmed; its ticket keeps its place.
    pub(super) fn withdraw(&mut self, unit: UnitAt, now: Duration) {
        if let Phase::Offered { key, .. } = &self.units[unit].phase {
            let key = key.clone();
            self.put_back(&key, now);
        }
    }

    /// A subtree and those that lie in it.
    fn within(&self, unit: UnitAt) -> Vec<UnitAt> {
        let top = &self.units[unit].path;
        let lies_within = |at: &UnitAt| self.units[*at].path.is_within(top);
        (0..self.units.len()).filter(lies_within).collect()
    }

    fn still_held(&self, unit: UnitAt) -> Option<String> {
        let Unit { path, phase, .. } = &self.units[unit];
        let Phase::Held(lease) = phase else { return None };
        Some(format!("{} still has {}", lease.client, shown(path)))
    }

    fn listed(&self, units: &[UnitAt]) -> String {
        let paths: Vec<_> = units.iter().map(|unit| shown(&self.units[*unit].path)).collect();
        paths.join(", ")
    }
}
