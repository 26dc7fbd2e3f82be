//! Subjects: the only place that spells one. Their `Display` form is the wire.
//!
//! ```text
//! <root>.v1.c.<client>.<verb>.<exporter>.<driver>.<method>   a client speaks to a driver
//! <root>.v1.c.<client>.<verb>.<exporter>._.<token>           a client speaks to the exporter
//! <root>.v1.x.<exporter>.<verb>.…                            an exporter speaks
//! <root>.v1.a.<record>.…                                    an admin has written it down
//! <root>.v1.f.<client>.m.<digest>, ….b.<digest>.<n>      a client stores a file
//! <root>.v1.i.<client>.<session>.<token>                     inbox of a client process
//! <root>.v1.ix.<exporter>.<incarnation>.<token>              inbox of an exporter process
//! ```
//!
//! The token behind `c` is the sender's identity: the broker's permissions make it true.

mod admin;
mod client;
mod exporter;
mod inbox;
mod jetstream;
mod service;
mod set;
mod stored;
pub mod system;

pub use self::{
    admin::FromAdmin,
    client::{DriverVerb, ExporterVerb, FromClient, Spoken, SpokenTo, To},
    exporter::{FromExporter, OutRecord},
    inbox::Inbox,
    jetstream::{JETSTREAM_REQUESTS, Streams},
    service::ServiceVerb,
    set::{CLAIMANT, SubjectSet, covers},
    stored::{Piece, Stored, StoredTo},
};
use crate::Root;

/// The protocol's version as a token. Anything but an addition gets a new one.
pub const VERSION: &str = "v1";

/// The token in the driver's place where the exporter itself is meant.
const EXPORTER_ITSELF: &str = "_";

/// Why a subject was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is not of the form that this place expects, or a token of it is no name or id.
    #[error("not a subject of this protocol")]
    Foreign,
    /// All is well but the verb.
    #[error("the verb means nothing here")]
    Verb,
}

/// What is behind `<root>.v1.<class>.` in a subject that begins so.
fn behind<'s>(root: &Root, class: &str, subject: &'s str) -> Option<&'s str> {
    let rest = subject.strip_prefix(root.as_str())?.strip_prefix('.')?;
    rest.strip_prefix(VERSION)?.strip_prefix('.')?.strip_prefix(class)?.strip_prefix('.')
}

#[cfg(test)]
mod tests;
