//! A driver's place at its exporter: it outlasts the actors that come and go in it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use bus_schema::{DriverId, Interface, Kind, Method, Path, Refusal, RefusalCode, Serve};
use ractor::ActorRef;
use tokio::task::AbortHandle;

use super::{driver_actor::Panicked, flag::Flag, lease::Fence, turn::Turn, usage::Usage};
use crate::node::Factory;

/// One driver's place.
pub(crate) struct Slot {
    pub(crate) id: DriverId,
    /// The address, for logs and for those who wait for the turn.
    pub(crate) address: Box<str>,
    pub(crate) path: Path,
    factory: RwLock<Factory>,
    /// Counts the factories it had. What was begun with an earlier one is let go.
    version: AtomicU64,
    /// The task that serves its subscription.
    pub(crate) gate: OnceLock<AbortHandle>,
    pub(crate) turn: Turn,
    /// How many calls get a task each from the start: one before them has blocked its thread.
    pub(crate) wary: AtomicU32,
    /// The fence around the subtree that it is leased with.
    pub(crate) fence: Arc<Fence>,
    pub(crate) usage: Usage,
    /// How often its driver went down while it ran.
    pub(crate) restarts: AtomicU64,
    state: RwLock<State>,
}

/// Who is in the place.
pub(crate) enum State {
    /// Nobody yet, or no longer: why, and whether somebody is coming.
    Vacant { why: String, for_good: bool },
    /// An actor with a driver.
    Up(Arc<Tenant>),
}

/// An actor and what it can do.
pub(crate) struct Tenant {
    pub(crate) actor: ActorRef<Panicked>,
    pub(crate) driver: Arc<dyn Serve>,
    /// Raised when the actor is gone.
    pub(crate) gone: Flag,
    pub(crate) interfaces: Box<[Arc<Interface>]>,
}

/// A method, and the interface that it is of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MethodRef {
    interface: Arc<Interface>,
    at: usize,
}

impl MethodRef {
    /// Whether its calls run one at a time.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.kind == Kind::Call && !self.concurrent
    }
}

impl Deref for MethodRef {
    type Target = Method;

    fn deref(&self) -> &Method {
        &self.interface.methods[self.at]
    }
}

impl fmt::Debug for MethodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MethodRef").field(&self.name).finish()
    }
}

impl Slot {
    pub(crate) fn new(
        id: DriverId,
        address: Box<str>,
        path: Path,
        factory: Factory,
        turn: Turn,
        fence: Arc<Fence>,
    ) -> Self {
        let state = State::Vacant { why: "starting".to_owned(), for_good: false };
        Self {
            id,
            address,
            path,
            factory: RwLock::new(factory),
            version: AtomicU64::new(0),
            gate: OnceLock::new(),
            turn,
            wary: AtomicU32::new(0),
            fence,
            usage: Usage::default(),
            restarts: AtomicU64::new(0),
            state: RwLock::new(state),
        }
    }

    /// What makes its driver, and the number of that.
    pub(crate) fn factory(&self) -> (u64, Factory) {
        let factory = self.factory.read().unwrap_or_else(PoisonError::into_inner);
        (self.version(), factory.clone())
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Nobody is in it from now on, until another driver moves in, if there is to be one. Gives
    /// who was.
    pub(crate) fn vacate(&self, next: Option<Factory>) -> Option<Arc<Tenant>> {
        let for_good = next.is_none();
        let why = match &next {
            Some(_) => "its configuration has changed",
            None => "the configuration has it no longer",
        };
        {
            let mut factory = self.factory.write().unwrap_or_else(PoisonError::into_inner);
            self.version.fetch_add(1, Ordering::AcqRel);
            if let Some(next) = next {
                *factory = next;
            }
        }
        let vacant = State::Vacant { why: why.to_owned(), for_good };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, vacant) {
            State::Up(tenant) => Some(tenant),
            State::Vacant { .. } => None,
        }
    }

    pub(crate) fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The tenant, or the refusal that says why there is none.
    pub(crate) fn tenant(&self) -> Result<Arc<Tenant>, Refusal> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(tenant) => Ok(tenant.clone()),
            State::Vacant { why, for_good: true } => Err(Refusal::new(
                RefusalCode::Failed,
                format_args!("driver {} was given up: {why}", self.address),
            )),
            State::Vacant { why, for_good: false } => Err(Refusal::new(
                RefusalCode::Restarting,
                format_args!("driver {} is being restarted: {why}", self.address),
            )),
        }
    }
}

impl Tenant {
    /// The method called `name`, by the first interface that has it.
    pub(crate) fn method(&self, name: &str) -> Result<MethodRef, Refusal> {
        let find = |interface: &Arc<Interface>| {
            let at = interface.methods.iter().position(|method| method.name == name)?;
            Some(MethodRef { interface: interface.clone(), at })
        };
        self.interfaces.iter().find_map(find).ok_or_else(|| {
            let known: Vec<_> = self.methods().map(|method| method.name.as_str()).collect();
            let text = match known.is_empty() {
                true => "the driver has no methods of its own: see its children".to_owned(),
                false => format!("no method {name:?}: there are {}", known.join(", ")),
            };
            Refusal::new(RefusalCode::UnknownMethod, text)
        })
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        self.interfaces.iter().flat_map(|interface| &interface.methods)
    }
}
