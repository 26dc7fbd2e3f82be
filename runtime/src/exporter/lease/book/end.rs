//! How a lease begins and ends, step by step.

use std::time::Duration;

use bus_schema::{Acquire, ClientName, EventKind, LeaseEnd, Refusal, RefusalCode, TicketId};

use super::{
    Book, Effect, End, Entry, Key, Lease, Phase, Ticket, TicketState, UNSAFE_AGAIN, UnitAt,
};
use crate::exporter::lease::rules::shown;

impl Book {
    /// The hook before the lease `epoch` has ended.
    pub(crate) fn begun(
        &mut self,
        unit: UnitAt,
        epoch: u64,
        hook: Result<(), String>,
        now: Duration,
    ) {
        let path = self.units[unit].path.clone();
        let Phase::Held(lease) = &mut self.units[unit].phase else { return };
        if lease.epoch != epoch || !lease.starting {
            return;
        }
        match hook {
            Ok(()) => {
                lease.starting = false;
                let (lease, key) = (lease.clone(), lease.key());
                self.effects.push(Effect::Keep(Entry::Lease { path, lease }));
                self.effects.push(Effect::Admit(unit));
                self.tell(&key, now);
            }
            Err(text) => self.end_lease(unit, End { why: LeaseEnd::Hook, text, heir: None }, now),
        }
    }

    /// Ends the lease on a subtree; nothing if there is none.
    pub(super) fn end_lease(&mut self, unit: UnitAt, end: End, now: Duration) {
        let path = self.units[unit].path.clone();
        let Phase::Held(lease) = &self.units[unit].phase else { return };
        let lease = lease.clone();
        let entry = Entry::Ending { path, lease: lease.clone(), end: end.clone() };
        self.effects.push(Effect::Keep(entry));
        self.effects.push(Effect::Admit(unit));
        let kind = match end.why {
            LeaseEnd::Released => EventKind::LeaseReleased,
            LeaseEnd::Transferred => EventKind::LeaseTransferred,
            LeaseEnd::Kicked | LeaseEnd::Withdrawn => EventKind::LeaseKicked,
            LeaseEnd::Hook => EventKind::HookFailed,
            _ => EventKind::LeaseExpired,
        };
        let reason = match end.text.is_empty() {
            true => end.why.to_string(),
            false => format!("{}: {}", end.why, end.text),
        };
        self.event(kind, unit, Some(&lease.client), Some(lease.epoch), &reason);
        self.close_ticket(&lease.key(), end.why.clone(), &end.text, now);
        self.units[unit].phase = Phase::Ending { lease, end };
        self.effects.push(Effect::Finish(unit));
    }

    /// The lease `epoch` is over: its streams are cut, its devices safe and well, or not.
    pub(crate) fn settled(
        &mut self,
        unit: UnitAt,
        epoch: u64,
        safe: Result<(), String>,
        now: Duration,
    ) {
        let Phase::Ending { lease, end } = &self.units[unit].phase else { return };
        if lease.epoch != epoch {
            return;
        }
        let (lease, end) = (lease.clone(), end.clone());
        if let Err(why) = safe {
            let again = now + UNSAFE_AGAIN;
            self.units[unit].phase = Phase::Unsafe { lease, end, why, again };
            self.effects.push(Effect::Admit(unit));
            return;
        }
        let path = self.units[unit].path.clone();
        self.effects.push(Effect::Keep(Entry::Freed { path, epoch }));
        self.units[unit].phase = Phase::Free;
        match end.heir {
            Some(heir) if lease.until > now => self.inherit(unit, heir, &lease, now),
            _ => {
                self.effects.push(Effect::Admit(unit));
                self.serve(unit, now, None);
            }
        }
    }

    /// What is left of a transferred lease, for its new holder.
    fn inherit(&mut self, unit: UnitAt, heir: ClientName, old: &Lease, now: Duration) {
        let lease = Lease {
            epoch: self.next_epoch(now),
            client: heir,
            // Another ticket than any that the old holder knows.
            ticket: TicketId(!old.ticket.0),
            allowed: Vec::new(),
            since: old.since,
            until: old.until,
            detached: true,
            starting: self.hook_before,
            place: old.place.clone(),
        };
        self.adopt_ticket(unit, &lease, now);
        self.begin(unit, lease);
    }

    /// A ticket for a lease that nobody asked for in this run.
    pub(super) fn adopt_ticket(&mut self, unit: UnitAt, lease: &Lease, now: Duration) {
        self.tickets_so_far += 1;
        let ticket = Ticket {
            unit,
            asked: Acquire { detached: lease.detached, ..Acquire::default() },
            duration: lease.until.saturating_sub(lease.since),
            number: self.tickets_so_far,
            since: lease.since,
            heard: now,
            wait_until: now,
            paused_until: Duration::ZERO,
            missed: 0,
            state: TicketState::Held,
            news: None,
            news_so_far: 0,
        };
        self.tickets.insert(lease.key(), ticket);
        self.live.insert(lease.key());
    }

    /// An admin ends what is there: the lease on a subtree or an offer of it; a subtree that is
    /// not safe is tried again. Says what was done.
    pub(crate) fn kick(
        &mut self,
        unit: UnitAt,
        reason: &str,
        now: Duration,
    ) -> Result<String, Refusal> {
        let path = shown(&self.units[unit].path);
        match &self.units[unit].phase {
            Phase::Held(lease) => {
                let done = format!("the lease of {} on {path} is ended", lease.client);
                let end = End { why: LeaseEnd::Kicked, text: reason.to_owned(), heir: None };
                self.end_lease(unit, end, now);
                Ok(done)
            }
            Phase::Offered { key, .. } => {
                let key = key.clone();
                self.drop_ticket(&key, LeaseEnd::Kicked, reason, now);
                Ok(format!("the offer of {path} to {} is withdrawn", key.client))
            }
            Phase::Unsafe { .. } => {
                self.try_again(unit);
                Ok(format!("{path} is made safe once more"))
            }
            Phase::Ending { .. } => Ok(format!("the lease on {path} is being ended already")),
            Phase::Free => {
                Err(Refusal::new(RefusalCode::NotLeased, format!("nobody has a lease on {path}")))
            }
        }
    }

    /// An admin ends whatever a ticket is.
    pub(crate) fn kick_ticket(
        &mut self,
        ticket: TicketId,
        reason: &str,
        now: Duration,
    ) -> Result<String, Refusal> {
        let of = |key: &&Key| key.ticket == ticket;
        let Some(key) = self.tickets.keys().find(of).cloned() else {
            return Err(Refusal::new(RefusalCode::NotLeased, "there is no such ticket here"));
        };
        self.drop_ticket(&key, LeaseEnd::Kicked, reason, now);
        Ok(format!("the ticket of {} is ended", key.client))
    }

    /// Goes through the end of a lease once more.
    pub(super) fn try_again(&mut self, unit: UnitAt) {
        if let Phase::Unsafe { lease, end, .. } = &self.units[unit].phase {
            self.units[unit].phase = Phase::Ending { lease: lease.clone(), end: end.clone() };
            self.effects.push(Effect::Admit(unit));
            self.effects.push(Effect::Finish(unit));
        }
    }
}
