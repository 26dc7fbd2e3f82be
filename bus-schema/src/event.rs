//! Events: what happened at an exporter, as it told everybody.
//!
//! Like every record of an exporter they are views, never authority.

use serde::{Deserialize, Serialize};

use crate::{ClientName, Incarnation, codec::Message, fault::words};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened; the last token of the subject, too.
    pub kind: EventKind,
    /// When, in ms since 1970 by the exporter's clock.
    pub at_ms: u64,
    /// Which run of the exporter tells it.
    pub incarnation: Incarnation,
    /// Its number among the events of that run, from 0. One that had to be dropped has a number
    /// too: a gap is a loss.
    pub number: u64,
    /// The path of the driver or subtree that it is about; empty for the exporter as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Whose lease or call it is about, or who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientName>,
    /// The lease that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Message for Event {
    const KIND: u8 = 0x40;
    const NAME: &str = "event";
}

words! {
    /// The sort of an [`Event`]. Each is a token of a subject.
    EventKind {
        /// The exporter serves.
        ExporterUp = "exporter-up",
        /// It takes nothing new, and will leave.
        ExporterDraining = "exporter-draining",
        /// It left.
        ExporterLeft = "exporter-left",
        /// A driver panicked or ended, and is restarted.
        DriverCrashed = "driver-crashed",
        /// A driver that was down is there again.
        DriverRestarted = "driver-restarted",
        /// A driver crashed too often and was given up.
        DriverFailed = "driver-failed",
        /// A device could not be made safe.
        DriverUnsafe = "driver-unsafe",
        /// A lease began.
        LeaseGranted = "lease-granted",
        /// Somebody did not get a lease.
        LeaseRefused = "lease-refused",
        /// A lease has a new end.
        LeaseRenewed = "lease-renewed",
        /// A holder gave its lease back.
        LeaseReleased = "lease-released",
        /// A lease reached its end, or its holder was gone.
        LeaseExpired = "lease-expired",
        /// An admin ended a lease.
        LeaseKicked = "lease-kicked",
        /// A lease has a new holder.
        LeaseTransferred = "lease-transferred",
        /// A holder let somebody else in.
        LeaseShared = "lease-shared",
        /// A call or stream of somebody who holds no lease (any more) was refused.
        CallFenced = "call-fenced",
        /// A hook failed or took too long.
        HookFailed = "hook-failed",
        /// Nothing new is taken, by an admin's word.
        Drained = "drained",
        /// The same, because somebody works on it.
        Maintenance = "maintenance",
        /// What was drained takes new work again.
        Resumed = "resumed",
        /// The configuration was read anew.
        Reloaded = "reloaded",
        /// A new configuration was refused, and nothing changed.
        ReloadRefused = "reload-refused",
        /// A health check failed.
        HealthFailed = "health-failed",
        /// A health check succeeded after it had failed.
        HealthPassed = "health-passed",
    }
}

impl EventKind {
    /// The kind that a subject's token names; `None` if it is no token.
    pub(crate) fn read(token: &str) -> Option<Self> {
        token.parse::<crate::MethodName>().ok()?;
        let known = Self::KNOWN.iter().find(|kind| kind.as_str() == token);
        Some(known.cloned().unwrap_or_else(|| Self::Other(token.to_owned())))
    }
}
