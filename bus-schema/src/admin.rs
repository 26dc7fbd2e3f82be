//! What only an admin may ask of an exporter. The broker keeps everybody else from the subject;
//! the exporter has no list of admins.

use serde::{Deserialize, Serialize};

use crate::{DriverId, Path, Refusal, TicketId};

/// An admin's word to an exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdminAsk {
    /// A driver of the subtree that is meant, by its path; the root unless said otherwise.
    #[serde(default, skip_serializing_if = "Path::is_root")]
    pub path: Path,
    /// The same by its UUID, which then counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverId>,
    /// What is asked.
    #[serde(rename = "do")]
    pub action: AdminAction,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminAction {
    /// End the lease on the subtree, or what the ticket is: a lease, an offer, a place in the
    /// queue. A subtree that is unsafe is made safe once more.
    Kick {
        /// Why, for its holder and for the record.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// This ticket, whichever subtree it is of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<TicketId>,
    },
    /// Grant nothing more on the subtree, and on those within it. Leases that run go on to their
    /// end; whoever waits keeps its place.
    Drain {
        /// Why, for those who are refused.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Whether the admin who asks works on it: when it is free, it is theirs to use.
        #[serde(default, skip_serializing_if = "is_false")]
        maintenance: bool,
    },
    /// Grant again.
    Resume,
    /// Read the configuration anew: what it does not change goes on as it is.
    Reload,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it like this")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Administered {
    /// It was done, or is being done.
    Done {
        /// What, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
    },
    /// It was not.
    Refused(Refusal),
}
