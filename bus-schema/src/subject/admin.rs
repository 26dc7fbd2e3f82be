//! What admins write down.

use super::{SubjectError, VERSION, behind};
use crate::{PlaceName, Root};

/// A subject that only admins publish on; captured by JetStream, one message for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FromAdmin {
    /// What a place is.
    Place(PlaceName),
}

impl FromAdmin {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        match self {
            Self::Place(name) => format!("{root}.{VERSION}.a.place.{name}"),
        }
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`], as [`FromClient::read`](super::FromClient::read).
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        match behind(root, "a", subject).ok_or(FOREIGN)?.split_once('.') {
            Some(("place", name)) => name.parse().map(Self::Place).map_err(|_| FOREIGN),
            _ => Err(SubjectError::Verb),
        }
    }

    /// Every place.
    pub fn places(root: &Root) -> String {
        format!("{root}.{VERSION}.a.place.*")
    }

    /// All that admins write down.
    pub fn all(root: &Root) -> String {
        format!("{root}.{VERSION}.a.>")
    }
}
