//! What an exporter remembers of calls, so that none is executed twice.
//!
//! A pure table: time comes in as the exporter's uptime.

mod session;

use std::{
    collections::{HashMap, hash_map},
    time::Duration,
};

use bus_schema::{
    CallId, ClientName, DriverId, Refusal, RefusalCode, Session,
    limits::{
        CALLS_PER_CLIENT_MAX, CALLS_PER_DRIVER_MAX, OUTCOME_BYTES_MAX, OUTCOME_KEPT, OUTCOMES_MAX,
        QUEUED_BYTES_MAX, SESSIONS_MAX, SESSIONS_PER_CLIENT_MAX,
    },
    message::{Progress, Unknown},
};

use self::session::{Entry, EntryState, SessionCalls};
use super::{answer::Answer, flag::Flag, lease::Pass, outbox::ReplyTo};

/// Sessions without calls are remembered this long, for a message that was long on its way.
const SESSION_KEPT: Duration = Duration::from_secs(600);

/// One call as it arrives.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) client: ClientName,
    pub(crate) id: Option<CallId>,
    pub(crate) driver: DriverId,
    /// Tells a repeat from another call under the same id.
    pub(crate) fingerprint: u64,
    pub(crate) age: Duration,
    /// Whether it was sent before.
    pub(crate) repeated: bool,
    pub(crate) deadline: Duration,
    pub(crate) done_below: u64,
    pub(crate) bytes: usize,
    /// What it was let in under; none for one that only observes.
    pub(crate) pass: Option<Pass>,
    pub(crate) reply_to: ReplyTo,
    /// Whether it has its turn already.
    pub(crate) begins: bool,
}

/// Where an answer goes once more; without one, it is no longer kept.
pub(crate) type Again = (ReplyTo, Option<Answer>);

/// What to do with it.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Execute it, and settle the receipt when it has ended.
    Run(Receipt),
    /// It runs already; its answer goes to the newest reply subject.
    Joined,
    /// It has ended: this is how.
    Ended(Answer),
    /// Nobody can say whether it was executed.
    Unknown(Unknown),
    /// No.
    Refused(Refusal),
}

/// An admitted call. Give it back with [`Ledger::settle`].
#[derive(Debug)]
pub(crate) struct Receipt {
    client: ClientName,
    id: Option<CallId>,
    driver: DriverId,
    bytes: usize,
    /// Its place among those that are under way.
    place: usize,
    /// Raised when the caller no longer wants it.
    pub(crate) cancel: Flag,
}

#[derive(Debug, Default)]
struct OfClient {
    /// Calls that wait or run.
    open: usize,
    sessions: HashMap<Session, SessionCalls>,
    /// Uptime since which nothing of this client's was forgotten for having too many sessions.
    complete_since: Duration,
}

/// An operation that waits or runs.
#[derive(Debug)]
struct UnderWay {
    client: ClientName,
    pass: Option<Pass>,
    cancel: Flag,
}

/// Ended calls that are kept, and the bytes of their bodies.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    calls: usize,
    bytes: usize,
}

impl Kept {
    fn forget(&mut self, entry: &Entry) {
        if let EntryState::Ended { bytes, .. } = &entry.state {
            self.calls -= 1;
            self.bytes -= bytes;
        }
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    clients: HashMap<ClientName, OfClient>,
    per_driver: HashMap<DriverId, usize>,
    queued_bytes: usize,
    /// What waits or runs, with an id or without; and the places that are free.
    under_way: Vec<Option<UnderWay>>,
    free: Vec<usize>,
    kept: Kept,
    /// Sessions of all clients.
    sessions: usize,
    /// Uptime since which nothing was forgotten early.
    complete_since: Duration,
    closed: bool,
}

impl Ledger {
    /// Decides about a call.
    pub(crate) fn admit(&mut self, call: Arrival, now: Duration) -> Admission {
        if self.sessions >= SESSIONS_MAX {
            self.forget_sessions();
        }
        let client = self.clients.entry(call.client.clone()).or_default();
        let mut session = None;
        if let Some(id) = call.id {
            if client.sessions.len() >= SESSIONS_PER_CLIENT_MAX {
                self.sessions -= client.forget_sessions(&id.session, &mut self.kept);
            }
            let complete_since = self.complete_since.max(client.complete_since);
            let calls = match client.sessions.entry(id.session) {
                hash_map::Entry::Occupied(known) => known.into_mut(),
                hash_map::Entry::Vacant(new) => {
                    self.sessions += 1;
                    new.insert(SessionCalls::default())
                }
            };
            calls.used = now;
            calls.raise_floor(call.done_below, &mut self.kept);
            let memory = now.saturating_sub(complete_since);
            if let Some(known) = calls.recall(&call, id, memory) {
                return known;
            }
            session = Some((calls, id.counter));
        }
        let here = self.per_driver.entry(call.driver).or_default();
        let room = check_room(&call, *here, client.open, self.queued_bytes, self.closed);
        if let Err(refusal) = room {
            if *here == 0 {
                self.per_driver.remove(&call.driver);
            }
            return Admission::Refused(refusal);
        }
        *here += 1;
        client.open += 1;
        self.queued_bytes += call.bytes;
        let Arrival { client, id, driver, bytes, pass, fingerprint, reply_to, .. } = call;
        let cancel = Flag::default();
        if let Some((calls, counter)) = session {
            let (deadline, flag) = (now + call.deadline, cancel.clone());
            let state = match call.begins {
                true => EntryState::Running { since: now, deadline, cancel: flag, opened: None },
                false => EntryState::Queued { since: now, deadline, cancel: flag },
            };
            let entry = Entry { fingerprint, driver, reply_to, admitted: now, state };
            calls.calls.insert(counter, entry);
        }
        let place = self.set_out(UnderWay { client: client.clone(), pass, cancel: cancel.clone() });
        Admission::Run(Receipt { client, id, driver, bytes, place, cancel })
    }

    fn set_out(&mut self, operation: UnderWay) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.under_way[place] = Some(operation);
                place
            }
            None => {
                self.under_way.push(Some(operation));
                self.under_way.len() - 1
            }
        }
    }

    /// Cancels what may go on no longer.
    pub(crate) fn cut(&self, may_go_on: &impl Fn(Pass, &ClientName) -> bool) {
        for operation in self.under_way.iter().flatten() {
            if operation.pass.is_some_and(|pass| !may_go_on(pass, &operation.client)) {
                operation.cancel.raise();
            }
        }
    }

    /// Whether anything of a subtree is still under way that may go on no longer.
    pub(crate) fn going(
        &self,
        unit: usize,
        may_go_on: &impl Fn(Pass, &ClientName) -> bool,
    ) -> bool {
        self.under_way.iter().flatten().any(|operation| {
            let own = operation.pass.filter(|pass| pass.unit == unit);
            own.is_some_and(|pass| !may_go_on(pass, &operation.client))
        })
    }

    /// Its turn has come.
    pub(crate) fn begin(&mut self, receipt: &Receipt, now: Duration) {
        if let Some(entry) = self.entry(receipt)
            && let EntryState::Queued { deadline, cancel, .. } = &entry.state
        {
            let (deadline, cancel) = (*deadline, cancel.clone());
            entry.state = EntryState::Running { since: now, deadline, cancel, opened: None };
        }
    }

    /// It is open, and `answer` says so to whoever repeats or asks.
    pub(crate) fn opened(&mut self, receipt: &Receipt, answer: &Answer) {
        if let Some(Entry { state: EntryState::Running { opened, .. }, .. }) = self.entry(receipt) {
            *opened = Some(Box::new(answer.clone()));
        }
    }

    /// It has ended. Says where the answer goes; `None` if the call had no id (its own message
    /// says where), was answered when it was opened, or nobody waits for it any more.
    pub(crate) fn settle(
        &mut self,
        receipt: &Receipt,
        answer: &Answer,
        now: Duration,
    ) -> Option<ReplyTo> {
        release(&mut self.per_driver, &receipt.driver);
        self.queued_bytes -= receipt.bytes;
        self.under_way[receipt.place] = None;
        self.free.push(receipt.place);
        let bytes = answer.bytes();
        let client = self.clients.get_mut(&receipt.client)?;
        client.open -= 1;
        let id = receipt.id?;
        let session = client.sessions.get_mut(&id.session)?;
        let below = id.counter < session.floor;
        let entry = session.entry(id.counter)?;
        if entry.driver != receipt.driver {
            return None;
        }
        let (deadline, answered) = match &entry.state {
            EntryState::Queued { deadline, .. } => (*deadline, false),
            EntryState::Running { deadline, opened, .. } => (*deadline, opened.is_some()),
            EntryState::Ended { .. } => return None,
        };
        let until = deadline.max(now) + OUTCOME_KEPT;
        entry.state = EntryState::Ended { answer: Some(answer.clone()), bytes, until };
        let reply_to = (!answered).then(|| entry.reply_to.clone());
        if below {
            session.ended_streams.push(id.counter);
        }
        self.kept.bytes += bytes;
        self.kept.calls += 1;
        self.shed(now);
        reply_to
    }

    /// Keeps within the budgets: first bodies go, then whole outcomes, and then memory is no
    /// longer complete. Rare, as clients say what they no longer need; so it may look at all.
    fn shed(&mut self, now: Duration) {
        if self.kept.bytes > OUTCOME_BYTES_MAX {
            for entry in self.sessions_mut().flat_map(SessionCalls::entries_mut) {
                if let EntryState::Ended { answer, bytes, .. } = &mut entry.state {
                    *answer = None;
                    *bytes = 0;
                }
            }
            self.kept.bytes = 0;
        }
        if self.kept.calls > OUTCOMES_MAX {
            for session in self.sessions_mut() {
                session.retain(|entry| !matches!(entry.state, EntryState::Ended { .. }));
            }
            self.kept = Kept::default();
            self.complete_since = now;
        }
    }

    /// Makes room for other sessions: of those in which nothing waits or runs, the older half is
    /// forgotten, and then memory is no longer complete.
    fn forget_sessions(&mut self) {
        let Some(until) = older_half(self.clients.values().flat_map(|of| of.sessions.values()))
        else {
            return;
        };
        for client in self.clients.values_mut() {
            self.sessions -= client.forget_until(until, &mut self.kept);
        }
        self.complete_since = self.complete_since.max(until);
    }

    /// How a call is getting on, and where its answer goes if it has one.
    pub(crate) fn ask(
        &mut self,
        client: &ClientName,
        id: CallId,
        now: Duration,
    ) -> (Progress, Option<Again>) {
        let Some(entry) = self.find(client, id) else {
            return (Progress::Unknown, None);
        };
        let ms = |since: &Duration| u64::try_from((now - *since).as_millis()).unwrap_or(u64::MAX);
        match &entry.state {
            EntryState::Queued { since, .. } => (Progress::Queued(ms(since)), None),
            EntryState::Running { since, opened, .. } => {
                let again = opened
                    .as_ref()
                    .map(|answer| (entry.reply_to.clone(), Some((**answer).clone())));
                (Progress::Running(ms(since)), again)
            }
            EntryState::Ended { answer, .. } => {
                (Progress::Done, Some((entry.reply_to.clone(), answer.clone())))
            }
        }
    }

    /// Cancels a call that waits or runs.
    pub(crate) fn cancel(&mut self, client: &ClientName, id: CallId) {
        if let Some(cancel) = self.find(client, id).and_then(|entry| entry.cancel()) {
            cancel.raise();
        }
    }

    /// Forgets what is past its time. What was first sent before that is not known to be new any
    /// more.
    pub(crate) fn sweep(&mut self, now: Duration) {
        let (kept, complete_since) = (&mut self.kept, &mut self.complete_since);
        let sessions = &mut self.sessions;
        self.clients.retain(|_, client| {
            client.sessions.retain(|_, session| {
                session.retain(|entry| match entry.state {
                    EntryState::Ended { until, .. } if until < now => {
                        kept.forget(entry);
                        *complete_since = (*complete_since).max(entry.admitted);
                        false
                    }
                    _ => true,
                });
                let keep = !session.is_empty() || now.saturating_sub(session.used) < SESSION_KEPT;
                if !keep {
                    *complete_since = (*complete_since).max(session.used);
                    *sessions -= 1;
                }
                keep
            });
            let keep = client.open > 0 || !client.sessions.is_empty();
            if !keep {
                *complete_since = (*complete_since).max(client.complete_since);
            }
            keep
        });
    }

    /// Takes nothing new; what runs goes on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Cancels everything that waits or runs.
    pub(crate) fn cancel_all(&mut self) {
        for entry in self.sessions_mut().flat_map(SessionCalls::entries_mut) {
            if let Some(cancel) = entry.cancel() {
                cancel.raise();
            }
        }
    }

    /// Calls that wait or run.
    pub(crate) fn open(&self) -> usize {
        self.per_driver.values().sum()
    }

    fn sessions_mut(&mut self) -> impl Iterator<Item = &mut SessionCalls> {
        self.clients.values_mut().flat_map(|client| client.sessions.values_mut())
    }

    fn find(&mut self, client: &ClientName, id: CallId) -> Option<&mut Entry> {
        self.clients.get_mut(client)?.sessions.get_mut(&id.session)?.entry(id.counter)
    }

    fn entry(&mut self, receipt: &Receipt) -> Option<&mut Entry> {
        let entry = self.find(&receipt.client, receipt.id?)?;
        (entry.driver == receipt.driver).then_some(entry)
    }
}

impl OfClient {
    /// Makes room for another session than `but`, unless that is there: of those in which nothing
    /// waits or runs, the older half is forgotten. Says how many.
    fn forget_sessions(&mut self, but: &Session, kept: &mut Kept) -> usize {
        if self.sessions.contains_key(but) {
            return 0;
        }
        let Some(until) = older_half(self.sessions.values()) else { return 0 };
        self.complete_since = self.complete_since.max(until);
        self.forget_until(until, kept)
    }

    /// Forgets the idle sessions that were not used after this.
    fn forget_until(&mut self, until: Duration, kept: &mut Kept) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, session| {
            let keep = session.is_busy() || session.used > until;
            if !keep {
                session.entries_mut().for_each(|entry| kept.forget(entry));
            }
            keep
        });
        before - self.sessions.len()
    }
}

/// When the last of the older half of the idle sessions was used.
fn older_half<'a>(sessions: impl Iterator<Item = &'a SessionCalls>) -> Option<Duration> {
    let mut used: Vec<_> =
        sessions.filter(|session| !session.is_busy()).map(|session| session.used).collect();
    let middle = used.len().checked_sub(1)? / 2;
    Some(*used.select_nth_unstable(middle).1)
}

/// Whether another call fits beside `here` that wait or run at its driver, and `of_client` of its
/// client.
fn check_room(
    call: &Arrival,
    here: usize,
    of_client: usize,
    queued_bytes: usize,
    closed: bool,
) -> Result<(), Refusal> {
    let busy = |text: String, limit: usize| {
        Err(Refusal::new(RefusalCode::Busy, text).with_limit(limit as u64))
    };
    if closed {
        return Err(Refusal::new(RefusalCode::ShuttingDown, "the exporter is shutting down"));
    }
    if call.deadline.is_zero() {
        return Err(Refusal::new(RefusalCode::Expired, "its deadline had passed when it came"));
    }
    if here >= CALLS_PER_DRIVER_MAX {
        return busy(format!("{here} calls wait at this driver already"), CALLS_PER_DRIVER_MAX);
    }
    if of_client >= CALLS_PER_CLIENT_MAX {
        let client = &call.client;
        let text = format!("{of_client} calls of {client} wait here already");
        return busy(text, CALLS_PER_CLIENT_MAX);
    }
    if queued_bytes + call.bytes > QUEUED_BYTES_MAX {
        let text = format!("arguments of {queued_bytes} bytes wait here already");
        return busy(text, QUEUED_BYTES_MAX);
    }
    Ok(())
}

fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
