//! `jmp-bus run` and `jmp-bus shell`: a command that has boards to itself while it runs.

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use bus_schema::{Address, LeaseEnd, PlaceName};
use futures_util::future::{join_all, select_all};
use runtime::Lease;
use tokio::{
    process::Command,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use crate::{
    advice::CliError,
    args::variable,
    held::{HeldLeases, PLACES, VARIABLE},
    session::Session,
    tether::Tethered,
    wanted::Wanted,
};

/// A command that has lost its terminal has this long, unless it ends by itself.
const HANG_UP_WITHIN: Duration = Duration::from_secs(5);

/// Run a command that has boards to itself: the lease ends with it.
///
/// `JMP_BUS_LEASE` names the leases, and every `jmp-bus` command inside uses them by itself. The
/// exit code is that of the command. Of a place all boards are leased, or none, and `@place/role` is
/// inside what it was when it was leased. If the lease is lost, the command is told to end.
#[derive(Debug, clap::Args)]
#[command(override_usage = "jmp-bus run [OPTIONS] ADDRESS -- COMMAND [ARGUMENT]...\n       \
                      jmp-bus run [OPTIONS] @PLACE -- COMMAND [ARGUMENT]...\n       \
                      jmp-bus run [OPTIONS] --selector SELECTOR -- COMMAND [ARGUMENT]...")]
pub(crate) struct Cmd {
    #[command(flatten)]
    wanted: Wanted,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        let (program, arguments) = self.command.split_first().expect("clap requires one");
        let mut command = Command::new(program);
        command.args(arguments);
        hold(session, &self.wanted, command, Lost::EndsTheCommand).await
    }
}

/// What the loss of the lease means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// What it was for cannot be done any more.
    EndsTheCommand,
    /// A person is told, and decides.
    IsTold,
}

/// Runs a command under leases.
pub(super) async fn hold(
    session: &Session,
    wanted: &Wanted,
    mut command: Command,
    lost: Lost,
) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let leases = tokio::select! {
        biased;
        leases = wanted.take(session, false) => leases?,
        signal = signals.next() => return Err(CliError::Ended(128 + number(signal))),
    };
    let held: Vec<_> = leases.iter().map(|lease| (lease.address(), lease.epoch())).collect();
    for (address, epoch) in &held {
        session.out.note(format_args!("{address} is yours, as lease {epoch}"));
    }
    let variables = variables(session, &held, &wanted.places()).await?;
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.envs(variables);
    let spawned = Tethered::spawn(command);
    let mut running = spawned.map_err(|source| CliError::io(format!("run {program}"), source))?;
    let ended = attend(session, &mut running, &leases, &mut signals, lost).await;
    give_back(session, leases, &mut signals).await;
    match code(ended?) {
        0 => Ok(()),
        code => Err(CliError::Ended(code)),
    }
}

/// Waits for the end of the command, and passes on what the world says meanwhile.
async fn attend(
    session: &Session,
    running: &mut Tethered,
    leases: &[Lease],
    signals: &mut Signals,
    lost: Lost,
) -> Result<ExitStatus, CliError> {
    let wait = |source| CliError::io("wait for the command", source);
    let mut told = false;
    loop {
        let over = select_all(leases.iter().map(|lease| Box::pin(lost_lease(lease))));
        tokio::select! {
            biased;
            ended = running.wait() => return ended.map_err(wait),
            signal = signals.next() => {
                running.pass_on(signal);
                if signal == SignalKind::hangup() {
                    // The terminal is gone, and the lease goes with it, whatever the command does.
                    return match timeout(HANG_UP_WITHIN, running.wait()).await {
                        Ok(ended) => ended.map_err(wait),
                        Err(_elapsed) => {
                            running.end().await;
                            Err(CliError::Ended(128 + number(signal)))
                        }
                    };
                }
            }
            ((address, why, text), ..) = over, if !told => {
                let text = if text.is_empty() { String::new() } else { format!(": {text}") };
                let why = format!("{why}{text}");
                session.out.note(format_args!("the lease on {address} is lost: {why}"));
                if lost == Lost::EndsTheCommand {
                    running.end().await;
                    return Err(CliError::LeaseLost { address: address.to_string(), why });
                }
                told = true;
            }
        }
    }
}

async fn lost_lease(lease: &Lease) -> (Address, LeaseEnd, String) {
    let (why, text) = lease.ended().await;
    (lease.address(), why, text)
}

/// Gives all of them back. Whoever cannot wait for an exporter that does not answer interrupts:
/// the lease then ends by its silence.
async fn give_back(session: &Session, leases: Vec<Lease>, signals: &mut Signals) {
    let released = join_all(leases.into_iter().map(Lease::release));
    tokio::select! {
        biased;
        _ = signals.next() => {}
        released = released => {
            for error in released.into_iter().filter_map(Result::err) {
                session.out.note(format_args!("the lease was not given back: {error}"));
            }
        }
    }
}

/// What the command needs to be the same client of the same broker, under the leases.
async fn variables(
    session: &Session,
    held: &[(Address, u64)],
    places: &[PlaceName],
) -> Result<Vec<(&'static str, String)>, CliError> {
    // What is held around this one is held inside, too.
    let leases = HeldLeases::of_environment().and(held).to_string();
    let mut all = vec![
        (VARIABLE, leases),
        ("JMP_BUS_CLIENT", session.client().await?.name().to_string()),
        ("JMP_BUS_ROOT", session.root().to_string()),
    ];
    let outer = HeldLeases::of_environment().places().to_vec();
    let places: Vec<_> = outer.iter().chain(places).map(PlaceName::as_str).collect();
    all.push((PLACES, places.join(",")));
    all.extend(session.global.broker_variables());
    Ok(all)
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn number(signal: SignalKind) -> u8 {
    u8::try_from(signal.as_raw_value()).unwrap_or(0)
}

/// What may be said to this program while the command runs.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        let listen =
            |kind| signal(kind).map_err(|source| CliError::io("listen for signals", source));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel safe.
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            Some(()) = self.interrupt.recv() => SignalKind::interrupt(),
            Some(()) = self.terminate.recv() => SignalKind::terminate(),
            Some(()) = self.hangup.recv() => SignalKind::hangup(),
            else => std::future::pending().await,
        }
    }
}

/// The shell of whoever types.
pub(super) fn own_shell() -> Command {
    Command::new(variable("SHELL").unwrap_or_else(|| "/bin/sh".to_owned()))
}
