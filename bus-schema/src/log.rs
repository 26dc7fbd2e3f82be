//! Logs: what an exporter and its drivers say while they work.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{DriverId, IdError, Incarnation, codec::Message};

/// Lines of one source, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLines {
    /// Which run of the exporter says them.
    pub incarnation: Incarnation,
    /// The number of the first among the lines of this source and run, from 0. Lines that had to
    /// be dropped have numbers too: a gap is a loss.
    pub first: u64,
    /// The path of the driver that is the source; empty for the exporter and for its root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The lines.
    pub lines: Vec<LogLine>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, in ms since 1970 by the exporter's clock.
    pub at_ms: u64,
    /// How much it matters.
    pub level: Level,
    /// What is said, with its fields, at most
    /// [`LOG_LINE_BYTES_MAX`](crate::limits::LOG_LINE_BYTES_MAX).
    pub text: String,
}

/// How much a line matters, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something failed, and somebody has to see to it.
    Error,
    /// Something is odd.
    Warn,
    /// What an operator would want to know in the morning.
    Info,
    /// What who looks for trouble would.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Every level, most important first.
    pub const ALL: &[Self] = &[Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Message for LogLines {
    const KIND: u8 = 0x41;
    const NAME: &str = "log";
}

/// Who says it: the last token of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogSource {
    /// The exporter itself.
    Exporter,
    /// One of its drivers.
    Driver(DriverId),
}

impl LogSource {
    const EXPORTER: &str = "exporter";
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exporter => f.write_str(Self::EXPORTER),
            Self::Driver(id) => id.fmt(f),
        }
    }
}

impl FromStr for LogSource {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            Self::EXPORTER => Ok(Self::Exporter),
            id => id.parse().map(Self::Driver),
        }
    }
}
