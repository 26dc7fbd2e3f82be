//! When the configuration changes: subtrees whose drivers are replaced are nobody's meanwhile, new
//! ones come and others go. The rest does not notice.

use std::time::Duration;

use bus_schema::{LeaseEnd, Path};

use super::{Absent, Book, Effect, End, Unit, UnitAt};
use crate::exporter::lease::rules::LeaseRules;

impl Book {
    /// Ends the leases on subtrees, and lets nobody in until [`reload`](Self::reload) or
    /// [`go_on`](Self::go_on). Who waits keeps its place.
    pub(crate) fn suspend(&mut self, units: &[UnitAt], now: Duration) {
        for unit in units {
            self.units[*unit].absent = Some(Absent::Suspended);
            self.withdraw(*unit, now);
            let text = "the exporter's configuration has changed".to_owned();
            self.end_lease(*unit, End { why: LeaseEnd::Withdrawn, text, heir: None }, now);
            self.effects.push(Effect::Admit(*unit));
        }
    }

    /// The drivers of these subtrees stay as they were.
    pub(crate) fn go_on(&mut self, units: &[UnitAt], now: Duration) {
        for unit in units {
            self.units[*unit].absent = None;
            self.effects.push(Effect::Admit(*unit));
            self.serve(*unit, now, None);
        }
    }

    /// Follows other rules from now on. `paths` are all subtrees there ever were, in their order:
    /// those that the rules do not have are gone, and who waits for them is told.
    pub(crate) fn reload(
        &mut self,
        rules: LeaseRules,
        hook_before: bool,
        paths: Vec<Path>,
        now: Duration,
    ) {
        let in_force = rules.units();
        (self.rules, self.hook_before) = (rules, hook_before);
        for path in paths.into_iter().skip(self.units.len()) {
            self.units.push(Unit::new(path));
        }
        for unit in 0..self.units.len() {
            let is_there = in_force.contains(&self.units[unit].path);
            self.units[unit].absent = (!is_there).then_some(Absent::Removed);
            if !is_there {
                for key in self.units[unit].queue.clone() {
                    let text = Absent::Removed.why();
                    self.drop_ticket(&key, LeaseEnd::Withdrawn, text, now);
                }
            }
            self.effects.push(Effect::Admit(unit));
            self.serve(unit, now, None);
        }
    }
}
