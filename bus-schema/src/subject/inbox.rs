//! Where answers go.

use super::{VERSION, behind};
use crate::{ClientName, ExporterName, Incarnation, Root, Session};

/// The token of an inbox that is no session's and no incarnation's.
const MARK: &str = "_";

/// Inboxes: where answers go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox(String);

impl Inbox {
    /// The inbox of a client process.
    pub fn of_client(root: &Root, client: &ClientName, session: Session) -> Self {
        Self(format!("{root}.{VERSION}.i.{client}.{session}"))
    }

    /// The inbox of an exporter process.
    pub fn of_exporter(root: &Root, exporter: &ExporterName, incarnation: Incarnation) -> Self {
        Self(format!("{root}.{VERSION}.ix.{exporter}.{incarnation}"))
    }

    /// The inboxes of all processes of one client.
    pub(super) fn all_of_client(root: &Root, client: &str) -> String {
        format!("{root}.{VERSION}.i.{client}.>")
    }

    /// The inboxes of all runs of one exporter.
    pub(super) fn all_of_exporter(root: &Root, exporter: &str) -> String {
        format!("{root}.{VERSION}.ix.{exporter}.>")
    }

    /// The reply subject of what exporter says without wanting an answer: nobody listens there, and
    /// it shows whose word it is. What JetStream is made to publish has no reply subject of ours.
    pub fn mark_of_exporter(root: &Root, exporter: &ExporterName) -> String {
        format!("{root}.{VERSION}.ix.{exporter}.{MARK}")
    }

    /// The same of a client.
    pub fn mark_of_client(root: &Root, client: &ClientName) -> String {
        format!("{root}.{VERSION}.i.{client}.{MARK}")
    }

    /// The subject for one answer. `token` is fresh and random: a guessable one can be forged.
    pub fn token(&self, token: u64) -> String {
        let mut subject = String::with_capacity(self.0.len() + 1 + 16);
        subject.extend([&self.0, ".", Session(token).text(&mut [0; 16])]);
        subject
    }

    /// The subscription for all answers.
    pub fn wildcard(&self) -> String {
        format!("{}.*", self.0)
    }

    /// The token of a subject in this inbox.
    pub fn read(&self, subject: &str) -> Option<u64> {
        Self::token_in(subject.strip_prefix(&self.0)?.strip_prefix('.')?)
    }

    /// A reply subject, as the inbox that it is in and its token.
    pub fn split(reply: &str) -> Option<(&str, &str)> {
        reply.rsplit_once('.')
    }

    /// The token of a reply subject's last part, as it is written.
    pub fn token_in(text: &str) -> Option<u64> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
    }

    /// Whether `reply` lies under the inbox of `client`, so that an answer there reaches nobody
    /// but the client that the subject names. Allocates nothing: every request passes here.
    pub fn belongs_to(reply: &str, root: &Root, client: &ClientName) -> bool {
        lies_under(reply, root, "i", client.as_str())
    }

    /// Whether `reply` lies under the inbox of `exporter`.
    pub fn is_of_exporter(reply: &str, root: &Root, exporter: &ExporterName) -> bool {
        lies_under(reply, root, "ix", exporter.as_str())
    }
}

fn lies_under(reply: &str, root: &Root, class: &str, name: &str) -> bool {
    let rest = behind(root, class, reply).and_then(|s| s.strip_prefix(name));
    rest.and_then(|s| s.strip_prefix('.'))
        .is_some_and(|token| !token.is_empty() && !token.contains(['*', '>', ' ']))
}
