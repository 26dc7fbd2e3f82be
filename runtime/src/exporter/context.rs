//! What a driver's method may know and do while it runs.

use std::{
    any::Any,
    fmt,
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bus_schema::{CallId, ClientName, Failure, RawContext};
use tokio_util::sync::CancellationToken;

use super::{
    core::Core,
    flag::Flag,
    turn::{Turn, TurnGuard, What},
};
use crate::stream::foreign;

/// The operation that a method runs in. A method asks for it by a first parameter `cx: &Context`.
#[derive(Clone)]
pub struct Context(Arc<Operation>);

/// One operation, as its method sees it.
pub(crate) struct Operation {
    pub(crate) caller: ClientName,
    pub(crate) id: Option<CallId>,
    pub(crate) what: What,
    pub(crate) cancel: Flag,
    pub(crate) turn: Turn,
    /// For what is lent; none where nobody called.
    pub(crate) core: Option<Arc<Core>>,
    pub(crate) loans: Loans,
    /// The turn, while the operation holds it: an exclusive call does all the time.
    pub(crate) held: Held,
}

/// Ends what was lent to an operation when that ends. Few are lent anything, so the token is not
/// made before it is asked for.
#[derive(Default)]
pub(crate) struct Loans {
    token: OnceLock<CancellationToken>,
    over: AtomicBool,
}

impl Loans {
    /// The operation has ended.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }

    fn token(&self, make: impl FnOnce() -> CancellationToken) -> &CancellationToken {
        let token = self.token.get_or_init(make);
        if self.over.load(Ordering::SeqCst) {
            token.cancel();
        }
        token
    }
}

/// The turn that an operation holds, if it does. Shared only once somebody asks for it.
#[derive(Default)]
pub(crate) struct Held(Mutex<Hold>);

#[derive(Default)]
enum Hold {
    #[default]
    Nothing,
    Own(TurnGuard),
    Shared(Arc<TurnGuard>),
}

impl Held {
    pub(crate) fn put(&self, turn: TurnGuard) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Hold::Own(turn);
    }

    fn share(&self) -> Option<Arc<TurnGuard>> {
        let mut hold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match std::mem::take(&mut *hold) {
            Hold::Nothing => return None,
            Hold::Own(turn) => Arc::new(turn),
            Hold::Shared(turn) => turn,
        };
        *hold = Hold::Shared(shared.clone());
        Some(shared)
    }
}

impl Context {
    /// Who called. On a broker without authentication this is what the caller says.
    pub fn caller(&self) -> &ClientName {
        &self.0.caller
    }

    /// Which call it is; none if a plain NATS client made it.
    pub fn call_id(&self) -> Option<CallId> {
        self.0.id
    }

    /// Whether the caller no longer wants the result.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancel.is_raised()
    }

    /// Resolves when the caller no longer wants the result. After it a method has
    /// [`CANCEL_GRACE`](bus_schema::limits::CANCEL_GRACE) to leave things tidy.
    pub async fn cancelled(&self) {
        self.0.cancel.raised().await;
    }

    /// The right to touch the device, for streaming calls, streams and concurrent calls. An
    /// exclusive call holds it already and gets it at once.
    pub async fn turn(&self) -> Arc<TurnGuard> {
        match self.0.held.share() {
            Some(guard) => guard,
            None => Arc::new(self.0.turn.ticket(self.0.what.clone()).turn().await),
        }
    }

    /// Runs code that blocks on a thread of its own: it begins at once, and is waited for by who
    /// wants what it gives. The turn, if the operation holds it, is kept until that code has really
    /// ended, even if the operation is cancelled meanwhile.
    pub fn blocking<T, F>(&self, work: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.blocking(work)
    }
}

impl Context {
    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        self.0.core.as_ref()
    }

    pub(crate) fn loans(&self) -> &CancellationToken {
        let core = self.0.core.as_ref();
        self.0
            .loans
            .token(|| core.map_or_else(CancellationToken::new, |core| core.stop.child_token()))
    }
}

impl Operation {
    fn blocking<T, F>(&self, work: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let held = self.held.share();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = held;
            work()
        });
        async move {
            match done.await {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The runtime is going down and takes this future with it.
                    Err(_cancelled) => std::future::pending().await,
                },
            }
        }
    }
}

impl bus_schema::Blocking for Operation {
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.blocking(work))
    }
}

impl From<Arc<Operation>> for Context {
    fn from(operation: Arc<Operation>) -> Self {
        Self(operation)
    }
}

impl Context {
    /// The context as generated code passes it on.
    pub(crate) fn raw(&self) -> RawContext {
        let any: Arc<dyn Any + Send + Sync> = self.0.clone();
        RawContext::new(any, self.0.clone())
    }
}

impl TryFrom<RawContext> for Context {
    type Error = Failure;

    fn try_from(raw: RawContext) -> Result<Self, Failure> {
        raw.any().clone().downcast().map(Self).map_err(|_| foreign("Context"))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("caller", &self.0.caller)
            .field("what", &self.0.what)
            .finish_non_exhaustive()
    }
}
