//! The rules of leases as one pure machine: no I/O, no clock, no lock. Time comes in as the
//! exporter's own clock since 1970, which never steps back; what is to be done goes out as
//! [`Effect`]s, in the order in which it is to be done.

mod answer;
mod close;
mod end;
mod queue;
mod reload;
mod replay;
mod tick;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use bus_schema::{
    Acquire, ClientName, EventKind, LeaseAction, LeaseEnd, LeaseNews, Leased, Path, PlaceName,
    Refusal, RefusalCode, TicketId,
    limits::{LEASE_ALLOWED_MAX, TICKETS_MAX, TICKETS_PER_CLIENT_MAX},
};
use serde::{Deserialize, Serialize};

pub(crate) use self::answer::{Queues, Standing};
use super::rules::{LeaseRules, shown};

/// How an ended ticket ended is told for this long: longer than any message is on its way.
const ENDED_KEPT: Duration = Duration::from_secs(600);
/// Longest wait, decline and renewal that is taken at its word.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// A subtree that is not safe is tried again this often.
const UNSAFE_AGAIN: Duration = Duration::from_secs(30);

/// A subtree, by its place in the list.
pub(crate) type UnitAt = usize;

/// A request for a lease, by whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) client: ClientName,
    pub(crate) ticket: TicketId,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) epoch: u64,
    pub(crate) client: ClientName,
    pub(crate) ticket: TicketId,
    pub(crate) allowed: Vec<ClientName>,
    /// Since and until when, by the exporter's clock.
    pub(crate) since: Duration,
    pub(crate) until: Duration,
    /// It needs no sign of life.
    pub(crate) detached: bool,
    /// The hook before it has not ended.
    pub(crate) starting: bool,
    /// The place that it was asked for as a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<PlaceName>,
}

impl Lease {
    pub(crate) fn key(&self) -> Key {
        Key { client: self.client.clone(), ticket: self.ticket }
    }
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// The highest epoch so far.
    Last { epoch: u64 },
    /// A lease as it is now.
    Lease { path: Path, lease: Lease },
    /// It ends; the subtree is nobody's yet.
    Ending { path: Path, lease: Lease, end: End },
    /// It has ended: devices are safe.
    Freed { path: Path, epoch: u64 },
    /// An admin has closed it, or opened it again.
    Closed { path: Path, closure: Option<Closure> },
}

impl Entry {
    /// A moment that had passed when it was written.
    pub(crate) fn since(&self) -> Option<Duration> {
        match self {
            Self::Lease { lease, .. } | Self::Ending { lease, .. } => Some(lease.since),
            Self::Last { .. } | Self::Freed { .. } | Self::Closed { .. } => None,
        }
    }
}

/// An admin's word that nothing is granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closure {
    pub(crate) by: ClientName,
    pub(crate) reason: String,
    /// Whether they work on it: then it is theirs to use while nobody has it.
    pub(crate) maintenance: bool,
}

impl std::fmt::Display for Closure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { by, reason, maintenance } = self;
        f.write_str(if *maintenance { "in maintenance by " } else { "drained by " })?;
        write!(f, "{by}")?;
        if !reason.is_empty() {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) why: LeaseEnd,
    pub(crate) text: String,
    /// Whose it is next.
    pub(crate) heir: Option<ClientName>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// To be on the disk before anything behind it is done.
    Keep(Entry),
    /// Who may use the subtree is no longer who could.
    Admit(UnitAt),
    /// Run the hook before the lease, then [`Book::begun`].
    Begin(UnitAt),
    /// Cut the streams of the lease, cancel its calls, make its devices safe, run the hook after
    /// it and the health check; then [`Book::settled`].
    Finish(UnitAt),
    /// Somebody has waited this long for the lease that was granted.
    Waited(Duration),
    /// News for the owner of a ticket.
    Tell(ClientName, LeaseNews),
    /// For everybody to see.
    Event {
        kind: EventKind,
        unit: UnitAt,
        client: Option<ClientName>,
        epoch: Option<u64>,
        reason: String,
    },
}

/// What a subtree is at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Phase {
    Free,
    Offered { key: Key, since: Duration, until: Duration },
    Held(Lease),
    Ending { lease: Lease, end: End },
    Unsafe { lease: Lease, end: End, why: String, again: Duration },
}

#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) path: Path,
    pub(crate) phase: Phase,
    /// Why nothing is granted here for the rest of this run, if so.
    leaving: Option<String>,
    /// The admin's word that nothing is granted, which outlasts runs.
    pub(crate) closure: Option<Closure>,
    /// Its drivers are being replaced, or the configuration does not have it.
    absent: Option<Absent>,
    /// In order of service.
    queue: Vec<Key>,
}

/// Why a subtree is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absent {
    /// Its drivers are being replaced.
    Suspended,
    /// The configuration does not have it.
    Removed,
}

impl Absent {
    fn why(self) -> &'static str {
        match self {
            Self::Suspended => "its drivers are being replaced",
            Self::Removed => "the configuration has it no longer",
        }
    }
}

impl Unit {
    pub(super) fn new(path: Path) -> Self {
        Self {
            path,
            phase: Phase::Free,
            leaving: None,
            closure: None,
            absent: None,
            queue: Vec::new(),
        }
    }

    /// Why nothing is granted here now, if so.
    fn closed(&self) -> Option<String> {
        let absent = self.absent.map(|absent| absent.why().to_owned());
        let leaving = self.leaving.clone();
        absent.or(leaving).or_else(|| self.closure.as_ref().map(ToString::to_string))
    }

    /// Whether no lease is left on it. (One whose devices are not safe is nobody's, too.)
    pub(crate) fn is_nobodys(&self) -> bool {
        matches!(self.phase, Phase::Free | Phase::Unsafe { .. })
    }
}

#[derive(Debug)]
struct Ticket {
    unit: UnitAt,
    asked: Acquire,
    duration: Duration,
    /// The order of arrival.
    number: u64,
    since: Duration,
    heard: Duration,
    wait_until: Duration,
    paused_until: Duration,
    /// Offers that were not taken.
    missed: u32,
    state: TicketState,
    news: Option<News>,
    news_so_far: u64,
}

#[derive(Debug)]
enum TicketState {
    Waiting,
    Offered,
    Held,
    Ended { why: LeaseEnd, text: String, forget: Duration },
}

impl TicketState {
    /// Until when it is told how it ended, if it has.
    fn ended_until(&self) -> Option<Duration> {
        match self {
            Self::Ended { forget, .. } => Some(*forget),
            _ => None,
        }
    }
}

/// News that its owner has not acknowledged.
#[derive(Debug)]
struct News {
    number: u64,
    next: Duration,
    until: Duration,
}

/// The book of one exporter's leases.
#[derive(Debug)]
pub(crate) struct Book {
    rules: LeaseRules,
    /// Whether a hook runs before each lease.
    hook_before: bool,
    pub(crate) units: Vec<Unit>,
    tickets: HashMap<Key, Ticket>,
    /// The tickets that time does something to: that have not ended, or whose end is still told.
    /// (Thousands may have ended, and every command lets time do what is due.)
    live: HashSet<Key>,
    /// Those that have ended, and when that is forgotten: in this order.
    ended: VecDeque<(Duration, Key)>,
    tickets_so_far: u64,
    last_epoch: u64,
    connected: bool,
    effects: Vec<Effect>,
}

impl Book {
    pub(crate) fn new(rules: LeaseRules, hook_before: bool) -> Self {
        let units = rules.units().into_iter().map(Unit::new).collect();
        Self {
            rules,
            hook_before,
            units,
            tickets: HashMap::new(),
            live: HashSet::new(),
            ended: VecDeque::new(),
            tickets_so_far: 0,
            last_epoch: 0,
            connected: true,
            effects: Vec::new(),
        }
    }

    /// What is to be done now, in this order.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// A client's word about `ticket`, or about the lease it holds on `unit`.
    pub(crate) fn hear(
        &mut self,
        client: &ClientName,
        ticket: Option<TicketId>,
        unit: UnitAt,
        action: LeaseAction,
        now: Duration,
    ) -> Leased {
        let key = match (ticket, &action) {
            (Some(ticket), _) => Key { client: client.clone(), ticket },
            (None, LeaseAction::Acquire(_)) => {
                return Leased::Refused(Refusal::new(
                    RefusalCode::Malformed,
                    "acquire needs a ticket",
                ));
            }
            (None, _) => match self.held_by(client, unit) {
                Ok(key) => key,
                Err(refusal) => return Leased::Refused(refusal),
            },
        };
        self.touch(&key, &action, now);
        let done = match action {
            LeaseAction::Acquire(asked) => self.acquire(&key, unit, asked, now),
            LeaseAction::Confirm => self.confirm(&key, now),
            LeaseAction::Decline { pause_ms } => self.decline(&key, pause_ms, now),
            LeaseAction::Release => self.release(&key, now),
            LeaseAction::Renew { duration_ms } => self.renew(&key, duration_ms, now),
            LeaseAction::Transfer { to } => self.transfer(&key, to, now),
            LeaseAction::Allow { client, revoke } => self.allow(&key, client, revoke),
            LeaseAction::Alive { .. } | LeaseAction::Status => Ok(()),
        };
        match done {
            Ok(()) => self.stands(&key, now),
            Err(refusal) => Leased::Refused(refusal),
        }
    }

    /// A sign of life, and of what was heard.
    fn touch(&mut self, key: &Key, action: &LeaseAction, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        ticket.heard = now;
        let known = match action {
            LeaseAction::Alive { heard } => *heard,
            // A repeat of the request knows nothing of what came after it.
            LeaseAction::Acquire(_) => 0,
            _ => u64::MAX,
        };
        if ticket.news.as_ref().is_some_and(|news| news.number <= known) {
            ticket.news = None;
        }
    }

    /// The ticket of the lease that `client` holds on a subtree.
    fn held_by(&self, client: &ClientName, unit: UnitAt) -> Result<Key, Refusal> {
        match &self.units[unit].phase {
            Phase::Held(lease) if lease.client == *client => Ok(lease.key()),
            _ => {
                let text = format!("{client} has no lease on {}", shown(&self.units[unit].path));
                Err(self.with_holder(
                    unit,
                    Refusal::new(RefusalCode::NotLeased, text),
                    Duration::ZERO,
                ))
            }
        }
    }

    // --- commands ----------------------------------------------------------------------------

    fn acquire(
        &mut self,
        key: &Key,
        unit: UnitAt,
        asked: Acquire,
        now: Duration,
    ) -> Result<(), Refusal> {
        if self.tickets.contains_key(key) {
            return Ok(()); // a repeat
        }
        let checked = self.may_ask(key, unit, &asked);
        let duration = match checked {
            Ok(duration) => duration,
            Err(refusal) => {
                self.event(EventKind::LeaseRefused, unit, Some(&key.client), None, &refusal.text);
                return Err(refusal);
            }
        };
        let wait = Duration::from_millis(asked.wait_ms).min(LONGEST);
        self.tickets_so_far += 1;
        let ticket = Ticket {
            unit,
            duration,
            number: self.tickets_so_far,
            since: now,
            heard: now,
            wait_until: now + wait,
            paused_until: Duration::ZERO,
            missed: 0,
            state: TicketState::Waiting,
            news: None,
            news_so_far: 0,
            asked,
        };
        let direct = ticket.asked.confirm;
        self.tickets.insert(key.clone(), ticket);
        self.live.insert(key.clone());
        self.enqueue(key);
        self.serve(unit, now, Some(key));
        if direct && self.is_offered(key) {
            self.grant(unit, key, now);
        }
        if wait.is_zero() && matches!(self.tickets[key].state, TicketState::Waiting) {
            self.leave_queue(key);
            self.tickets.remove(key);
            self.live.remove(key);
            let refusal = self.taken(unit, now);
            self.event(EventKind::LeaseRefused, unit, Some(&key.client), None, &refusal.text);
            return Err(refusal);
        }
        Ok(())
    }

    /// Whether a client may ask for this; how long it would have it.
    fn may_ask(&self, key: &Key, unit: UnitAt, asked: &Acquire) -> Result<Duration, Refusal> {
        let (allowance, duration) = self.rules.check(&key.client, &self.units[unit].path, asked)?;
        let open = |ticket: &Ticket| !matches!(ticket.state, TicketState::Ended { .. });
        let open = || self.live.iter().filter(|key| open(&self.tickets[*key]));
        let (all, own) = (open().count(), open().filter(|of| of.client == key.client).count());
        if all >= TICKETS_MAX || self.tickets.len() >= 2 * TICKETS_MAX {
            let text = format!("{all} requests for leases are here already");
            return Err(Refusal::new(RefusalCode::Busy, text).with_limit(TICKETS_MAX as u64));
        }
        if own >= TICKETS_PER_CLIENT_MAX.min(allowance.leases_max) {
            let limit = TICKETS_PER_CLIENT_MAX.min(allowance.leases_max);
            let text = format!(
                "{} has {own} lease(s) and requests here already, and may have {limit}",
                key.client
            );
            let code = match own >= allowance.leases_max {
                true => RefusalCode::NotAllowed,
                false => RefusalCode::Busy,
            };
            return Err(Refusal::new(code, text).with_limit(limit as u64));
        }
        Ok(duration)
    }

    fn confirm(&mut self, key: &Key, now: Duration) -> Result<(), Refusal> {
        if self.is_offered(key) {
            let unit = self.tickets[key].unit;
            self.grant(unit, key, now);
        }
        Ok(())
    }

    fn decline(&mut self, key: &Key, pause_ms: u64, now: Duration) -> Result<(), Refusal> {
        if self.is_offered(key) {
            let pause = Duration::from_millis(pause_ms).min(LONGEST);
            self.put_back(key, now + pause);
            self.serve(self.tickets[key].unit, now, None);
        }
        Ok(())
    }

    fn release(&mut self, key: &Key, now: Duration) -> Result<(), Refusal> {
        self.drop_ticket(key, LeaseEnd::Released, "", now);
        Ok(())
    }

    fn renew(&mut self, key: &Key, duration_ms: u64, now: Duration) -> Result<(), Refusal> {
        let unit = self.unit_held(key)?;
        let path = self.units[unit].path.clone();
        let allowance = self.rules.allowance(&key.client, &path)?;
        let wanted = self.rules.duration(duration_ms, &allowance)?;
        let Phase::Held(lease) = &mut self.units[unit].phase else { return Ok(()) };
        let most = lease.since + allowance.duration_max;
        lease.until = (now + wanted).min(most);
        let (lease, epoch) = (lease.clone(), lease.epoch);
        self.effects.push(Effect::Keep(Entry::Lease { path, lease }));
        self.effects.push(Effect::Admit(unit));
        self.event(EventKind::LeaseRenewed, unit, Some(&key.client), Some(epoch), "");
        Ok(())
    }

    fn transfer(&mut self, key: &Key, to: ClientName, now: Duration) -> Result<(), Refusal> {
        let unit = match self.unit_held(key) {
            Ok(unit) => unit,
            // A repeat: it is on its way, or over.
            Err(_) if matches!(self.ended(key), Some(LeaseEnd::Transferred)) => return Ok(()),
            Err(refusal) => return Err(refusal),
        };
        self.rules.allowance(&to, &self.units[unit].path)?;
        let text = format!("given to {to} by {}", key.client);
        self.end_lease(unit, End { why: LeaseEnd::Transferred, text, heir: Some(to) }, now);
        Ok(())
    }

    fn allow(&mut self, key: &Key, client: ClientName, revoke: bool) -> Result<(), Refusal> {
        let unit = self.unit_held(key)?;
        let path = self.units[unit].path.clone();
        let Phase::Held(lease) = &mut self.units[unit].phase else { return Ok(()) };
        let known = lease.allowed.contains(&client) || lease.client == client;
        if known != revoke {
            return Ok(()); // a repeat
        }
        if revoke {
            lease.allowed.retain(|allowed| *allowed != client);
        } else if lease.allowed.len() >= LEASE_ALLOWED_MAX {
            let text = format!("the lease is shared with {LEASE_ALLOWED_MAX} clients already");
            return Err(Refusal::new(RefusalCode::Busy, text).with_limit(LEASE_ALLOWED_MAX as u64));
        } else {
            lease.allowed.push(client.clone());
        }
        let (lease, epoch) = (lease.clone(), lease.epoch);
        let what = if revoke { "no longer with" } else { "with" };
        self.effects.push(Effect::Keep(Entry::Lease { path, lease }));
        self.effects.push(Effect::Admit(unit));
        let reason = format!("{what} {client}");
        self.event(EventKind::LeaseShared, unit, Some(&key.client), Some(epoch), &reason);
        Ok(())
    }

    /// The subtree that a ticket holds.
    fn unit_held(&self, key: &Key) -> Result<UnitAt, Refusal> {
        let held = self.tickets.get(key).filter(|ticket| matches!(ticket.state, TicketState::Held));
        held.map(|ticket| ticket.unit).ok_or_else(|| {
            let text = format!("{} has no such lease", key.client);
            Refusal::new(RefusalCode::NotLeased, text)
        })
    }

    fn ended(&self, key: &Key) -> Option<&LeaseEnd> {
        match &self.tickets.get(key)?.state {
            TicketState::Ended { why, .. } => Some(why),
            _ => None,
        }
    }

    fn is_offered(&self, key: &Key) -> bool {
        self.tickets.get(key).is_some_and(|ticket| matches!(ticket.state, TicketState::Offered))
    }

    // --- what follows ------------------------------------------------------------------------

    /// Makes an offer a lease.
    fn grant(&mut self, unit: UnitAt, key: &Key, now: Duration) {
        let Some(ticket) = self.tickets.get_mut(key) else { return };
        ticket.state = TicketState::Held;
        ticket.heard = now;
        ticket.news = None;
        let (duration, detached) = (ticket.duration, ticket.asked.detached);
        let place = ticket.asked.place.clone();
        self.effects.push(Effect::Waited(now.saturating_sub(ticket.since)));
        let lease = Lease {
            epoch: self.next_epoch(now),
            client: key.client.clone(),
            ticket: key.ticket,
            allowed: Vec::new(),
            since: now,
            until: now + duration,
            detached,
            starting: self.hook_before,
            place,
        };
        self.begin(unit, lease);
    }

    fn next_epoch(&mut self, now: Duration) -> u64 {
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.last_epoch = (self.last_epoch + 1).max(micros);
        self.last_epoch
    }

    fn begin(&mut self, unit: UnitAt, lease: Lease) {
        let path = self.units[unit].path.clone();
        self.effects.push(Effect::Keep(Entry::Lease { path, lease: lease.clone() }));
        self.effects.push(Effect::Admit(unit));
        self.event(EventKind::LeaseGranted, unit, Some(&lease.client), Some(lease.epoch), "");
        if lease.starting {
            self.effects.push(Effect::Begin(unit));
        }
        self.units[unit].phase = Phase::Held(lease);
    }

    fn event(
        &mut self,
        kind: EventKind,
        unit: UnitAt,
        client: Option<&ClientName>,
        epoch: Option<u64>,
        reason: &str,
    ) {
        let (client, reason) = (client.cloned(), reason.to_owned());
        self.effects.push(Effect::Event { kind, unit, client, epoch, reason });
    }
}
