//! The actor of one driver. Its mailbox carries admission and life-cycle, never the work:
//! operations are tasks that it owns, and that end when it does.

use std::sync::Arc;

use bus_schema::{Failure, Refusal, RefusalCode, Serve};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Answer,
    core::Core,
    operation::{Work, work},
    request::Request,
    slot::Slot,
};

/// Owns one driver's value and its running operations.
pub(crate) struct DriverActor;

/// What the actor is told.
pub(crate) enum DriverMsg {
    /// Run this.
    Operate(Admitted),
    /// An operation panicked: that counts like a panic of the actor.
    Panicked(String),
}

/// An admitted request on its way to an operation. An actor that ends drops what is left in its
/// mailbox: then this answers that nothing was executed, and gives the call's place back.
pub(crate) struct Admitted {
    core: Arc<Core>,
    request: Option<Box<Request>>,
}

impl Admitted {
    pub(crate) fn new(core: Arc<Core>, request: Request) -> Self {
        Self { core, request: Some(Box::new(request)) }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return; // the runtime is gone, and every call with it
        }
        let core = self.core.clone();
        self.core.tasks.spawn(async move {
            let Request { voice, receipt, reply_to, caller, id, .. } = *request;
            let refusal = Refusal::new(RefusalCode::Restarting, "the driver is being restarted");
            let answer = Answer::failed(voice, Failure::Refused(refusal));
            core.conclude(receipt, &reply_to, &caller, id, answer).await;
        });
    }
}

/// What it is made of.
pub(crate) struct DriverArgs {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) driver: Arc<dyn Serve>,
}

pub(crate) struct DriverState {
    args: DriverArgs,
    operations: TaskTracker,
    /// Cancelled when this value is dropped, however the actor ends.
    gone: CancellationToken,
}

impl Drop for DriverState {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl Actor for DriverActor {
    type Msg = DriverMsg;
    type State = DriverState;
    type Arguments = DriverArgs;

    async fn pre_start(
        &self,
        _: ActorRef<DriverMsg>,
        args: DriverArgs,
    ) -> Result<DriverState, ActorProcessingErr> {
        Ok(DriverState { args, operations: TaskTracker::new(), gone: CancellationToken::new() })
    }

    async fn handle(
        &self,
        myself: ActorRef<DriverMsg>,
        message: DriverMsg,
        state: &mut DriverState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DriverMsg::Operate(mut admitted) => {
                let Some(request) = admitted.request.take() else { return Ok(()) };
                let DriverArgs { core, slot, driver } = &state.args;
                let operation = Work {
                    core: core.clone(),
                    slot: slot.clone(),
                    driver: driver.clone(),
                    actor: myself,
                    gone: state.gone.clone(),
                    request: *request,
                };
                // Boxed: a task moves its future when it ends, and this is a large one.
                state.operations.spawn(Box::pin(work(operation)));
                Ok(())
            }
            // Ends this actor; the supervisor makes the next.
            DriverMsg::Panicked(what) => Err(what.into()),
        }
    }
}
