//! A driver's place at its exporter: it outlasts the actors that come and go in it.

use std::sync::{Arc, PoisonError, RwLock, atomic::AtomicU64};

use bus_schema::{DriverId, Interface, Method, Path, Refusal, RefusalCode, Serve};
use ractor::ActorRef;
use tokio_util::sync::CancellationToken;

use super::{driver_actor::Panicked, lease::Fence, turn::Turn, usage::Usage};
use crate::node::Factory;

/// One driver's place.
pub(crate) struct Slot {
    pub(crate) id: DriverId,
    /// The address, for logs and for those who wait for the turn.
    pub(crate) address: Box<str>,
    pub(crate) path: Path,
    pub(crate) factory: Factory,
    pub(crate) turn: Turn,
    /// The fence around the subtree that it is leased with.
    pub(crate) fence: Arc<Fence>,
    pub(crate) usage: Usage,
    /// How often its driver went down while it ran.
    pub(crate) restarts: AtomicU64,
    state: RwLock<State>,
}

/// Who is in the place.
#[derive(Clone)]
pub(crate) enum State {
    /// Nobody yet, or no longer: why, and whether somebody is coming.
    Vacant { why: String, for_good: bool },
    /// An actor with a driver.
    Up(Tenant),
}

/// An actor and what it can do.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) actor: ActorRef<Panicked>,
    pub(crate) driver: Arc<dyn Serve>,
    /// Cancelled when the actor is gone.
    pub(crate) gone: CancellationToken,
    pub(crate) interfaces: Arc<[Arc<Interface>]>,
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
            factory,
            turn,
            fence,
            usage: Usage::default(),
            restarts: AtomicU64::new(0),
            state: RwLock::new(state),
        }
    }

    pub(crate) fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The tenant, or the refusal that says why there is none.
    pub(crate) fn tenant(&self) -> Result<Tenant, Refusal> {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Up(tenant) => Ok(tenant.clone()),
            State::Vacant { why, for_good: true } => Err(Refusal::new(
                RefusalCode::Failed,
                format_args!("driver {} crashed too often and was given up: {why}", self.address),
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
    pub(crate) fn method(&self, name: &str) -> Result<(Arc<Interface>, usize), Refusal> {
        let find = |interface: &Arc<Interface>| {
            let at = interface.methods.iter().position(|method| method.name == name)?;
            Some((interface.clone(), at))
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
