//! Leases: the exporter grants exclusive use of its tree, or of subtrees of it, and enforces what
//! it grants.
//!
//! [`Book`](book::Book) has the rules, [`Journal`](journal::Journal) remembers, [`Fence`] is what
//! every call passes, [`keeper`] is the task that owns them.

mod book;
mod fence;
mod finish;
mod hook;
mod journal;
mod keeper;
mod rules;

use std::{collections::HashMap, sync::Arc};

use bus_schema::{
    AdminAsk, ClientName, DriverId, ExporterName, LeaseAsk, Path, Refusal, RefusalCode,
};
use tokio::sync::mpsc;

pub(crate) use self::{
    fence::{Fence, Pass},
    journal::{Journal, JournalError, Opened as JournalOpened},
    keeper::Keeper,
};
pub use self::{
    hook::{Hook, HookFailure, Hooks},
    rules::{AccessRule, LeaseRules},
};
use super::slot::Slot;

/// Words that wait for the keeper: with all tickets' signs of life at once, and some.
const WORDS_MAX: usize = 8192;

/// What the keeper is told.
#[derive(Debug)]
pub(crate) enum Word {
    /// A client's word, and where its answer goes.
    Lease { client: ClientName, ask: LeaseAsk, reply: String },
    /// An admin's word.
    Admin { client: ClientName, ask: AdminAsk, reply: String },
    /// The registry has lost its records: the board is shown once more.
    Show,
    /// Nothing is granted any more.
    Close { why: &'static str },
    /// The hook before the lease `epoch` has ended.
    Begun { unit: usize, epoch: u64, hook: Result<(), String> },
    /// The lease `epoch` is over; its devices are safe and well, or not.
    Settled { unit: usize, epoch: u64, ready: Result<(), finish::NotReady> },
}

/// The fences around the subtrees of an exporter.
#[derive(Clone, Debug)]
pub(crate) struct Fences(Arc<[Arc<Fence>]>);

impl Fences {
    pub(crate) fn new(rules: &LeaseRules) -> Self {
        let rules = Arc::new(rules.clone());
        let fence = |(unit, path)| Arc::new(Fence::new(unit, path, rules.clone()));
        Self(rules.units().into_iter().enumerate().map(fence).collect())
    }

    /// The fence around the subtree that a driver at `path` is leased with.
    pub(crate) fn around(&self, path: &Path) -> &Arc<Fence> {
        &self.0[rules::unit_of(self.paths(), path)]
    }

    /// The subtrees.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|fence| &fence.path)
    }

    fn at(&self, unit: usize) -> &Arc<Fence> {
        &self.0[unit]
    }
}

/// How the rest of the exporter speaks to its keeper of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    pub(crate) fences: Fences,
    /// Drivers whose id is not that of their path: pinned ones, and aliases.
    odd: HashMap<Path, DriverId>,
    words: mpsc::Sender<Word>,
}

impl Leases {
    pub(crate) fn new(
        fences: Fences,
        odd: HashMap<Path, DriverId>,
    ) -> (Self, mpsc::Receiver<Word>) {
        let (words, inbox) = mpsc::channel(WORDS_MAX);
        (Self { fences, odd, words }, inbox)
    }

    /// Tells the keeper. `None` if more waits for it than can be meant well: the sender asks again.
    pub(crate) fn tell(&self, word: Word) -> Option<()> {
        self.words.try_send(word).ok()
    }

    /// The subtree that is meant.
    ///
    /// # Errors
    ///
    /// *malformed*: there is no such driver.
    fn unit(
        &self,
        name: &ExporterName,
        slots: &HashMap<DriverId, Arc<Slot>>,
        path: &Path,
        driver: Option<DriverId>,
    ) -> Result<usize, Refusal> {
        let by_path = || self.odd.get(path).copied().unwrap_or_else(|| DriverId::at(name, path));
        let id = driver.unwrap_or_else(by_path);
        slots.get(&id).map(|slot| slot.fence.unit).ok_or_else(|| {
            let text = match driver {
                Some(id) => format!("{name} has no driver {id}"),
                None => format!("{name} has no driver at {path}"),
            };
            Refusal::new(RefusalCode::Malformed, text)
        })
    }
}
