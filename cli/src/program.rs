//! The program: reads the command line, runs the command, turns its end into an exit code.

use std::process::ExitCode;

use bus_schema::Level;
use clap::Parser as _;
use runtime::{DriverKind, Kind, Kinds, LogTap};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    advice::{self, CliError},
    args::{self, Global, Top, with_times},
    bench,
    cmd::{Command, Role},
    interrupt::Interrupt,
    session::Session,
};

/// The whole of `jmp-bus`, with the kinds of driver that it knows.
#[derive(Debug)]
pub struct Cli {
    kinds: Kinds,
}

impl Cli {
    /// With the drivers that are built in.
    pub fn builtin() -> Self {
        Self { kinds: actors::kinds() }
    }

    /// With one more kind of driver, in `serve`, `check`, `drivers` and `dev`.
    #[must_use]
    pub fn with<D: DriverKind>(self) -> Self {
        Self { kinds: self.kinds.with(Kind::of::<D>()) }
    }

    /// Runs what the command line says.
    pub fn run(self) -> ExitCode {
        if let Some(ended) = bench::bare_call_asked_for() {
            return ended;
        }
        let Top { global, command } = match Top::try_parse_from(with_times(std::env::args_os())) {
            Ok(top) => top,
            Err(error) => return misused(&error),
        };
        let log = start_logging(&global, command.role());
        let format = global.output;
        match run(Session::new(global, self.kinds, log), command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => advice::report(&error, format),
        }
    }
}

/// Shows what was asked for (`--help`), or what is wrong with the command line; in JSON if that was
/// on it.
fn misused(error: &clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if error.use_stderr() && args::wants_json(std::env::args_os().skip(1)) {
        let text = error.render().to_string();
        let text =
            text.trim_start_matches("error: ").split("\n\nUsage:").next().unwrap_or_default();
        let data = serde_json::json!({
            "error": text.trim_end_matches("\n\nFor more information, try '--help'.\n").trim(),
            "exit_code": code,
            "may_have_acted": false,
        });
        crate::output::tell(format_args!("{data}\n"));
    } else {
        let _ = error.print(); // nobody listens: nothing to be done
    }
    ExitCode::from(code)
}

fn run(session: Session, command: Command) -> Result<(), CliError> {
    // One thread starts faster, and a client has little to do.
    let mut builder = match command.role() {
        Role::Client => tokio::runtime::Builder::new_current_thread(),
        Role::Worker | Role::Server | Role::Holder | Role::Demo => {
            tokio::runtime::Builder::new_multi_thread()
        }
    };
    let started = builder.enable_all().build();
    let runtime = started.map_err(|source| CliError::io("start", source))?;
    let outcome = runtime.block_on(until_interrupted(session, command));
    runtime.shutdown_background(); // a read of stdin that waits for a key cannot be stopped
    outcome
}

/// Runs a command. An interrupt drops it, which cancels what it has on the bus.
async fn until_interrupted(session: Session, command: Command) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    let stops_itself = matches!(command.role(), Role::Server | Role::Holder | Role::Demo);
    let outcome = tokio::select! {
        biased;
        signal = interrupt.next(), if !stops_itself => Err(CliError::Interrupted(signal)),
        outcome = Box::pin(command.run(&session)) => outcome,
    };
    tokio::select! {
        biased;
        _ = interrupt.next(), if !stops_itself => {} // a second one does not wait
        () = session.close() => {}
    }
    outcome
}

/// Logs go to stderr. A client says nothing unless it is asked; a server says what matters, and
/// what it says goes to the bus besides, however quiet it is here.
fn start_logging(global: &Global, role: Role) -> LogTap {
    let tap = LogTap::new();
    let serves = matches!(role, Role::Server | Role::Demo);
    let asked = global.verbose + u8::from(role == Role::Server);
    let level = match (asked, global.quiet) {
        (0, _) => None,
        (_, true) => Some(LevelFilter::ERROR),
        (1, false) => Some(LevelFilter::INFO),
        (2, false) => Some(LevelFilter::DEBUG),
        (_, false) => Some(LevelFilter::TRACE),
    };
    let to_stderr = level.map(|level| {
        // The connection's own events are for whoever looks for trouble.
        let others = if level <= LevelFilter::INFO { LevelFilter::WARN } else { level };
        let targets = Targets::new().with_default(level).with_target("async_nats", others);
        let lines = tracing_subscriber::fmt::layer()
            .with_target(false)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        lines.with_filter(targets)
    });
    let detail = if global.verbose > 0 { Level::Debug } else { Level::Info };
    let to_bus = serves.then(|| tap.layer(detail));
    if to_stderr.is_some() || to_bus.is_some() {
        // An error means that a lab's own `main` has set one up already.
        let _ = tracing_subscriber::registry().with(to_stderr).with(to_bus).try_init();
    }
    tap
}
