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
mod stats;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bus_schema::{
    AdminAsk, ClientName, DriverId, ExporterName, LeaseAsk, Path, Refusal, RefusalCode,
};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::{
    fence::{Fence, Pass},
    journal::{Journal, JournalError, Opened as JournalOpened},
    keeper::Keeper,
    stats::{LeaseStats, WAITS_MS},
};
pub use self::{
    hook::{Hook, HookFailure, Hooks},
    rules::{AccessRule, LeaseRules},
};
use super::tree::Slots;

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
    /// The drivers of these subtrees are about to change: leases on them end, and nobody may use
    /// them. `done` is told when nobody has them any more.
    Suspend { units: Vec<usize>, done: oneshot::Sender<()> },
    /// They are as they were: the change was given up.
    GoOn { units: Vec<usize> },
    /// The configuration has changed. The fences are in place.
    Reloaded { rules: Box<LeaseRules>, hooks: Box<Hooks> },
    /// The hook before the lease `epoch` has ended.
    Begun { unit: usize, epoch: u64, hook: Result<(), String> },
    /// The lease `epoch` is over; its devices are safe and well, or not.
    Settled { unit: usize, epoch: u64, ready: Result<(), finish::NotReady> },
}

/// The fences around the subtrees of an exporter. A subtree has its number as long as the exporter
/// runs, even while the configuration does not have it.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    all: Vec<Arc<Fence>>,
    /// Those of subtrees that the configuration has.
    in_force: Vec<Arc<Fence>>,
}

impl Fences {
    pub(crate) fn new(rules: &LeaseRules) -> Self {
        Self::default().with(rules)
    }

    /// The fences for other rules. Those of subtrees that are in both are the same.
    pub(crate) fn with(&self, rules: &LeaseRules) -> Self {
        let shared = Arc::new(rules.clone());
        let mut all = self.all.clone();
        let fence = |path: Path| match self.all.iter().find(|fence| fence.path == path) {
            Some(fence) => fence.clone(),
            None => {
                let fence = Arc::new(Fence::new(all.len(), path, shared.clone()));
                all.push(fence.clone());
                fence
            }
        };
        let in_force = rules.units().into_iter().map(fence).collect();
        Self { all, in_force }
    }

    /// The fence around the subtree that a driver at `path` is leased with.
    pub(crate) fn around(&self, path: &Path) -> &Arc<Fence> {
        &self.in_force[rules::unit_of(self.paths(), path)]
    }

    /// The subtrees that the configuration has.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.in_force.iter().map(|fence| &fence.path)
    }

    /// How many subtrees there ever were.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn at(&self, unit: usize) -> &Arc<Fence> {
        &self.all[unit]
    }
}

/// How the rest of the exporter speaks to its keeper of leases.
#[derive(Debug)]
pub(crate) struct Leases {
    fences: ArcSwap<Fences>,
    words: mpsc::Sender<Word>,
}

impl Leases {
    pub(crate) fn new(fences: Fences) -> (Self, mpsc::Receiver<Word>) {
        let (words, inbox) = mpsc::channel(WORDS_MAX);
        (Self { fences: ArcSwap::from_pointee(fences), words }, inbox)
    }

    pub(crate) fn fences(&self) -> Arc<Fences> {
        self.fences.load_full()
    }

    /// The fence of a subtree, by its number.
    pub(crate) fn fence(&self, unit: usize) -> Arc<Fence> {
        self.fences.load().at(unit).clone()
    }

    /// The configuration has other subtrees from now on.
    pub(crate) fn replace_fences(&self, fences: Fences) {
        self.fences.store(Arc::new(fences));
    }

    /// Tells the keeper something that must not be lost. None if there is no keeper any more.
    pub(crate) async fn insist(&self, word: Word) -> Option<()> {
        self.words.send(word).await.ok()
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
        name: &ExporterName,
        slots: &Slots,
        path: &Path,
        driver: Option<DriverId>,
    ) -> Result<usize, Refusal> {
        let slot = match driver {
            Some(id) => slots.by_id.get(&id),
            None => slots.by_path.get(path),
        };
        slot.map(|slot| slot.fence.unit).ok_or_else(|| {
            let text = match driver {
                Some(id) => format!("{name} has no driver {id}"),
                None => format!("{name} has no driver at {path}"),
            };
            Refusal::new(RefusalCode::Malformed, text)
        })
    }
}
