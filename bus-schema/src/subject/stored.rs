//! What clients store.

use super::{SubjectError, VERSION, behind};
use crate::{ClientName, Root, Sha256};

/// A piece of a file that a client stores; captured by JetStream. The client in it is as true as
/// that of a request, so nobody can put anything in the place of another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// Who stores it.
    pub client: ClientName,
    /// Which piece.
    pub piece: Piece,
}

/// The piece of a file that a [`Stored`] subject names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// The manifest whose message has this SHA-256.
    Manifest(Sha256),
    /// Part `n` of the block with this SHA-256.
    Part(Sha256, u32),
}

impl Stored {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        let client = &self.client;
        match self.piece {
            Piece::Manifest(digest) => format!("{root}.{VERSION}.f.{client}.m.{digest}"),
            Piece::Part(digest, n) => format!("{root}.{VERSION}.f.{client}.b.{digest}.{n}"),
        }
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError`], as [`FromClient::read`](super::FromClient::read).
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        const FOREIGN: SubjectError = SubjectError::Foreign;
        let tokens: Vec<_> = behind(root, "f", subject).ok_or(FOREIGN)?.splitn(5, '.').collect();
        let client = tokens[0].parse().map_err(|_| FOREIGN)?;
        let piece = match tokens[1..] {
            ["m", digest] => digest.parse().ok().map(Piece::Manifest),
            ["b", digest, n] => {
                let canonical = n.parse().ok().filter(|n: &u32| n.to_string() == tokens[3]);
                digest.parse().ok().zip(canonical).map(|(digest, n)| Piece::Part(digest, n))
            }
            ["m" | "b", ..] => None,
            _ => return Err(SubjectError::Verb),
        };
        piece.map(|piece| Self { client, piece }).ok_or(FOREIGN)
    }

    /// Everything that clients store: what JetStream captures.
    pub fn all(root: &Root) -> String {
        format!("{root}.{VERSION}.f.>")
    }

    /// All that one client stores.
    pub fn all_of(root: &Root, client: &ClientName) -> String {
        format!("{root}.{VERSION}.f.{client}.>")
    }

    /// All parts of one block of one client.
    pub fn parts_of(root: &Root, client: &ClientName, digest: Sha256) -> String {
        format!("{root}.{VERSION}.f.{client}.b.{digest}.*")
    }
}
