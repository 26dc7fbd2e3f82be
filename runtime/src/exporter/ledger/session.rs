//! The calls of one session, as an exporter remembers them.

use std::{collections::BTreeMap, time::Duration};

use bus_schema::{CallId, DriverId, Refusal, RefusalCode, message::Unknown};

use super::{Admission, Arrival, Kept};
use crate::exporter::{answer::Answer, flag::Flag, outbox::ReplyTo};

/// What a message may have spent on its way since its age was written into it.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct SessionCalls {
    /// Counters below this are of no interest to the client any more.
    pub(super) floor: u64,
    pub(super) calls: BTreeMap<u64, Entry>,
    /// Those below the floor that are [open](Entry::is_open).
    pub(super) streams: BTreeMap<u64, Entry>,
    /// Those of them that have ended since the floor was raised.
    pub(super) ended_streams: Vec<u64>,
    pub(super) used: Duration,
}

impl SessionCalls {
    /// The client waits for nothing below `floor` any more: what ended is forgotten, and what it
    /// gave up is cancelled, runs to its end, and nobody hears of it.
    pub(super) fn raise_floor(&mut self, floor: u64, kept: &mut Kept) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let ended = self.ended_streams.drain(..);
        let forgotten = ended.filter_map(|counter| self.streams.remove(&counter));
        forgotten.for_each(|entry| kept.forget(&entry));
        while let Some(first) = self.calls.first_entry()
            && *first.key() < floor
        {
            let (counter, entry) = first.remove_entry();
            if entry.is_open() {
                self.streams.insert(counter, entry);
                continue;
            }
            kept.forget(&entry);
            if let Some(cancel) = entry.cancel() {
                cancel.raise();
            }
        }
    }

    /// What is known of this id; `None` if it may be executed. `memory` is how far back nothing
    /// was forgotten.
    pub(super) fn recall(
        &mut self,
        call: &Arrival,
        id: CallId,
        memory: Duration,
    ) -> Option<Admission> {
        if id.counter < self.floor {
            return Some(Admission::Unknown(Unknown::Dropped));
        }
        let Some(entry) = self.calls.get_mut(&id.counter) else {
            let may_run = !call.repeated || call.age + ON_ITS_WAY < memory;
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
            EntryState::Running { opened: Some(answer), .. } => {
                Admission::Ended((**answer).clone())
            }
            EntryState::Ended { answer: Some(answer), .. } => Admission::Ended(answer.clone()),
            EntryState::Queued { .. } | EntryState::Running { .. } => Admission::Joined,
            EntryState::Ended { answer: None, .. } => Admission::Unknown(Unknown::Dropped),
        })
    }

    pub(super) fn entry(&mut self, counter: u64) -> Option<&mut Entry> {
        match counter < self.floor {
            true => self.streams.get_mut(&counter),
            false => self.calls.get_mut(&counter),
        }
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.calls.values_mut().chain(self.streams.values_mut())
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        self.calls.retain(|_, entry| keep(entry));
        self.streams.retain(|_, entry| keep(entry));
    }

    /// Whether anything in it waits or runs.
    pub(super) fn is_busy(&self) -> bool {
        let mut entries = self.calls.values().chain(self.streams.values());
        entries.any(|entry| entry.cancel().is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.streams.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) fingerprint: u64,
    pub(super) driver: DriverId,
    pub(super) reply_to: ReplyTo,
    pub(super) admitted: Duration,
    pub(super) state: EntryState,
}

#[derive(Debug)]
pub(super) enum EntryState {
    Queued {
        since: Duration,
        deadline: Duration,
        cancel: Flag,
    },
    Running {
        since: Duration,
        deadline: Duration,
        cancel: Flag,
        /// What the caller was told, of a stream or streaming call that is open.
        opened: Option<Box<Answer>>,
    },
    Ended {
        answer: Option<Answer>,
        bytes: usize,
        until: Duration,
    },
}

impl Entry {
    /// Whether it is a stream or streaming call whose opening was answered: it lives as long as
    /// that does, whatever its client waits for.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, EntryState::Running { opened: Some(_), .. })
    }

    /// The flag that stops it, while it waits or runs.
    pub(super) fn cancel(&self) -> Option<&Flag> {
        match &self.state {
            EntryState::Queued { cancel, .. } | EntryState::Running { cancel, .. } => Some(cancel),
            EntryState::Ended { .. } => None,
        }
    }
}
