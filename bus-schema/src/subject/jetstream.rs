//! JetStream's streams, and what is asked of them.

use crate::Root;

/// The names of the JetStream streams of one root. PROTOCOL.md lists their configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Records of streaming calls.
    pub out: String,
    /// Presence, trees and interfaces.
    pub registry: String,
    /// Files that clients lend.
    pub files: String,
    /// Events.
    pub events: String,
    /// Logs.
    pub logs: String,
    /// What admins write down: places.
    pub admin: String,
}

/// What an account without JetStream asks that of another account for, as patterns, and whether
/// one request may have several answers. Every one ends in a wildcard, and must: PROTOCOL.md §3.2.
pub const JETSTREAM_REQUESTS: [(&str, bool); 3] =
    [("$JS.API.*", false), ("$JS.API.STREAM.>", false), ("$JS.API.DIRECT.GET.>", true)];

impl Streams {
    /// The streams of `root`.
    pub fn of(root: &Root) -> Self {
        Self {
            out: format!("{root}_out"),
            registry: format!("{root}_registry"),
            files: format!("{root}_files"),
            events: format!("{root}_events"),
            logs: format!("{root}_logs"),
            admin: format!("{root}_admin"),
        }
    }

    /// The request that reads the last message of `subject` from `stream`: the one read of
    /// JetStream that permissions can scope (ADR-31).
    pub fn direct_get(stream: &str, subject: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}.{subject}")
    }

    /// The request that reads many subjects of `stream` at once (`multi_last` of ADR-31).
    pub fn direct_get_many(stream: &str) -> String {
        format!("$JS.API.DIRECT.GET.{stream}")
    }

    /// The request that creates `stream`.
    pub fn create(stream: &str) -> String {
        format!("$JS.API.STREAM.CREATE.{stream}")
    }

    /// The request that changes `stream`.
    pub fn update(stream: &str) -> String {
        format!("$JS.API.STREAM.UPDATE.{stream}")
    }

    /// The request that describes `stream`.
    pub fn info(stream: &str) -> String {
        format!("$JS.API.STREAM.INFO.{stream}")
    }

    /// The request that removes messages of `stream` for good.
    pub fn purge(stream: &str) -> String {
        format!("$JS.API.STREAM.PURGE.{stream}")
    }
}
