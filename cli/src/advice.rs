//! Every way a command can fail, its exit code, and one thing to do next.
//!
//! There is no `_` arm here: a new error does not compile until someone has thought of both.

use std::{borrow::Cow, io, process::ExitCode};

#[cfg(feature = "ssh")]
use actors::SshError;
use actors::{PortforwardError, ScriptError, ScriptFailure};
use bus_schema::{Address, FaultKind, PlaceRef, Refusal, RefusalCode, message::ResetCode};
use runtime::{
    AuthorityError, BrokerError, BusError, CallError, ConfigErrors, ExporterError, LeaseError,
    LendError, PlaceError, SettingsError, ShutdownError, TurnedAway,
};
use serde_json::json;

use crate::{args::Format, interrupt::Signal, output::tell};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Lending(#[from] LendError),
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The change is kept, and the broker has not heard of it.
    #[error("it is written here, and the broker does not know yet: {0}")]
    NotPushed(AuthorityError),
    /// Somebody else's credentials.
    #[error("these credentials are those of {whose}, and this takes {wanted}")]
    NotYours { whose: String, wanted: String },
    #[error("the configuration is not valid:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("the file of places is not valid:\n{0}")]
    Places(ConfigErrors),
    /// What was typed makes no sense together.
    #[error("{0}")]
    Usage(String),
    #[error("no broker is named")]
    NoBroker,
    /// The registry knows no such thing.
    #[error("{what} is not on this bus")]
    NotFound { what: String, instead: String },
    #[error(
        "{file} lets its callers run commands on this host, and the broker asks nobody who they are: {drivers}"
    )]
    Insecure { file: String, drivers: String },
    /// Some of several calls failed; each was told when it did.
    #[error("{failed} of {all} failed")]
    Some { failed: usize, all: usize },
    #[error("{0} of the checks failed")]
    Checks(usize),
    #[error("another exporter took the name {0}")]
    Replaced(String),
    /// A hook of the exporter is configured to stop it when it fails.
    #[error("the exporter stops, as a hook failed: {0}")]
    HookFailed(String),
    #[error("the bench: {0:#}")]
    Bench(anyhow::Error),
    #[error("the demo failed at {step:?}: {why:#}")]
    Demo { step: &'static str, why: anyhow::Error },
    /// What QEMU's board needs.
    #[error("there is no {0} here")]
    NoBoard(&'static str),
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    #[cfg(feature = "opendal")]
    #[error(transparent)]
    Storage(#[from] actors::OpendalError),
    #[error(transparent)]
    Portforward(#[from] PortforwardError),
    #[cfg(feature = "ssh")]
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The command on the board ended like this.
    #[cfg(feature = "ssh")]
    #[error("the command on the board ended with {0}")]
    Remote(u8),
    #[cfg(feature = "vnc")]
    #[error(transparent)]
    Novnc(#[from] actors::NovncError),
    #[error("{file}: {error}")]
    Script { file: String, error: ScriptError },
    /// What a script expected did not come.
    #[error("{file}: {failure}")]
    Expect { file: String, failure: Box<ScriptFailure> },
    #[error("cannot show a result: {0}")]
    Show(#[from] serde_json::Error),
    /// Whoever read stdout has left.
    #[error("nobody reads the output any more")]
    NobodyReads,
    /// The command that `run` or `shell` ran ended like this, and has said why.
    #[error("the command ended with {0}")]
    Ended(u8),
    /// The place is leased, and a role of it is a driver now that is not.
    #[error("{of} is {now} now, which was no part of @{} when it was leased", of.place)]
    PlaceChanged { of: PlaceRef, now: Address },
    #[error("the lease on {address} was lost: {why}")]
    LeaseLost { address: String, why: String },
    #[error("interrupted")]
    Interrupted(Signal),
}

impl CliError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::io("write to stdout", source),
        }
    }

    /// Whether a device may have done something.
    pub(crate) fn may_have_acted(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_acted(),
            Self::Ended(_) | Self::LeaseLost { .. } => true,
            Self::Lending(error) => error.may_have_acted(),
            Self::Expect { .. } => true,
            #[cfg(feature = "ssh")]
            Self::Ssh(SshError::Open(error)) => error.may_have_acted(),
            #[cfg(feature = "ssh")]
            Self::Ssh(_) | Self::Remote(_) => true,
            Self::Some { .. } | Self::Interrupted(_) | Self::NobodyReads | Self::Show(_) => true,
            _ => false,
        }
    }
}

/// The exit codes, for `jmp-bus exit-codes` and the README.
pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (0, "all that was asked was done"),
    (1, "this machine: a file, the terminal, a port"),
    (2, "the command line makes no sense"),
    (10, "no such driver, or nobody serves it; nothing was executed"),
    (11, "no result by the deadline; the device may have acted"),
    (12, "refused; nothing was executed"),
    (13, "executed, and the device or its driver failed"),
    (14, "lost, or the outcome is unknown; the device may have acted"),
    (15, "the broker cannot be reached or is not as it must be"),
    (16, "a configuration is not valid, or may not be served like this"),
    (17, "one or more of several calls failed; each says how"),
    (18, "`doctor` found something wrong"),
    (19, "a step of `demo` did not happen as it should"),
    (20, "what a script expects at a console did not come; something may have been typed"),
    (21, "not allowed by the broker: rights or credentials; nothing was executed"),
    (22, "the lease is another's, or did not become free in time"),
    (23, "the lease was lost while it was used"),
    (25, "the host key of the board has changed, or is not known; nothing was sent to it"),
    (26, "the board let nobody in by what was shown to it"),
    (130, "interrupted by Ctrl-C; what was open was cancelled"),
    (141, "whoever read the output left"),
    (143, "told to stop by SIGTERM; what was open was cancelled"),
];

type Advice = (u8, Cow<'static, str>);

/// The exit code of an error, and one thing to do next.
pub(crate) fn advice(error: &CliError) -> Advice {
    let (code, hint) = match error {
        CliError::Call(error) => return of_call(error),
        CliError::Lease(error) => return of_lease(error),
        CliError::Lending(error) => of_lending(error),
        CliError::Bus(error) => return of_bus(error),
        CliError::Place(error) => return of_place(error),
        CliError::Settings(_) => (2, "see `jmp-bus help`, and `nats context ls` for contexts"),
        CliError::Broker(_) => (15, "name a broker with --server, or install nats-server"),
        CliError::Exporter(error) => return of_exporter(error),
        CliError::Shutdown(ShutdownError::Stuck { .. }) => {
            (11, "give running calls more time with --grace")
        }
        CliError::Shutdown(ShutdownError::Unsafe { .. }) => {
            (13, "see to these devices by hand: they may still be powered")
        }
        CliError::Authority(error) => return of_authority(error),
        CliError::NotPushed(_) => {
            (15, "run `jmp-bus admin push` as soon as the broker can be reached")
        }
        CliError::NotYours { .. } => {
            (2, "name the right ones with --creds, or leave --as out; see `jmp-bus whoami`")
        }
        CliError::Places(_) => (16, "a place is a line `name: {role: exporter/child, …}`"),
        CliError::Config(_) => (16, "`jmp-bus drivers KIND` shows what a kind takes"),
        CliError::Usage(_) => (2, "--help shows how the command is used"),
        CliError::NoBroker => {
            (15, "give --server or set NATS_URL; or start one of your own with `jmp-bus dev`")
        }
        CliError::NotFound { instead, .. } => return (10, instead.clone().into()),
        CliError::Insecure { .. } => {
            (16, "give the broker users or tokens; or accept the risk with --insecure")
        }
        CliError::Some { .. } => (17, ""),
        CliError::Checks(_) => (18, ""),
        CliError::Bench(_) => (1, ""),
        CliError::Demo { .. } => (19, ""),
        CliError::NoBoard(_) => {
            (1, "`apt-get install qemu-system-arm u-boot-qemu`, or `--board shell`")
        }
        CliError::Replaced(_) => (14, "give one of the two exporters another name"),
        CliError::HookFailed(_) => (13, "see to the board, and to `onFailure` of its hooks"),
        CliError::Io { .. } => (1, ""),
        #[cfg(feature = "opendal")]
        CliError::Storage(_) => {
            (1, "AWS_REGION, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID … or ~/.aws say where and who")
        }
        CliError::Portforward(_) => (1, "is the port or socket in use? port 0 is any free one"),
        #[cfg(feature = "ssh")]
        CliError::Ssh(error) => return of_ssh(error),
        #[cfg(feature = "ssh")]
        CliError::Remote(code) => (*code, ""),
        #[cfg(feature = "vnc")]
        CliError::Novnc(_) => (1, "is the port in use? --port 0 is any free one"),
        CliError::Script { .. } => (16, "`jmp-bus help expect` says how a script is written"),
        CliError::Expect { .. } => (20, ""),
        CliError::Show(_) => (1, "this is a bug of jmp-bus"),
        CliError::NobodyReads => (141, ""),
        CliError::Ended(code) => (*code, ""),
        CliError::PlaceChanged { .. } => {
            (12, "lease the place anew, or use the driver that was leased by its address")
        }
        CliError::LeaseLost { .. } => (23, "see `jmp-bus events` for who ended it"),
        CliError::Interrupted(Signal::Interrupt) => (130, ""),
        CliError::Interrupted(Signal::Terminate) => (143, ""),
    };
    (code, hint.into())
}

fn of_lending(error: &LendError) -> (u8, &'static str) {
    match error {
        LendError::Read { .. } | LendError::Changed { .. } => (1, "nothing was executed"),
        LendError::Unfit(_) => (2, "nothing was executed"),
        LendError::NotAllowed(_) => (21, NOT_ALLOWED),
        LendError::NotStored(_) | LendError::Bus(_) => (15, "see `jmp-bus doctor`"),
        LendError::Incomplete(_) => (14, "it was executed: what was handed back is worthless"),
    }
}

fn of_call(error: &CallError) -> Advice {
    const READ_STATE: &str = "the device may have acted: read its state before you retry";
    let (code, hint) = match error {
        CallError::NoDriver { .. } => (10, "see `jmp-bus list`; is its host's `jmp-bus serve` up?"),
        CallError::Refused { address, refusal } => return (12, of_refusal(address, refusal)),
        CallError::Fault { fault, .. } if fault.kind == FaultKind::TooLarge => {
            (13, "it was executed: ask for less at a time")
        }
        error if error.lacks_file() => (
            13,
            "what was called may have begun; `jmp-bus put --again FILE` stores all of it, then call again",
        ),
        CallError::Fault { .. } => (13, "the driver was reached: see to the device"),
        CallError::TimedOut { sent: true, .. } => (11, READ_STATE),
        CallError::TimedOut { sent: false, .. } => {
            (15, "it was never sent: see `jmp-bus doctor` for the broker")
        }
        CallError::Lost { .. } | CallError::OutcomeUnknown { .. } => (14, READ_STATE),
        CallError::Broken { error, .. } => of_reset(error.code),
        CallError::Lending(error) => of_lending(error),
        CallError::Unsendable(_) => (2, "nothing was sent"),
        CallError::Garbled(_) => (14, "the exporter may be of another version: see `jmp-bus list`"),
        CallError::NotAllowed { .. } => (21, NOT_ALLOWED),
        CallError::TurnedAway(why) => of_turned_away(*why),
        CallError::Bus(_) => (15, "see `jmp-bus doctor`"),
    };
    (code, hint.into())
}

const NOT_ALLOWED: &str =
    "`jmp-bus whoami` shows who you are; whoever runs the broker gives other rights";

fn of_turned_away(why: TurnedAway) -> (u8, &'static str) {
    let hint = match why {
        TurnedAway::Unknown => {
            "name credentials with --creds; `jmp-bus whoami` shows whose they are"
        }
        TurnedAway::Revoked | TurnedAway::Expired => {
            "ask whoever runs the broker for new ones (`jmp-bus admin add`)"
        }
    };
    (21, hint)
}

/// A stream or streaming call that broke off.
fn of_reset(code: ResetCode) -> (u8, &'static str) {
    match code {
        ResetCode::Fault => (13, "the driver was reached: see to the device"),
        ResetCode::Cancelled => (14, "the driver ended it before everything was said"),
        ResetCode::NoStream => (14, "its exporter was restarted: begin anew"),
        ResetCode::Protocol | ResetCode::Other => {
            (14, "the exporter may be of another version: see `jmp-bus list`")
        }
        ResetCode::ShuttingDown => (14, "its exporter is being stopped; try again when it is back"),
        ResetCode::LeaseEnded => (23, "the lease it was opened under has ended"),
        ResetCode::Silent => (14, "is its exporter up? see `jmp-bus list`"),
    }
}

fn of_refusal(address: &str, refusal: &Refusal) -> Cow<'static, str> {
    let hint = match refusal.code {
        RefusalCode::UnknownMethod | RefusalCode::BadArguments => {
            return format!("see `jmp-bus describe {address}`").into();
        }
        RefusalCode::NoDriver => "see `jmp-bus list`",
        RefusalCode::WrongKind => {
            "`call` is for calls, `stream` for streaming calls, `connect` for streams"
        }
        RefusalCode::Malformed | RefusalCode::WrongVersion | RefusalCode::UnknownVerb => {
            "the exporter may be of another version: see `jmp-bus list`"
        }
        RefusalCode::IdReused => "try again",
        RefusalCode::Busy => "try again when it is free",
        RefusalCode::TooLarge => "send less at a time",
        RefusalCode::Restarting => "try again in a moment",
        RefusalCode::Failed => "its driver crashes: see the log of its exporter",
        RefusalCode::ShuttingDown => "its exporter is being stopped; try again when it is back",
        RefusalCode::Expired => "give it more time with --deadline",
        RefusalCode::NotLeased => {
            "see `jmp-bus lease list`; take it with `jmp-bus lease acquire --wait`"
        }
        RefusalCode::NotAllowed => "ask who runs the exporter; or be somebody else with --as",
        RefusalCode::Other(_) => "the exporter is newer than this program",
    };
    hint.into()
}

fn of_lease(error: &LeaseError) -> Advice {
    let (code, hint) = match error {
        LeaseError::NoExporter { .. } | LeaseError::TooFew { .. } => {
            (10, "see `jmp-bus list`; is its host's `jmp-bus serve` up?")
        }
        LeaseError::Refused { refusal, .. } if refusal.code == RefusalCode::Busy => {
            (22, "add --wait, or ask its holder; `jmp-bus lease list` shows who has what")
        }
        // What else could be malformed is not made by this program.
        LeaseError::Refused { refusal, .. } if refusal.code == RefusalCode::Malformed => {
            (10, "see `jmp-bus list` for what the exporter has")
        }
        LeaseError::Refused { address, refusal } => return (12, of_refusal(address, refusal)),
        LeaseError::Place(error) => return of_place(error),
        LeaseError::Role { error, .. } => return of_lease(error),
        LeaseError::TimedOut { .. } => (22, "wait longer, or see `jmp-bus lease queue`"),
        LeaseError::Ended { .. } => (23, "see `jmp-bus events` for who ended it"),
        LeaseError::Silent { .. } => {
            (15, "is its exporter up, and may this client speak to it? see `jmp-bus doctor`")
        }
        LeaseError::NotAllowed(error) => return of_call(error),
        LeaseError::Garbled(_) => {
            (14, "the exporter may be of another version: see `jmp-bus list`")
        }
        LeaseError::Bus(_) => (15, "see `jmp-bus doctor`"),
    };
    (code, hint.into())
}

#[cfg(feature = "ssh")]
fn of_ssh(error: &SshError) -> Advice {
    let (code, hint) = match error {
        SshError::Open(error) => return of_call(error),
        SshError::HostKeyChanged { .. } => {
            (25, "if you know why, such as a new image, let it be known anew with --forget")
        }
        SshError::HostKeyUnknown { .. } => (25, "record it with --unknown-host pin"),
        SshError::Local { .. } => (1, ""),
        SshError::Key { .. } => (1, "name another one with --identity"),
        SshError::Refused { .. } => (26, "see --login, --identity and --password-file"),
        SshError::TimedOut { .. } => (11, "is its SSH server up? give it more time with --timeout"),
        SshError::Denied(_) | SshError::HungUp(_) | SshError::Remote { .. } => (13, ""),
        SshError::TooMuch(_) => (1, "write it to a file there, and get that"),
        SshError::Session(_) => (14, "is the board still up?"),
    };
    (code, hint.into())
}

fn of_bus(error: &BusError) -> Advice {
    let (code, hint) = match error {
        BusError::TurnedAway(why) => of_turned_away(*why),
        BusError::Denied { .. } => (21, NOT_ALLOWED),
        error if error.is_about_an_old_certificate() => (
            15,
            "the operator runs `jmp-bus admin renew-certificate`; or is this host's clock right? see `jmp-bus doctor`",
        ),
        error if error.is_about_tls() => (
            15,
            "give the broker's certificate authority with --tlsca, and the --server as its certificate names it",
        ),
        BusError::Connect { .. } => (15, "is it up, and are --server and the credentials right?"),
        BusError::Settings(_) => (2, "see `jmp-bus help`, and `nats context ls` for contexts"),
        BusError::Closed | BusError::Away(_) => (15, "see `jmp-bus doctor`"),
        BusError::Unconfirmed(_) => {
            (15, "may this user subscribe there? see `jmp-bus doctor` and the broker's log")
        }
        BusError::Unfit(_) => (15, "see `jmp-bus doctor`"),
    };
    (code, hint.into())
}

fn of_authority(error: &AuthorityError) -> Advice {
    let (code, hint) = match error {
        AuthorityError::Exists { .. } => (1, "name another place, or move away what is there"),
        AuthorityError::Missing { .. } => {
            (1, "name its directory with --dir, or make one with `jmp-bus admin init`")
        }
        AuthorityError::Locked { .. } => (1, "try again when it is done"),
        AuthorityError::File { .. } => (1, ""),
        AuthorityError::Damaged { .. } => (1, "put it back from your copy of the authority"),
        AuthorityError::Name(_) | AuthorityError::Reserved { .. } => (2, "give it another name"),
        AuthorityError::Taken { name, .. } => {
            let revoke =
                format!("`jmp-bus admin revoke {name}` first, or a second key with --again");
            return (2, revoke.into());
        }
        AuthorityError::Unknown { known, .. } if known.is_empty() => {
            (2, "nobody has credentials yet: see `jmp-bus help admin add`")
        }
        AuthorityError::Unknown { known, .. } => {
            return (2, format!("there is {}", known.join(", ")).into());
        }
        AuthorityError::Ambiguous { .. } => (2, "say which with --role"),
        AuthorityError::Foreign => {
            (1, "put the new one in place of broker/tls/server.pem and its key, and reload")
        }
        AuthorityError::Certificate { .. } => (2, "a --host is a host name or an IP address"),
        AuthorityError::Bus(error) => return of_bus(error),
        AuthorityError::NotTaken { .. } => (15, "see the broker's log"),
    };
    (code, hint.into())
}

fn of_place(error: &PlaceError) -> Advice {
    match error {
        PlaceError::Bus(error) => of_bus(error),
        PlaceError::Unknown { near: Some(near), .. } => {
            (10, format!("did you mean @{near}?").into())
        }
        PlaceError::Unknown { near: None, .. } => (10, "see `jmp-bus place list`".into()),
        PlaceError::NoRole { of, near: Some(near), .. } => {
            (10, format!("did you mean @{}/{near}?", of.place).into())
        }
        PlaceError::NoRole { near: None, .. } => (10, "see `jmp-bus place list`".into()),
        PlaceError::NotStored { .. } => {
            (15, "see `jmp-bus doctor`; only an admin may change places".into())
        }
    }
}

fn of_exporter(error: &ExporterError) -> Advice {
    match error {
        ExporterError::Bus(error) => of_bus(error),
        ExporterError::NameTaken { .. } => {
            (12, "stop the other one, or give this one another name".into())
        }
        ExporterError::SameId { .. } => (16, "let only one of them have the `uuid`".into()),
        ExporterError::NoTarget { .. } => (16, "correct the `ref`".into()),
        ExporterError::StateDir { .. } | ExporterError::Journal(_) => {
            (1, "name another one with --state-dir".into())
        }
        ExporterError::NoSubtree { .. } => (16, "correct `leases.subtrees`".into()),
    }
}

/// Tells of an error on stderr: a line and a hint, or one JSON object.
pub(crate) fn report(error: &CliError, format: Format) -> ExitCode {
    let (code, hint) = advice(error);
    match (error, format) {
        (CliError::NobodyReads | CliError::Interrupted(_) | CliError::Ended(_), _) => {}
        #[cfg(feature = "ssh")]
        (CliError::Remote(_), Format::Table | Format::Raw) => {} // it has said why itself
        (_, Format::Json) => tell(format_args!("{}\n", as_json(error))),
        (_, Format::Table | Format::Raw) => {
            tell(format_args!("jmp-bus: {}\n", said(error)));
            if !hint.is_empty() {
                tell(format_args!("hint: {hint}\n"));
            }
        }
    }
    ExitCode::from(code)
}

/// An error, and the reasons behind it that it does not say itself.
pub(crate) fn said(error: &CliError) -> String {
    let mut said = error.to_string();
    let mut reason = std::error::Error::source(error);
    while let Some(error) = reason {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        reason = error.source();
    }
    said
}

/// An error for programs.
pub(crate) fn as_json(error: &CliError) -> serde_json::Value {
    let (code, hint) = advice(error);
    let mut object = json!({
        "error": said(error),
        "exit_code": code,
        "may_have_acted": error.may_have_acted(),
    });
    if !hint.is_empty() {
        object["hint"] = hint.into();
    }
    if let CliError::Call(CallError::Refused { refusal, .. })
    | CliError::Lease(LeaseError::Refused { refusal, .. }) = error
    {
        object["refused"] = refusal.code.as_str().into();
        if let Some(holder) = &refusal.holder {
            object["holder"] = holder.as_str().into();
            object["left_ms"] = refusal.left_ms.into();
        }
    }
    if let CliError::Call(CallError::Fault { fault, .. }) = error {
        object["fault"] = fault.kind.as_str().into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_in_the_list() {
        let listed = |code| EXIT_CODES.iter().any(|(listed, _)| *listed == code);
        for code in RefusalCode::KNOWN {
            let refusal = Refusal::new(code.clone(), "no");
            let error = CallError::Refused { address: "a/b".to_owned(), refusal };
            assert!(listed(advice(&error.into()).0));
        }
        for error in [
            CliError::NoBroker,
            CliError::Some { failed: 1, all: 2 },
            CliError::Checks(1),
            CliError::NobodyReads,
            CliError::Interrupted(Signal::Interrupt),
            CliError::Interrupted(Signal::Terminate),
            CliError::Usage("so".to_owned()),
        ] {
            assert!(listed(advice(&error).0), "{error}");
        }
    }
}
