//! The supervisor of an exporter's drivers: restarts with backoff, gives up on a crash loop, and
//! sees to it that a device is safe after a crash.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bus_schema::{ClientName, DriverId, EventKind, Fault, Serve};
use futures_util::FutureExt as _;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use super::{
    context::{Context, Held, Loans, Operation},
    core::Core,
    driver_actor::{DriverActor, DriverArgs},
    events::Happened,
    flag::Flag,
    slot::{Slot, State, Tenant},
    turn::What,
};

/// A driver that crashes this often …
const CRASHES_MAX: usize = 5;
/// … within this time is given up.
const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// First pause before a restart; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// A device that was unplugged is looked for this often.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a driver has to make its device safe.
pub(crate) const SAFE_WITHIN: Duration = Duration::from_secs(10);

/// Owns the actors of one exporter.
pub(crate) struct Supervisor;

/// A supervisor at work. Dropping it stops it, and with it the actors of all drivers: an exporter
/// that is dropped, or whose start fails, leaves none behind.
pub(crate) struct Supervision {
    pub(crate) supervisor: ActorRef<SupervisorMsg>,
    ended: JoinHandle<()>,
}

impl Supervision {
    pub(crate) async fn begin(core: Arc<Core>) -> Self {
        let started = Supervisor::spawn(None, Supervisor, core).await;
        let (supervisor, ended) = started.expect("the supervisor's start cannot fail");
        Self { supervisor, ended }
    }

    /// Stops it, and waits for that no longer than `grace`.
    pub(crate) async fn end(mut self, grace: Duration) {
        self.supervisor.stop(None);
        let _ = timeout(grace, &mut self.ended).await;
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.supervisor.stop(None); // does nothing to one that has stopped
    }
}

pub(crate) enum SupervisorMsg {
    /// A driver's value is there, or could not be made.
    Made(Arc<Slot>, Made, Option<RpcReplyPort<()>>),
    /// Whoever is in the place leaves it: nobody is to be made anew for it.
    Forget(Arc<Slot>, RpcReplyPort<()>),
}

/// A driver's value, and which of its place's factories it is of.
pub(crate) struct Made {
    version: u64,
    pub(crate) driver: Result<Arc<dyn Serve>, Fault>,
}

pub(crate) struct SupervisorState {
    core: Arc<Core>,
    tenants: HashMap<ActorId, Arc<Slot>>,
    crashes: HashMap<DriverId, VecDeque<Instant>>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = SupervisorState;
    type Arguments = Arc<Core>;

    async fn pre_start(
        &self,
        _: ActorRef<SupervisorMsg>,
        core: Arc<Core>,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        Ok(SupervisorState { core, tenants: HashMap::new(), crashes: HashMap::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let done = match message {
            SupervisorMsg::Made(slot, Made { version, driver }, done) => {
                match driver {
                    _ if slot.version() != version => {} // the configuration has changed
                    Ok(driver) => state.move_in(&myself, slot, driver).await,
                    Err(fault) => state.try_again(&myself, slot, fault.text, Crash::Start),
                }
                done
            }
            SupervisorMsg::Forget(slot, done) => {
                state.tenants.retain(|_, other| !Arc::ptr_eq(other, &slot));
                state.crashes.remove(&slot.id);
                Some(done)
            }
        };
        if let Some(done) = done {
            let _ = done.send(()); // fails only if the exporter's start was given up
        }
        Ok(())
    }

    /// The default would end the supervisor with its first child.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        let (id, why) = match event {
            SupervisionEvent::ActorFailed(cell, error) => (cell.get_id(), error.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell.get_id(), reason.unwrap_or_else(|| "its actor ended".to_owned()))
            }
            _ => return Ok(()),
        };
        if let Some(slot) = state.tenants.remove(&id)
            && !state.core.draining.is_cancelled()
        {
            state.try_again(&myself, slot, why, Crash::Running);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Crash {
    /// The driver could not be made: its device is not there yet, perhaps.
    Start,
    /// It was running.
    Running,
}

impl SupervisorState {
    async fn move_in(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        slot: Arc<Slot>,
        driver: Arc<dyn Serve>,
    ) {
        let interfaces = driver.interfaces().into();
        let gone = Flag::default();
        let args = DriverArgs { driver: driver.clone(), gone: gone.clone() };
        match DriverActor::spawn_linked(None, DriverActor, args, myself.get_cell()).await {
            Ok((actor, _join)) => {
                self.tenants.insert(actor.get_id(), slot.clone());
                if self.crashes.contains_key(&slot.id) {
                    self.tell(EventKind::DriverRestarted, &slot, "");
                }
                slot.set(State::Up(Arc::new(Tenant { actor, driver, gone, interfaces })));
            }
            Err(error) => self.try_again(myself, slot, error.to_string(), Crash::Start),
        }
    }

    /// Makes a new value after a pause, or gives up.
    fn try_again(
        &mut self,
        myself: &ActorRef<SupervisorMsg>,
        slot: Arc<Slot>,
        why: String,
        crash: Crash,
    ) {
        let crashes = self.crashes.entry(slot.id).or_default();
        let recent = crashes.iter().filter(|at| at.elapsed() < CRASH_WINDOW).count();
        if crash == Crash::Running {
            crashes.retain(|at| at.elapsed() < CRASH_WINDOW);
            crashes.push_back(Instant::now());
        } else if recent == crashes.len() {
            crashes.push_back(Instant::now()); // lengthens the pause; never gives up on it
        }
        let for_good = crash == Crash::Running && crashes.len() >= CRASHES_MAX;
        let pause = (BACKOFF_MIN * (1 << crashes.len().min(8))).min(BACKOFF_MAX);
        if crash == Crash::Running {
            slot.restarts.fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(actor = %slot.address, why, for_good, "driver went down");
        match (crash, for_good) {
            (Crash::Running, true) => self.tell(EventKind::DriverFailed, &slot, &why),
            (Crash::Running, false) => self.tell(EventKind::DriverCrashed, &slot, &why),
            (Crash::Start, _) => {} // it may be looked for for days
        }
        let version = slot.version();
        let why = if for_good { format!("it crashed too often: {why}") } else { why };
        slot.set(State::Vacant { why, for_good });
        if for_good {
            return;
        }
        let (myself, core) = (myself.clone(), self.core.clone());
        self.core.tasks.spawn(async move {
            tokio::select! {
                () = core.draining.cancelled() => return,
                () = sleep(pause) => {}
            }
            if slot.version() != version {
                return; // the configuration has changed
            }
            let made = make(&slot).await;
            if let (Crash::Running, Ok(driver)) = (crash, &made.driver) {
                make_safe(&core, &slot, driver).await;
            }
            let _ = myself.send_message(SupervisorMsg::Made(slot, made, None)); // or it is gone
        });
    }
}

impl SupervisorState {
    fn tell(&self, kind: EventKind, slot: &Slot, why: &str) {
        self.core.events.tell(Happened::now(kind).at(slot.path.to_string()).because(why));
    }
}

/// Makes a driver's value. A panic of its code is a fault like any other.
pub(crate) async fn make(slot: &Slot) -> Made {
    let span = tracing::info_span!("make", actor = %slot.address);
    let (version, factory) = slot.factory();
    let making = std::panic::AssertUnwindSafe(async { factory().await });
    let made = making.catch_unwind().instrument(span).await;
    let driver =
        made.unwrap_or_else(|_panic| Err(Fault::device("the driver panicked when it was made")));
    Made { version, driver }
}

/// Makes a device safe, within [`SAFE_WITHIN`] and under its turn. Says whether it is.
pub(crate) async fn make_safe(core: &Core, slot: &Slot, driver: &Arc<dyn Serve>) -> bool {
    let itself: ClientName = "exporter".parse().expect("a name");
    let operation = Arc::new(Operation {
        caller: itself,
        id: None,
        what: What::Word("safe"),
        cancel: Flag::default(),
        turn: slot.turn.clone(),
        core: None,
        loans: Loans::default(),
        held: Held::default(),
    });
    let Some(serving) = driver.clone().safe(Context::from(operation.clone()).raw()) else {
        return true;
    };
    let made_safe = timeout(SAFE_WITHIN, async {
        let turn = slot.turn.ticket(What::Word("safe")).turn().await;
        operation.held.put(turn);
        std::panic::AssertUnwindSafe(serving).catch_unwind().await
    })
    .instrument(tracing::info_span!("make safe", actor = %slot.address));
    let problem = match made_safe.await {
        Ok(Ok(Ok(()))) => return true,
        Ok(Ok(Err(failure))) => failure.to_string(),
        Ok(Err(_panic)) => "the driver panicked".to_owned(),
        Err(_elapsed) => format!("it took more than {SAFE_WITHIN:?}"),
    };
    tracing::error!(actor = %slot.address, problem, "device is not safe");
    let unsafe_now = Happened::now(EventKind::DriverUnsafe).at(slot.path.to_string());
    core.events.tell(unsafe_now.because(problem));
    false
}
