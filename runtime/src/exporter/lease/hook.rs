//! Hooks: scripts of the operator around a lease. What they say is recorded as a streaming call,
//! and they cannot hold the exporter up: they have their time, and are killed after it.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use bus_schema::{
    CallId, Fault, HookId, StreamId, Type, encode_value,
    message::{Begin, ResetCode},
};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{book::Lease, finish::until_gone};
use crate::{
    bus::random,
    exporter::{core::Core, recorder::Recorder, slot::Slot},
    stream::{DataLine, Flow, PipeDirection, PipeEnd, SILENCE},
};

/// After SIGTERM a hook has this long before SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Output is read this long after the hook has ended: a child of it may keep the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Variables of a person's or another broker's, and of a lease around this process.
const FOREIGN: [&str; 15] = [
    "NATS_URL",
    "NATS_CONTEXT",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
    "JMP_BUS_CLIENT",
    "JMP_BUS_LEASE",
    "JMP_BUS_PLACE",
    "JMP_BUS_HOOK",
    "JMP_BUS_ROOT",
];
/// Output that is read at a time.
const READ_BYTES: usize = 8192;

/// The hooks of one exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Runs when a lease was confirmed; calls are refused until it has ended.
    pub before: Option<Hook>,
    /// Runs when the devices of a lease that ended are safe, before the next is granted.
    pub after: Option<Hook>,
    /// Runs last, and says whether the next lease may be granted. Its failure keeps the subtree
    /// from everybody until it succeeds.
    pub health: Option<Hook>,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What the interpreter runs.
    pub script: String,
    /// The interpreter, which takes the script behind `-c`.
    pub exec: PathBuf,
    /// It is killed after this time.
    pub timeout: Duration,
    /// What its failure means.
    pub on_failure: HookFailure,
}

/// What the failure of a hook means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookFailure {
    /// It is told, and all goes on.
    #[default]
    Warn,
    /// The lease ends.
    EndLease,
    /// The exporter stops.
    Exit,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Before,
    After,
    Health,
}

impl When {
    fn name(self) -> &'static str {
        match self {
            Self::Before => "beforeLease",
            Self::After => "afterLease",
            Self::Health => "healthCheck",
        }
    }

    /// What its record is called by: the session of the lease's ticket, and a counter that no
    /// client counts up to. (A health check that is run again has the record of its first run.)
    pub(super) fn call_id(self, lease: &Lease) -> CallId {
        let counter = match self {
            Self::Before => lease.epoch,
            Self::After => lease.epoch + 1,
            Self::Health => lease.epoch + 2,
        };
        CallId { session: lease.ticket.session(), counter }
    }
}

/// Runs a hook to its end, or to the end of its time, or until it is to `stop`, which is no
/// failure.
///
/// # Errors
///
/// How it failed, for people.
pub(super) async fn run(
    core: &Arc<Core>,
    slot: &Arc<Slot>,
    hook: &Hook,
    when: When,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<(), String> {
    let end = record(core, slot, when, lease);
    let until = Instant::now() + hook.timeout;
    let own = HookId(u32::try_from(random() >> 32).expect("half of it"));
    slot.fence.open_for_hook(own);
    let outcome = match spawn(core, hook, lease, &slot.address, own) {
        Ok(mut child) => {
            let said = [reader(child.stdout.take()), reader(child.stderr.take())];
            let reading = said.map(|pipe| core.tasks.spawn(copy(pipe, end.clone())));
            let outcome = wait(&mut child, hook, until, stop).await;
            cut_off(core, slot, own).await;
            for reading in reading {
                let stop = reading.abort_handle();
                if timeout(LAST_WORDS, reading).await.is_err() {
                    stop.abort();
                }
            }
            outcome
        }
        Err(error) => {
            slot.fence.close_for_hook(own);
            Err(format!("cannot run {}: {error}", hook.exec.display()))
        }
    };
    let outcome = outcome.map_err(|why| format!("{}: {why}", when.name()));
    if let Some(end) = end {
        end.finish_items(outcome.as_ref().err().map(Fault::device));
    }
    outcome
}

/// Ends what a hook has begun, and returns when it has: whoever is next finds nobody there.
async fn cut_off(core: &Core, slot: &Slot, hook: HookId) {
    slot.fence.close_for_hook(hook);
    let may_go_on = slot.fence.lets_go_on();
    core.ledger().cut(&may_go_on);
    let text = "the hook that it was opened by has ended";
    core.switchboard.cut(&may_go_on, ResetCode::LeaseEnded, text);
    until_gone(core, slot.fence.unit).await;
}

fn spawn(
    core: &Core,
    hook: &Hook,
    lease: &Lease,
    address: &str,
    own: HookId,
) -> std::io::Result<Child> {
    let mut command = Command::new(&hook.exec);
    // What this process was started with is not what a hook is to use.
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
        .arg("-c")
        .arg(&hook.script)
        .env("LEASE_NAME", format!("{address}#{}", lease.epoch))
        .env("CLIENT_NAME", lease.client.as_str())
        .env("JMP_BUS_ROOT", core.root.as_str())
        .env("JMP_BUS_EXPORTER", core.name.as_str())
        .env("JMP_BUS_HOOK", format!("{}:{own}", core.name))
        .envs(core.bus.variables())
        .env("TERM", "dumb")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the end of a hook. After its time it is killed with all its children.
async fn wait(
    child: &mut Child,
    hook: &Hook,
    until: Instant,
    stop: &CancellationToken,
) -> Result<(), String> {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let kill = |signal| {
        if let Some(group) = group {
            let _ = kill_process_group(group, signal); // it may have ended by itself
        }
    };
    let ended = tokio::select! {
        biased;
        ended = timeout_at(until, child.wait()) => ended,
        () = stop.cancelled() => {
            end(child, kill).await;
            return Ok(());
        }
    };
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("it failed: {status}")),
        Ok(Err(error)) => Err(format!("it cannot be waited for: {error}")),
        Err(_elapsed) => {
            end(child, kill).await;
            Err(format!("it took more than {}", humantime::format_duration(hook.timeout)))
        }
    }
}

/// Ends a hook and all its children: first they are asked to.
async fn end(child: &mut Child, kill: impl Fn(Signal)) {
    kill(Signal::TERM);
    let ended = timeout(KILL_AFTER, child.wait()).await;
    kill(Signal::KILL); // its children may have stayed
    if ended.is_err() {
        let _ = child.wait().await;
    }
}

type Pipe = Box<dyn AsyncRead + Send + Unpin>;

fn reader<R: AsyncRead + Send + Unpin + 'static>(pipe: Option<R>) -> Option<Pipe> {
    pipe.map(|pipe| Box::new(pipe) as Pipe)
}

/// Reads to the end, whether or not it can be recorded: a hook must not hang on a full pipe.
async fn copy(pipe: Option<Pipe>, end: Option<Arc<PipeEnd>>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        if let (Some(end), Ok(item)) =
            (&end, encode_value(&Bytes::copy_from_slice(&buffer[..read])))
        {
            let _ = std::future::poll_fn(|cx| end.poll_item(cx, &item)).await;
        }
    }
}

/// The record of what a hook says: a streaming call that nobody waits for. None if there is no
/// room for another.
fn record(core: &Arc<Core>, slot: &Arc<Slot>, when: When, lease: &Lease) -> Option<Arc<PipeEnd>> {
    let id = when.call_id(lease);
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begin = Begin {
        address: slot.address.to_string(),
        method: when.name().to_owned(),
        item: Type::Bytes,
        began_ms: began.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
    };
    let stream = StreamId::new(id.session, random());
    let grant = core.budget.grant()?;
    let end = PipeEnd::new(Flow::new(0, 0).with_begin(begin), PipeDirection::SendOnly, grant);
    end.detach();
    core.switchboard.plug(stream, lease.client.as_str().into(), end.clone()).then_some(())?;
    let recorder = Recorder::new(core, &lease.client, id, slot.id, stream);
    let data = DataLine::Records(Box::new(recorder));
    core.tasks.spawn(core.pump(&lease.client, stream, end.clone(), data, SILENCE).run());
    Some(end)
}
