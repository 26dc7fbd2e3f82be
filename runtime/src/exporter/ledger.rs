//! What an exporter remembers of calls, so that none is executed twice.
//!
//! A pure table: time comes in as the exporter's uptime.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    CallId, ClientName, DriverId, Refusal, RefusalCode, Session,
    limits::{
        CALLS_PER_CLIENT_MAX, CALLS_PER_DRIVER_MAX, OUTCOME_BYTES_MAX, OUTCOME_KEPT, OUTCOMES_MAX,
        QUEUED_BYTES_MAX,
    },
    message::{Progress, Unknown},
};
use tokio_util::sync::CancellationToken;

use super::{answer::Answer, lease::Pass};

/// Sessions without calls are remembered this long, for a message that was long on its way.
const SESSION_KEPT: Duration = Duration::from_secs(600);

/// What a message may have spent on its way since its age was written into it.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

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
    pub(crate) reply_to: Arc<str>,
}

/// Where an answer goes once more; without one, it is no longer kept.
pub(crate) type Again = (Arc<str>, Option<Answer>);

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
    /// Cancelled when the caller no longer wants it.
    pub(crate) cancel: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    fingerprint: u64,
    driver: DriverId,
    reply_to: Arc<str>,
    admitted: Duration,
    state: EntryState,
}

#[derive(Debug)]
enum EntryState {
    Queued {
        since: Duration,
        deadline: Duration,
        cancel: CancellationToken,
    },
    Running {
        since: Duration,
        deadline: Duration,
        cancel: CancellationToken,
        /// What the caller was told, of a stream or streaming call that is open.
        opened: Option<Answer>,
    },
    Ended {
        answer: Option<Answer>,
        bytes: usize,
        until: Duration,
    },
}

#[derive(Debug, Default)]
struct SessionCalls {
    /// Counters below this are of no interest to the client any more.
    floor: u64,
    calls: BTreeMap<u64, Entry>,
    used: Duration,
}

/// An operation that waits or runs.
#[derive(Debug)]
struct UnderWay {
    client: ClientName,
    pass: Option<Pass>,
    cancel: CancellationToken,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sessions: HashMap<(ClientName, Session), SessionCalls>,
    per_client: HashMap<ClientName, usize>,
    per_driver: HashMap<DriverId, usize>,
    queued_bytes: usize,
    /// What waits or runs, with an id or without; and the places that are free.
    under_way: Vec<Option<UnderWay>>,
    free: Vec<usize>,
    /// Ended calls that are kept, and the bytes of their bodies.
    ended: usize,
    ended_bytes: usize,
    /// Uptime since which nothing was forgotten early.
    complete_since: Duration,
    closed: bool,
}

impl Ledger {
    /// Decides about a call.
    pub(crate) fn admit(&mut self, call: Arrival, now: Duration) -> Admission {
        if let Some(id) = call.id
            && let Some(known) = self.recall(&call, id, now)
        {
            return known;
        }
        if let Err(refusal) = self.check_room(&call) {
            return Admission::Refused(refusal);
        }
        let cancel = CancellationToken::new();
        if let Some(id) = call.id {
            let state = EntryState::Queued {
                since: now,
                deadline: now + call.deadline,
                cancel: cancel.clone(),
            };
            let entry = Entry {
                fingerprint: call.fingerprint,
                driver: call.driver,
                reply_to: call.reply_to,
                admitted: now,
                state,
            };
            let session = self.sessions.entry((call.client.clone(), id.session)).or_default();
            session.calls.insert(id.counter, entry);
        }
        *self.per_client.entry(call.client.clone()).or_default() += 1;
        *self.per_driver.entry(call.driver).or_default() += 1;
        self.queued_bytes += call.bytes;
        let Arrival { client, id, driver, bytes, pass, .. } = call;
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
                operation.cancel.cancel();
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

    /// What is known of this id; `None` if it may be executed.
    fn recall(&mut self, call: &Arrival, id: CallId, now: Duration) -> Option<Admission> {
        let session = self.sessions.entry((call.client.clone(), id.session)).or_default();
        session.used = now;
        if call.done_below > session.floor {
            session.floor = call.done_below;
            let done = session.calls.range(..call.done_below);
            // One whose opening was answered lives as long as its stream does.
            let open =
                |entry: &Entry| matches!(entry.state, EntryState::Running { opened: Some(_), .. });
            let done: Vec<u64> =
                done.filter(|(_, e)| !open(e)).map(|(counter, _)| *counter).collect();
            for entry in done.iter().filter_map(|counter| session.calls.remove(counter)) {
                match entry.state {
                    EntryState::Ended { bytes, .. } => {
                        self.ended -= 1;
                        self.ended_bytes -= bytes;
                    }
                    // Given up by its client: it runs to its end, and nobody hears of it.
                    EntryState::Queued { cancel, .. } | EntryState::Running { cancel, .. } => {
                        cancel.cancel();
                    }
                }
            }
        }
        if id.counter < session.floor {
            return Some(Admission::Unknown(Unknown::Dropped));
        }
        let Some(entry) = session.calls.get_mut(&id.counter) else {
            let remembered = call.age + ON_ITS_WAY < now.saturating_sub(self.complete_since);
            let may_run = remembered || !call.repeated;
            return (!may_run).then_some(Admission::Unknown(Unknown::Forgotten));
        };
        if (entry.fingerprint, entry.driver) != (call.fingerprint, call.driver) {
            let text = format!(
                "call id {id} was used before, for another driver, method or other arguments"
            );
            return Some(Admission::Refused(Refusal::new(RefusalCode::IdReused, text)));
        }
        entry.reply_to = call.reply_to.clone();
        Some(match &entry.state {
            EntryState::Running { opened: Some(answer), .. }
            | EntryState::Ended { answer: Some(answer), .. } => Admission::Ended(answer.clone()),
            EntryState::Queued { .. } | EntryState::Running { .. } => Admission::Joined,
            EntryState::Ended { answer: None, .. } => Admission::Unknown(Unknown::Dropped),
        })
    }

    fn check_room(&self, call: &Arrival) -> Result<(), Refusal> {
        let busy = |text: String, limit: usize| {
            Err(Refusal::new(RefusalCode::Busy, text).with_limit(limit as u64))
        };
        if self.closed {
            return Err(Refusal::new(RefusalCode::ShuttingDown, "the exporter is shutting down"));
        }
        let waiting = self.per_driver.get(&call.driver).copied().unwrap_or_default();
        if waiting >= CALLS_PER_DRIVER_MAX {
            return busy(
                format!("{waiting} calls wait at this driver already"),
                CALLS_PER_DRIVER_MAX,
            );
        }
        let waiting = self.per_client.get(&call.client).copied().unwrap_or_default();
        if waiting >= CALLS_PER_CLIENT_MAX {
            let client = &call.client;
            return busy(
                format!("{waiting} calls of {client} wait here already"),
                CALLS_PER_CLIENT_MAX,
            );
        }
        if self.queued_bytes + call.bytes > QUEUED_BYTES_MAX {
            let queued = self.queued_bytes;
            return busy(
                format!("arguments of {queued} bytes wait here already"),
                QUEUED_BYTES_MAX,
            );
        }
        Ok(())
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
            *opened = Some(answer.clone());
        }
    }

    /// It has ended. Says where the answer goes; `None` if the call had no id (its own message
    /// says where), was answered when it was opened, or nobody waits for it any more.
    pub(crate) fn settle(
        &mut self,
        receipt: &Receipt,
        answer: &Answer,
        now: Duration,
    ) -> Option<Arc<str>> {
        release(&mut self.per_client, &receipt.client);
        release(&mut self.per_driver, &receipt.driver);
        self.queued_bytes -= receipt.bytes;
        self.under_way[receipt.place] = None;
        self.free.push(receipt.place);
        let bytes = answer.bytes();
        let entry = self.entry(receipt)?;
        let (deadline, answered) = match &entry.state {
            EntryState::Queued { deadline, .. } => (*deadline, false),
            EntryState::Running { deadline, opened, .. } => (*deadline, opened.is_some()),
            EntryState::Ended { .. } => return None,
        };
        let until = deadline.max(now) + OUTCOME_KEPT;
        entry.state = EntryState::Ended { answer: Some(answer.clone()), bytes, until };
        let reply_to = entry.reply_to.clone();
        self.ended_bytes += bytes;
        self.ended += 1;
        self.shed(now);
        (!answered).then_some(reply_to)
    }

    /// Keeps within the budgets: first bodies go, then whole outcomes, and then memory is no
    /// longer complete. Rare, as clients say what they no longer need; so it may look at all.
    fn shed(&mut self, now: Duration) {
        if self.ended_bytes > OUTCOME_BYTES_MAX {
            for entry in self.sessions.values_mut().flat_map(|session| session.calls.values_mut()) {
                if let EntryState::Ended { answer, bytes, .. } = &mut entry.state {
                    *answer = None;
                    *bytes = 0;
                }
            }
            self.ended_bytes = 0;
        }
        if self.ended > OUTCOMES_MAX {
            for session in self.sessions.values_mut() {
                session.calls.retain(|_, entry| !matches!(entry.state, EntryState::Ended { .. }));
            }
            self.ended = 0;
            self.ended_bytes = 0;
            self.complete_since = now;
        }
    }

    /// How a call is getting on, and where its answer goes if it has one.
    pub(crate) fn ask(
        &mut self,
        client: &ClientName,
        id: CallId,
        now: Duration,
    ) -> (Progress, Option<Again>) {
        let session = self.sessions.get(&(client.clone(), id.session));
        let Some(entry) = session.and_then(|session| session.calls.get(&id.counter)) else {
            return (Progress::Unknown, None);
        };
        let ms = |since: &Duration| u64::try_from((now - *since).as_millis()).unwrap_or(u64::MAX);
        match &entry.state {
            EntryState::Queued { since, .. } => (Progress::Queued(ms(since)), None),
            EntryState::Running { since, opened, .. } => {
                let again = opened.clone().map(|answer| (entry.reply_to.clone(), Some(answer)));
                (Progress::Running(ms(since)), again)
            }
            EntryState::Ended { answer, .. } => {
                (Progress::Done, Some((entry.reply_to.clone(), answer.clone())))
            }
        }
    }

    /// Cancels a call that waits or runs.
    pub(crate) fn cancel(&mut self, client: &ClientName, id: CallId) {
        let session = self.sessions.get(&(client.clone(), id.session));
        let entry = session.and_then(|session| session.calls.get(&id.counter));
        if let Some(Entry {
            state: EntryState::Queued { cancel, .. } | EntryState::Running { cancel, .. },
            ..
        }) = entry
        {
            cancel.cancel();
        }
    }

    /// Forgets what is past its time. What was first sent before that is not known to be new any
    /// more.
    pub(crate) fn sweep(&mut self, now: Duration) {
        let (ended, ended_bytes) = (&mut self.ended, &mut self.ended_bytes);
        let complete_since = &mut self.complete_since;
        self.sessions.retain(|_, session| {
            session.calls.retain(|_, entry| match entry.state {
                EntryState::Ended { until, bytes, .. } if until < now => {
                    *ended -= 1;
                    *ended_bytes -= bytes;
                    *complete_since = (*complete_since).max(entry.admitted);
                    false
                }
                _ => true,
            });
            let keep = !session.calls.is_empty() || now.saturating_sub(session.used) < SESSION_KEPT;
            if !keep {
                *complete_since = (*complete_since).max(session.used);
            }
            keep
        });
    }

    /// Takes nothing new; what runs goes on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Cancels everything that waits or runs.
    pub(crate) fn cancel_all(&self) {
        for entry in self.sessions.values().flat_map(|session| session.calls.values()) {
            if let EntryState::Queued { cancel, .. } | EntryState::Running { cancel, .. } =
                &entry.state
            {
                cancel.cancel();
            }
        }
    }

    /// Calls that wait or run.
    pub(crate) fn open(&self) -> usize {
        self.per_driver.values().sum()
    }

    fn entry(&mut self, receipt: &Receipt) -> Option<&mut Entry> {
        let id = receipt.id?;
        let session = self.sessions.get_mut(&(receipt.client.clone(), id.session))?;
        session.calls.get_mut(&id.counter).filter(|entry| entry.driver == receipt.driver)
    }
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
