//! What happens around a lease: before it begins, and until the next may begin.

use std::{sync::Arc, time::Duration};

use bus_schema::{Board, EventKind, codec, subject::FromExporter};
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    HookFailure, Hooks,
    book::Lease,
    hook::{self, When},
};
use crate::exporter::{AT_ONCE, Stopped, core::Core, presence, slot::Slot, supervisor::make_safe};

/// Operations of a lease that ended are looked at this often, first and later.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LATER: Duration = Duration::from_millis(50);

/// Runs the hook before a lease, until that is over.
///
/// # Errors
///
/// Why the lease must not begin.
pub(super) async fn before(
    core: &Arc<Core>,
    hooks: &Hooks,
    unit: usize,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<(), String> {
    run_hook(core, hooks, When::Before, unit, lease, stop).await
}

/// Waits until what ran under a lease has ended, makes its devices safe, runs the hook after it,
/// unless that `has_run`, and the health check.
///
/// # Errors
///
/// Why the next lease must not begin.
pub(super) async fn finish(
    core: &Arc<Core>,
    hooks: &Hooks,
    unit: usize,
    lease: &Lease,
    has_run: bool,
) -> Result<(), NotReady> {
    let fence = core.leases.fence(unit);
    until_gone(core, unit).await;
    fence.take_hook_acted(); // the hook before the lease
    make_unit_safe(core, unit).await.map_err(|why| NotReady { why, after_has_run: has_run })?;
    if !has_run {
        let after = run_hook(core, hooks, When::After, unit, lease, &core.stop).await;
        after.map_err(|why| NotReady { why, after_has_run: false })?;
    }
    let healthy = check_health(core, hooks, unit, lease, has_run).await;
    if fence.take_hook_acted() {
        // A script may leave a board powered, and the next holder is not to find it so.
        make_unit_safe(core, unit).await.map_err(|why| NotReady { why, after_has_run: true })?;
    }
    healthy.map_err(|why| NotReady { why, after_has_run: true })
}

/// Waits until every operation has ended that may go on no longer.
pub(super) async fn until_gone(core: &Core, unit: usize) {
    let mut pause = LOOK_FIRST;
    while core.ledger().going(unit, &core.leases.fence(unit).lets_go_on()) {
        sleep(pause).await;
        pause = (2 * pause).min(LOOK_LATER);
    }
}

/// Makes the devices of a subtree safe.
///
/// # Errors
///
/// Which are not.
async fn make_unit_safe(core: &Arc<Core>, unit: usize) -> Result<(), String> {
    let not_safe: Vec<_> = stream::iter(slots(core, unit))
        .map(|slot| async move {
            let tenant = slot.tenant().ok()?; // whoever makes its next value makes it safe
            (!make_safe(core, &slot, &tenant.driver).await).then(|| slot.address.to_string())
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|address| async { address })
        .collect()
        .await;
    match not_safe.is_empty() {
        true => Ok(()),
        false => Err(format!("not safe: {}", not_safe.join(", "))),
    }
}

/// Why a subtree is not granted again yet.
#[derive(Debug)]
pub(crate) struct NotReady {
    pub(crate) why: String,
    /// Whether the hook after the lease is done with: the next try is not to run it again.
    pub(crate) after_has_run: bool,
}

/// Runs the health check; `again`, if it has failed before. What is told is how that changes.
async fn check_health(
    core: &Arc<Core>,
    hooks: &Hooks,
    unit: usize,
    lease: &Lease,
    again: bool,
) -> Result<(), String> {
    let (Some(check), Some(slot)) = (&hooks.health, slots(core, unit).into_iter().next()) else {
        return Ok(());
    };
    let outcome = hook::run(core, &slot, check, When::Health, lease, &core.stop).await;
    let path = &core.leases.fence(unit).path;
    match outcome {
        Ok(()) if again => core.event(EventKind::HealthPassed, path, None, None, ""),
        Ok(()) => {}
        Err(why) if again => return Err(why),
        Err(why) => {
            let id = When::Health.call_id(lease);
            let why = format!("{why}; its output is call {id} of {}", lease.client);
            tracing::warn!(%path, why, "not healthy, and so not granted");
            core.event(EventKind::HealthFailed, path, None, None, &why);
            return Err(why);
        }
    }
    Ok(())
}

async fn run_hook(
    core: &Arc<Core>,
    hooks: &Hooks,
    when: When,
    unit: usize,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<(), String> {
    let hook = match when {
        When::Before => &hooks.before,
        When::After => &hooks.after,
        When::Health => &hooks.health,
    };
    let (Some(hook), Some(slot)) = (hook, slots(core, unit).into_iter().next()) else {
        return Ok(());
    };
    let Err(why) = hook::run(core, &slot, hook, when, lease, stop).await else { return Ok(()) };
    let why = format!("{why}; its output is call {} of {}", when.call_id(lease), lease.client);
    tracing::warn!(unit, why, "hook failed");
    match hook.on_failure {
        HookFailure::Warn => {
            let path = &core.leases.fence(unit).path;
            let (client, epoch) = (Some(lease.client.clone()), Some(lease.epoch));
            core.event(EventKind::HookFailed, path, client, epoch, why);
            Ok(())
        }
        HookFailure::EndLease => Err(why),
        HookFailure::Exit => {
            tracing::error!("a hook failed: the exporter stops, as its configuration says");
            core.stop_for(Stopped::Hook(why.clone()));
            Err(why)
        }
    }
}

/// The drivers of a subtree, the one at its top first.
fn slots(core: &Core, unit: usize) -> Vec<Arc<Slot>> {
    let mut slots = core.slots().sorted();
    slots.retain(|slot| slot.fence.unit == unit);
    slots
}

/// What this exporter's last record shows as held.
pub(super) async fn last_board(core: &Arc<Core>) -> Option<Board> {
    let record = presence::read(core, FromExporter::Board(core.name.clone())).await.ok()??;
    codec::decode(record.payload()).ok()
}
