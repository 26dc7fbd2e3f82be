//! An exporter: a named process that serves a tree of drivers.

mod answer;
mod context;
mod core;
mod denials;
mod desk;
mod driver_actor;
mod events;
mod flag;
mod gate;
mod lease;
mod ledger;
mod logs;
mod metrics;
mod operation;
mod outbox;
mod parcels;
mod presence;
mod recorder;
mod reload;
mod request;
mod service;
mod slot;
mod stats;
mod supervisor;
mod tree;
mod turn;
mod usage;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{
    DriverId, EventKind, ExporterName, Incarnation, Root,
    subject::{ExporterVerb, FromClient},
};
use futures_util::{StreamExt as _, stream};
use ractor::ActorRef;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use self::{
    context::Context,
    lease::{AccessRule, Hook, HookFailure, Hooks, LeaseRules},
    metrics::Metrics,
    reload::ConfigSource,
    turn::TurnGuard,
};
pub(crate) use self::{
    core::Core,
    events::since_1970_ms,
    lease::{Fence, Pass},
    operation::collect,
};
use self::{
    events::Happened,
    lease::{Fences, Journal, JournalError, JournalOpened, Keeper, Leases},
    presence::Presenter,
    reload::{Reloader, Reloads},
    supervisor::{Supervision, SupervisorMsg, make, make_safe},
    tree::Tree,
};
use crate::{
    LogTap, Settings,
    bus::{Bus, BusError, random},
    node::Node,
};

/// Drivers that are made, or made safe, at the same time.
const AT_ONCE: usize = 64;

/// What an exporter is made of.
#[derive(Debug)]
pub struct ExporterConfig {
    /// Its name.
    pub name: ExporterName,
    /// The first token of its subjects.
    pub root: Root,
    /// Its labels, for selectors; its drivers have them too.
    pub labels: BTreeMap<String, String>,
    /// The tree.
    pub node: Node,
    /// Where it keeps what must outlast it. Without one it cannot know whether its last run ended
    /// well.
    pub state_dir: Option<PathBuf>,
    /// Who may lease what.
    pub leases: LeaseRules,
    /// What runs around a lease.
    pub hooks: Hooks,
    /// Reads all this anew, for [`Exporter::reload`] and for admins.
    pub source: Option<ConfigSource>,
    /// Where its log and those of its drivers are taken from. Without one they are not on the bus.
    pub log: Option<LogTap>,
}

impl ExporterConfig {
    /// A tree under a name.
    pub fn new(name: ExporterName, node: Node) -> Self {
        Self {
            name,
            root: Root::default(),
            labels: BTreeMap::new(),
            node,
            state_dir: None,
            leases: LeaseRules::default(),
            hooks: Hooks::default(),
            source: None,
            log: None,
        }
    }
}

/// Why an exporter did not start.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The broker.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The name is taken.
    #[error("an exporter named {name} is up already, on {host} for {for_secs} s")]
    NameTaken {
        /// The name.
        name: ExporterName,
        /// Where its holder runs.
        host: String,
        /// How long it has.
        for_secs: u64,
    },
    /// Two drivers with one UUID.
    #[error("{first} and {second} have the same UUID {id}")]
    SameId {
        /// The UUID.
        id: DriverId,
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// An alias of nothing.
    #[error("{alias} stands for {target}, and there is no such driver")]
    NoTarget {
        /// The alias.
        alias: String,
        /// What it stands for.
        target: String,
    },
    /// The state directory.
    #[error("cannot write to the state directory {dir}: {source}")]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The journal of leases.
    #[error("{0}")]
    Journal(String),
    /// A subtree that is to be leased apart and is not there.
    #[error("there is no driver at {path}, which is to be leased apart")]
    NoSubtree {
        /// Where it should be.
        path: String,
    },
}

impl From<JournalError> for ExporterError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// Why an exporter did not stop as asked.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Calls did not end in time; they were cut off.
    #[error("{calls} call(s) were still running after {grace:?} and were cut off")]
    Stuck {
        /// How many.
        calls: usize,
        /// The time they had.
        grace: Duration,
    },
    /// Devices that are not safe.
    #[error("not safe: {}", drivers.join(", "))]
    Unsafe {
        /// The addresses of their drivers.
        drivers: Vec<String>,
    },
}

/// A running exporter. Dropping it stops its drivers without waiting for them.
#[must_use = "dropping an Exporter stops its drivers; keep it, or call `shutdown`"]
pub struct Exporter {
    core: Arc<Core>,
    supervision: Supervision,
    presenter: Presenter,
    marker: Option<PathBuf>,
    _stop_on_drop: tokio_util::sync::DropGuard,
}

/// Why an exporter has stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Another one has its name.
    Replaced,
    /// A hook failed that is to stop it then ([`HookFailure::Exit`]): how.
    Hook(String),
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl Exporter {
    /// Starts one: connects, claims the name, makes the drivers, and returns when the broker has
    /// every subscription.
    ///
    /// # Errors
    ///
    /// [`ExporterError`]; nothing is left running then.
    pub async fn start(config: ExporterConfig, settings: Settings) -> Result<Self, ExporterError> {
        let ExporterConfig { name, root, labels, node, state_dir, leases: rules, .. } = config;
        let ExporterConfig { hooks, source, log, .. } = config;
        let fences = Fences::new(&rules);
        let tree = Tree::of(&name, &labels, node, &fences, &Tree::default())?;
        if let Some(path) = tree.missing(&fences) {
            return Err(ExporterError::NoSubtree { path: path.to_string() });
        }
        let is_private = settings.is_loopback();
        let bus = Bus::connect(settings, &format!("jmp-bus exporter {name}")).await?;
        let bulk = bus.bulk().await?.clone();
        let stop = CancellationToken::new();
        let stop_on_drop = stop.clone().drop_guard();
        let (host, incarnation) = (crate::host_name(), Incarnation(random()));
        let (leases, words) = Leases::new(fences);
        let (reloads, wishes) = Reloads::new();
        let slots = tree.slots();
        let core =
            Core::new(root, name, incarnation, host, bus, bulk, slots, leases, reloads, stop);
        let is_among_us = is_private && core.control().is_authenticated();
        if !core.control().vouches() && !is_among_us {
            tracing::warn!(
                "the broker does not know its users apart: a client is who it says it is"
            );
        }
        if let Some(tap) = log {
            core.tasks.spawn(logs::post(core.clone(), tap));
        }
        for conn in [core.control(), &core.bulk] {
            core.tasks.spawn(denials::log(core.clone(), conn.denials.clone()));
        }
        // Whoever may not hear its own inbox is somebody else to the broker: better told at once.
        let own = recorder::ack_inbox(&core).token(random());
        core.control().confirm(own, core.name.as_str(), &[]).await?;
        let presenter = Presenter::claim(&core, labels, tree.records()).await?;
        // After the claim: who finds the name taken is told that, and leaves no mark.
        let (journal, marker) = match open_state(state_dir) {
            Ok(opened) => opened,
            Err(error) => {
                presenter.left(&core).await;
                return Err(error);
            }
        };
        let supervision = Supervision::begin(core.clone()).await;
        let unclean = marker.as_ref().is_some_and(|marker| marker.was_there);
        let mut keeper = Keeper::new(core.clone(), rules, hooks, words, journal);
        keeper.take_over().await;
        keeper.raise_fences();
        move_in(&core, &supervision.supervisor, unclean, &keeper.held()).await;
        core.tasks.spawn(keeper.run());
        listen(&core).await?;
        presenter.publish_tree(&core).await?;
        core.tasks.spawn(presenter.clone().run(core.clone()));
        core.tasks.spawn(service::serve(core.clone()));
        core.tasks.spawn(sweep(core.clone()));
        core.tasks.spawn(outbox::post(core.clone()));
        core.tasks.spawn(events::post(core.clone()));
        core.events.tell(Happened::now(EventKind::ExporterUp).because(&core.host));
        tracing::info!(exporter = %core.name, drivers = core.slots().by_id.len(), %incarnation, "exporter is up");
        let reloader = Reloader {
            core: core.clone(),
            tree,
            supervisor: supervision.supervisor.clone(),
            presenter: presenter.clone(),
            source,
            wishes,
        };
        core.tasks.spawn(reloader.run());
        let marker = marker.map(|marker| marker.path);
        Ok(Self { core, supervision, presenter, marker, _stop_on_drop: stop_on_drop })
    }

    /// Its name.
    pub fn name(&self) -> &ExporterName {
        &self.core.name
    }

    /// Its figures.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.core)
    }

    /// Reads its configuration anew, if it has a source for that: what that does not change goes
    /// on as it is, leases included. Says what was changed.
    ///
    /// # Errors
    ///
    /// Why nothing was changed, for people.
    pub async fn reload(&self, by: &str) -> Result<String, String> {
        self.core.reloads.ask(by.to_owned()).await
    }

    /// Resolves when the exporter has stopped by itself, with why.
    pub async fn stopped(&self) -> Stopped {
        self.core.stop.cancelled().await;
        self.core.stopped.get().cloned().unwrap_or(Stopped::Replaced)
    }

    /// Stops in the order that keeps promises: takes no new calls, lets running ones finish, makes
    /// the devices safe, then leaves, last replies delivered.
    ///
    /// # Errors
    ///
    /// [`ShutdownError`] if calls had to be cut off after `grace`, or a device is not safe.
    pub async fn shutdown(self, grace: Duration) -> Result<(), ShutdownError> {
        let core = &self.core;
        core.ledger().close();
        // What is held goes on after a restart.
        let _ = core.leases.tell(lease::Word::Close { why: "the exporter is shutting down" });
        core.draining.cancel();
        core.events.tell(Happened::now(EventKind::ExporterDraining));
        self.presenter.draining(core).await;
        core.switchboard.reset_all(
            bus_schema::message::ResetCode::ShuttingDown,
            "the exporter is shutting down",
        );
        let stuck = drain(core, grace).await;
        let unsafe_drivers = make_all_safe(core).await;
        self.supervision.end(grace).await;
        self.presenter.left(core).await;
        core.events.tell(Happened::now(EventKind::ExporterLeft));
        core.stop.cancel();
        core.tasks.close();
        let _ = timeout(grace, core.tasks.wait()).await;
        core.bus.close().await;
        if let (Some(marker), true) = (&self.marker, unsafe_drivers.is_empty()) {
            let _ = std::fs::remove_file(marker); // the next start makes safe once more, then
        }
        if !unsafe_drivers.is_empty() {
            return Err(ShutdownError::Unsafe { drivers: unsafe_drivers });
        }
        match stuck {
            0 => Ok(()),
            calls => Err(ShutdownError::Stuck { calls, grace }),
        }
    }
}

/// What of an exporter outlasts it.
fn open_state(
    dir: Option<PathBuf>,
) -> Result<(Option<JournalOpened>, Option<Marker>), ExporterError> {
    let journal = dir.as_deref().map(Journal::open).transpose()?;
    Ok((journal, dir.map(mark).transpose()?))
}

/// A file that is there while an exporter runs: a start that finds it follows a crash.
struct Marker {
    path: PathBuf,
    was_there: bool,
}

fn mark(dir: PathBuf) -> Result<Marker, ExporterError> {
    let path = dir.join("running");
    let was_there = path.exists();
    let write = || {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(&path, std::process::id().to_string())
    };
    write().map_err(|source| ExporterError::StateDir { dir: dir.clone(), source })?;
    Ok(Marker { path, was_there })
}

/// Makes every driver's value and its actor. After a crash of the exporter devices are made safe
/// before they can be called, but for those of a lease that still runs.
async fn move_in(
    core: &Arc<Core>,
    supervisor: &ActorRef<SupervisorMsg>,
    unclean: bool,
    held: &[usize],
) {
    if unclean {
        tracing::warn!("the last run did not end well: devices are made safe");
    }
    stream::iter(core.slots().by_id.values())
        .for_each_concurrent(AT_ONCE, |slot| async move {
            let made = make(slot).await;
            if let (true, Ok(driver)) = (unclean && !held.contains(&slot.fence.unit), &made.driver)
            {
                make_safe(core, slot, driver).await;
            }
            let message = |done| SupervisorMsg::Made(slot.clone(), made, Some(done));
            let _ = supervisor.call(message, None).await; // the supervisor outlives the start
        })
        .await;
}

/// Subscribes for every driver and for the exporter itself, and waits until the broker knows.
async fn listen(core: &Arc<Core>) -> Result<(), BusError> {
    let inbox = recorder::ack_inbox(core);
    let mut acks = core.bulk.subscribe(inbox.wildcard()).await?;
    let (acking, own) = (core.clone(), inbox.clone());
    core.tasks.spawn(async move {
        loop {
            let answer = tokio::select! {
                biased;
                () = acking.stop.cancelled() => return,
                answer = acks.next() => answer,
            };
            let Some(answer) = answer else { return };
            if let Some(token) = own.read(answer.subject()) {
                acking.acks.on_answer(token, &answer);
            }
        }
    });
    for (verb, subscription) in desk::subscribe(core).await? {
        core.tasks.spawn(desk::desk(core.clone(), verb, subscription));
    }
    for slot in core.slots().by_id.values() {
        gate::open(core, slot).await?;
    }
    let name = core.name.as_str();
    core.bulk.confirm(inbox.token(random()), name, &[&inbox.wildcard()]).await?;
    // One of many, and the broker's rule is the same for all.
    let asks = FromClient::exporter_wildcard(&core.root, &core.name, ExporterVerb::Ask);
    core.control().confirm(inbox.token(random()), name, &[&asks]).await
}

/// Forgets what is past its time.
async fn sweep(core: Arc<Core>) {
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = sleep(EVERY) => core.ledger().sweep(core.uptime()),
        }
    }
}

/// Waits for running calls; cancels what is left. Says how many those were.
async fn drain(core: &Core, grace: Duration) -> usize {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    let until = Instant::now() + grace;
    loop {
        let open = core.ledger().open();
        if open == 0 {
            return 0;
        }
        if Instant::now() >= until {
            core.ledger().cancel_all();
            let cut_off = Instant::now() + bus_schema::limits::CANCEL_GRACE;
            while core.ledger().open() > 0 && Instant::now() < cut_off {
                sleep(LOOK_EVERY).await;
            }
            return open;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Makes every device safe; gives the addresses of those that are not.
async fn make_all_safe(core: &Arc<Core>) -> Vec<String> {
    stream::iter(core.slots().by_id.values())
        .map(|slot| async move {
            let tenant = slot.tenant().ok()?;
            (!make_safe(core, slot, &tenant.driver).await).then(|| slot.address.to_string())
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|unsafe_one| async { unsafe_one })
        .collect()
        .await
}
