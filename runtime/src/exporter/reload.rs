//! Reading the configuration anew: what it does not change goes on as it is, leases included.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use bus_schema::{EventKind, subject::FromClient};
use futures_util::{StreamExt as _, stream};
use ractor::ActorRef;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    AT_ONCE, ExporterConfig,
    core::Core,
    events::Happened,
    gate,
    lease::{Fences, Word},
    presence::Presenter,
    recorder,
    slot::Slot,
    supervisor::{SupervisorMsg, make, make_safe},
    tree::{Difference, Tree},
};
use crate::{bus::random, node::Factory};

/// What is in use has this long to end; then nothing is changed.
const FREE_WITHIN: Duration = Duration::from_secs(60);
/// An actor has this long to let go of its device.
const LET_GO_WITHIN: Duration = Duration::from_secs(10);
/// Operations are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Wishes that wait; those past it are told to ask again.
const WISHES_MAX: usize = 8;

/// Changes an exporter while it runs.
pub(crate) struct Reloader {
    pub(crate) core: Arc<Core>,
    pub(crate) tree: Tree,
    pub(crate) supervisor: ActorRef<SupervisorMsg>,
    pub(crate) presenter: Presenter,
    pub(crate) source: Option<ConfigSource>,
    pub(crate) wishes: mpsc::Receiver<Wish>,
}

impl Reloader {
    /// Does what is wished, one after the other, until the exporter stops.
    pub(crate) async fn run(mut self) {
        loop {
            let wish = tokio::select! {
                biased;
                () = self.core.draining.cancelled() => return,
                wish = self.wishes.recv() => wish,
            };
            let Some(Wish { by, done }) = wish else { return };
            let outcome = self.reload().await;
            let (kind, text) = match &outcome {
                Ok(text) => (EventKind::Reloaded, text),
                Err(text) => (EventKind::ReloadRefused, text),
            };
            tracing::info!(by, outcome = text, "the configuration was read anew");
            self.core.events.tell(Happened::now(kind).because(format_args!("{text} (by {by})")));
            let _ = done.send(outcome); // whoever asked may have left
        }
    }

    async fn reload(&mut self) -> Result<String, String> {
        let Some(source) = self.source.clone() else {
            return Err("this exporter was not made from a file: there is nothing to read".into());
        };
        let read = tokio::task::spawn_blocking(move || (source.0)()).await;
        let config = read.map_err(|_panic| "reading the configuration panicked".to_owned())??;
        if config.name != self.core.name {
            let (old, new) = (&self.core.name, &config.name);
            return Err(format!("the name cannot change, from {old} to {new}: start it anew"));
        }
        let ExporterConfig { name, labels, node, leases, hooks, .. } = config;
        let fences = self.core.leases.fences().with(&leases);
        let tree = Tree::of(&name, &labels, node, &fences, &self.tree)
            .map_err(|error| error.to_string())?;
        if let Some(path) = tree.missing(&fences) {
            return Err(format!("there is no driver at {path}, which is to be leased apart"));
        }
        let difference = tree.since(&self.tree);
        let units = difference.touched();
        self.suspend(&units).await?;
        // Nothing can be refused from here on.
        self.apply(&difference, &tree, fences).await;
        let word = Word::Reloaded { rules: Box::new(leases), hooks: Box::new(hooks) };
        let _ = self.core.leases.insist(word).await; // gone: the exporter stops
        self.presenter.replace(labels, tree.records());
        if let Err(error) = self.presenter.publish_tree(&self.core).await {
            tracing::debug!(%error, "the tree is not published yet");
        }
        self.tree = tree;
        Ok(difference.to_string())
    }

    /// Ends what uses subtrees, and waits until it has ended.
    async fn suspend(&self, units: &[usize]) -> Result<(), String> {
        if units.is_empty() {
            return Ok(());
        }
        let (done, free) = oneshot::channel();
        let _ = self.core.leases.insist(Word::Suspend { units: units.to_vec(), done }).await;
        let nobody = async {
            let _ = free.await; // gone: the exporter stops
            for unit in units {
                let fence = self.core.leases.fence(*unit);
                while self.core.ledger().going(*unit, &fence.lets_go_on()) {
                    sleep(LOOK_EVERY).await;
                }
            }
        };
        if timeout(FREE_WITHIN, nobody).await.is_err() {
            let _ = self.core.leases.insist(Word::GoOn { units: units.to_vec() }).await;
            let within = humantime::format_duration(FREE_WITHIN);
            return Err(format!("what is to be replaced is in use, and did not end in {within}"));
        }
        Ok(())
    }

    async fn apply(&self, difference: &Difference, tree: &Tree, fences: Fences) {
        let removed = difference.removed.iter().map(|slot| (slot, None));
        let changed = difference.changed.iter().map(|(slot, next)| (slot, Some(next.clone())));
        stream::iter(removed.chain(changed))
            .for_each_concurrent(AT_ONCE, |(slot, next)| self.move_out(slot, next))
            .await;
        self.core.leases.replace_fences(fences);
        self.core.replace_slots(tree.slots());
        let moving_in =
            difference.added.iter().chain(difference.changed.iter().map(|(slot, _)| slot));
        stream::iter(moving_in)
            .for_each_concurrent(AT_ONCE, |slot| async move {
                let made = make(slot).await;
                let message = |done| SupervisorMsg::Made(slot.clone(), made, Some(done));
                let _ = self.supervisor.call(message, None).await; // gone: the exporter stops
            })
            .await;
        self.listen(&difference.added).await;
    }

    /// Makes a device safe and lets go of it. Whoever calls the driver meanwhile is told.
    async fn move_out(&self, slot: &Arc<Slot>, next: Option<Factory>) {
        if let Ok(tenant) = slot.tenant() {
            make_safe(&self.core, slot, &tenant.driver).await;
        }
        let _ = self.supervisor.call(|done| SupervisorMsg::Forget(slot.clone(), done), None).await;
        let is_removed = next.is_none();
        if let Some(tenant) = slot.vacate(next) {
            let _ = tenant.actor.stop_and_wait(None, Some(LET_GO_WITHIN)).await; // it may be gone
        }
        if is_removed && let Some(gate) = slot.gate.get() {
            gate.abort();
        }
    }

    /// Subscribes for new drivers, and waits until the broker knows.
    async fn listen(&self, slots: &[Arc<Slot>]) {
        let mut subjects = Vec::with_capacity(slots.len());
        for slot in slots {
            match gate::open(&self.core, slot).await {
                Ok(()) => subjects.push(FromClient::driver_wildcard(
                    &self.core.root,
                    &self.core.name,
                    slot.id,
                )),
                Err(error) => tracing::error!(%error, actor = %slot.address, "cannot be called"),
            }
        }
        // One of many, and the broker's rule is the same for all.
        if let Some(subject) = subjects.first() {
            let own = recorder::ack_inbox(&self.core).token(random());
            let confirmed =
                self.core.control().confirm(own, self.core.name.as_str(), &[subject]).await;
            if let Err(error) = confirmed {
                tracing::error!(%error, "new drivers cannot be called");
            }
        }
    }
}

/// Reads an exporter's configuration anew. An error is for people.
#[derive(Clone)]
pub struct ConfigSource(Arc<dyn Fn() -> Result<ExporterConfig, String> + Send + Sync>);

impl ConfigSource {
    /// One that does this.
    pub fn new(read: impl Fn() -> Result<ExporterConfig, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigSource")
    }
}

/// A wish that the configuration be read anew.
pub(crate) struct Wish {
    /// Who has it.
    pub(crate) by: String,
    /// What was done, or why nothing was.
    pub(crate) done: oneshot::Sender<Result<String, String>>,
}

/// How the rest of the exporter has its configuration read anew.
#[derive(Clone)]
pub(crate) struct Reloads(mpsc::Sender<Wish>);

impl Reloads {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, inbox) = mpsc::channel(WISHES_MAX);
        (Self(wishes), inbox)
    }

    /// Reads the configuration anew; says what that changed.
    ///
    /// # Errors
    ///
    /// Why nothing was changed, for people.
    pub(crate) async fn ask(&self, by: String) -> Result<String, String> {
        const LEAVES: &str = "the exporter is shutting down";
        let (done, answer) = oneshot::channel();
        self.0.try_send(Wish { by, done }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "the configuration is being read already",
            mpsc::error::TrySendError::Closed(_) => LEAVES,
        })?;
        answer.await.unwrap_or_else(|_| Err(LEAVES.to_owned()))
    }
}

impl Difference {
    /// The subtrees in which a driver is removed or replaced.
    fn touched(&self) -> Vec<usize> {
        let changed = self.changed.iter().map(|(slot, _)| slot);
        let units: BTreeSet<_> =
            self.removed.iter().chain(changed).map(|slot| slot.fence.unit).collect();
        units.into_iter().collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, removed, added, changed } = self;
        let (added, changed, removed) = (added.len(), changed.len(), removed.len());
        write!(f, "drivers: {added} new, {changed} changed, {removed} gone, {kept} as they were")
    }
}
