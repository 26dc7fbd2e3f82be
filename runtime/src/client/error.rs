//! Every way a call can end but its result.

use std::time::Duration;

use bus_schema::{Fault, FaultKind, Refusal, message::Unknown};

use crate::{
    bus::{Action, BusError, TurnedAway},
    lend::LendError,
    stream::StreamError,
};

/// Why an operation gave no result. [`may_have_acted`](Self::may_have_acted) says whether the
/// device may have done something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the driver's subject.
    #[error("no driver {address} on this bus")]
    NoDriver {
        /// The driver as it was named.
        address: String,
    },
    /// The exporter refused: nothing was executed.
    #[error("{address} refused: {refusal}")]
    Refused {
        /// The driver.
        address: String,
        /// Which no.
        refusal: Refusal,
    },
    /// It was executed, and the device or driver failed.
    #[error("{address} failed: {fault}")]
    Fault {
        /// The driver.
        address: String,
        /// How.
        fault: Fault,
    },
    /// The deadline passed.
    #[error("{address} gave no result within {limit:?}")]
    TimedOut {
        /// The driver.
        address: String,
        /// The deadline.
        limit: Duration,
        /// Whether the request had been handed to the broker.
        sent: bool,
    },
    /// The exporter went away while the call was out.
    #[error("{address} was lost: {why}")]
    Lost {
        /// The driver.
        address: String,
        /// What was seen.
        why: &'static str,
    },
    /// The exporter cannot say how the call ended.
    #[error("the outcome at {address} is unknown: {}", unknown(*.why))]
    OutcomeUnknown {
        /// The driver.
        address: String,
        /// Why not.
        why: Unknown,
    },
    /// A stream or streaming call broke off.
    #[error("{address}: {error}")]
    Broken {
        /// The driver.
        address: String,
        /// How.
        error: StreamError,
    },
    /// What was to be lent cannot be.
    #[error("{0}")]
    Lending(LendError),
    /// The arguments cannot be sent.
    #[error("it cannot be sent: {0}")]
    Unsendable(String),
    /// The answer cannot be read.
    #[error("the answer cannot be read: {0}")]
    Garbled(String),
    /// The broker does not allow it: nothing was executed.
    #[error("{}not allowed by the broker: {who} may not {action} {subject}", at(address.as_deref()))]
    NotAllowed {
        /// What it was about.
        address: Option<String>,
        /// Who we are.
        who: String,
        /// What we wanted to do.
        action: Action,
        /// Where.
        subject: String,
    },
    /// The broker does not let us in.
    #[error("the broker does not let us in: {0}")]
    TurnedAway(TurnedAway),
    /// The broker.
    #[error("{0}")]
    Bus(String),
}

fn at(address: Option<&str>) -> String {
    address.map(|address| format!("{address}: ")).unwrap_or_default()
}

fn unknown(why: Unknown) -> &'static str {
    match why {
        Unknown::Forgotten => "its exporter was restarted after the call was first sent",
        Unknown::Dropped => "it ended, and its result is no longer kept",
    }
}

impl CallError {
    /// Whether a file that was lent was missing at the broker: removed, or aged out. It was
    /// executed as far as the data came. [`Put`](crate::Put) it with `again`, then call again.
    pub fn lacks_file(&self) -> bool {
        matches!(self, Self::Fault { fault, .. } if fault.kind == FaultKind::Gone)
    }

    /// Whether the device may have done something. If not, the call can simply be made again.
    pub fn may_have_acted(&self) -> bool {
        match self {
            Self::NoDriver { .. }
            | Self::Refused { .. }
            | Self::Unsendable(_)
            | Self::NotAllowed { .. }
            | Self::TurnedAway(_)
            | Self::Bus(_) => false,
            Self::Lending(error) => error.may_have_acted(),
            Self::TimedOut { sent, .. } => *sent,
            Self::Fault { .. }
            | Self::Lost { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Broken { .. }
            | Self::Garbled(_) => true,
        }
    }
}

impl CallError {
    /// The same, with what it was about where it does not say so.
    pub(crate) fn about(mut self, what: String) -> Self {
        if let Self::NotAllowed { address, .. } = &mut self {
            address.get_or_insert(what);
        }
        self
    }
}

impl From<BusError> for CallError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Denied { who, action, subject } => {
                Self::NotAllowed { address: None, who, action, subject }
            }
            BusError::TurnedAway(why) => Self::TurnedAway(why),
            other => Self::Bus(other.to_string()),
        }
    }
}
