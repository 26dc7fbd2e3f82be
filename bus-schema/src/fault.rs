//! Why a call did not give its result: the device failed, or the exporter said no.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::{ClientName, limits::TEXT_BYTES_MAX};

/// What a driver reports when the device, or the driver itself, failed. The call was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// Which sort of failure, for programs.
    pub kind: FaultKind,
    /// What happened, for people.
    pub text: String,
}

impl Fault {
    /// A fault of `kind`. Text past [`TEXT_BYTES_MAX`] is cut.
    pub fn new(kind: FaultKind, text: impl fmt::Display) -> Self {
        Self { kind, text: cut(text.to_string()) }
    }

    /// The device failed.
    pub fn device(text: impl fmt::Display) -> Self {
        Self::new(FaultKind::Device, text)
    }

    /// The driver does not do this (Jumpstarter's `NotImplementedError`).
    pub fn unsupported(text: impl fmt::Display) -> Self {
        Self::new(FaultKind::Unsupported, text)
    }

    /// The argument has the right type and a value that the device cannot take (`ValueError`).
    pub fn argument(text: impl fmt::Display) -> Self {
        Self::new(FaultKind::Argument, text)
    }

    /// The device did not answer in time (`TimeoutError`).
    pub fn timeout(text: impl fmt::Display) -> Self {
        Self::new(FaultKind::Timeout, text)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(fault) => return fault,
            Err(error) => error,
        };
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => FaultKind::Timeout,
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => FaultKind::Unreachable,
            _ => FaultKind::Io,
        };
        Self::new(kind, error)
    }
}

/// Cuts at a character boundary and says so.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX - 4).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// A closed list of words that a newer peer may have added to: the unknown ones are kept.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A word of a newer version.
            Other(String),
        }

        impl $name {
            /// Every word this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let word = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(d)?;
                Ok(match &*word {
                    $($word => Self::$variant,)*
                    other => Self::Other(other.chars().take(64).collect()),
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// The sort of a [`Fault`].
    FaultKind {
        /// The device failed or said no.
        Device = "device",
        /// The driver does not do this.
        Unsupported = "unsupported",
        /// A value that the device cannot take.
        Argument = "argument",
        /// Somebody else has the device.
        Busy = "busy",
        /// The device did not answer in time.
        Timeout = "timeout",
        /// The device, or the service behind it, could not be reached.
        Unreachable = "unreachable",
        /// The operating system failed a read, a write or an open.
        Io = "io",
        /// The data that was lent could not be read: it is damaged, or not what it was said to be.
        Resource = "resource",
        /// The file that was lent is not stored, or no longer: its lender can store it again.
        Gone = "gone",
        /// What the method gave is over the limit of a result or of an item.
        TooLarge = "too-large",
        /// The driver panicked; it is being restarted.
        Panic = "panic",
        /// The method was stopped because its caller cancelled, or at its deadline.
        Cancelled = "cancelled",
    }
}

words! {
    /// Why an exporter refused a call. A refused call was not executed.
    RefusalCode {
        /// The exporter has no such driver.
        NoDriver = "no-driver",
        /// The driver has no such method.
        UnknownMethod = "unknown-method",
        /// The method is a call, a streaming call or a stream, and was used as another.
        WrongKind = "wrong-kind",
        /// The arguments do not fit the signature.
        BadArguments = "bad-arguments",
        /// The message could not be read.
        Malformed = "malformed",
        /// The message is of a version that this peer does not speak.
        WrongVersion = "wrong-version",
        /// The verb of the subject means nothing here.
        UnknownVerb = "unknown-verb",
        /// The call id was used before with other arguments.
        IdReused = "id-reused",
        /// The device or its queue is taken.
        Busy = "busy",
        /// Arguments, result or item exceed a limit.
        TooLarge = "too-large",
        /// The driver crashed and is being restarted.
        Restarting = "restarting",
        /// The driver crashed too often and was given up.
        Failed = "failed",
        /// The exporter is going down.
        ShuttingDown = "shutting-down",
        /// The deadline had passed before the call could begin.
        Expired = "expired",
        /// The caller needs a lease on this tree.
        NotLeased = "not-leased",
        /// This client may not do this.
        NotAllowed = "not-allowed",
    }
}

/// An exporter's no. Nothing was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Which no, for programs.
    pub code: RefusalCode,
    /// What was wrong and what would be right, for people.
    pub text: String,
    /// The limit that was exceeded, in its own unit, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How long the present holder has had the device, in ms, where the answer is *busy*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Who has the lease, where the answer is *not leased* or *busy*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<ClientName>,
    /// How long it lasts at most, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

impl Refusal {
    /// A refusal. Text past [`TEXT_BYTES_MAX`] is cut.
    pub fn new(code: RefusalCode, text: impl fmt::Display) -> Self {
        let text = cut(text.to_string());
        Self { code, text, limit: None, since_ms: None, holder: None, left_ms: None }
    }

    /// The same refusal, naming the limit that was exceeded.
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

/// How serving an operation can end without a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was not executed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was executed, and failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}
