//! The actor of one driver: its life. It holds the driver's value, and every operation on that
//! value ends with it. Its mailbox carries its end and never the work.

use std::sync::Arc;

use bus_schema::Serve;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::flag::{Flag, RaiseOnDrop};

/// Holds one driver's value while it is in use.
pub(crate) struct DriverActor;

/// What the actor is told: an operation panicked, which counts like a panic of its own.
pub(crate) struct Panicked(pub(crate) String);

/// What it is made of.
pub(crate) struct DriverArgs {
    pub(crate) driver: Arc<dyn Serve>,
    /// Raised when the actor is gone, however it ends: operations watch it.
    pub(crate) gone: Flag,
}

pub(crate) struct DriverState {
    _driver: Arc<dyn Serve>,
    _gone: RaiseOnDrop,
}

impl Actor for DriverActor {
    type Msg = Panicked;
    type State = DriverState;
    type Arguments = DriverArgs;

    async fn pre_start(
        &self,
        _: ActorRef<Panicked>,
        args: DriverArgs,
    ) -> Result<DriverState, ActorProcessingErr> {
        Ok(DriverState { _driver: args.driver, _gone: args.gone.raise_on_drop() })
    }

    /// Ends this actor; the supervisor makes the next.
    async fn handle(
        &self,
        _: ActorRef<Panicked>,
        Panicked(what): Panicked,
        _: &mut DriverState,
    ) -> Result<(), ActorProcessingErr> {
        Err(what.into())
    }
}
