//! What clients store.

use super::{SubjectError, VERSION, behind};
use crate::{ClientName, ExporterName, Root, Sha256};

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
                digest.parse().ok().zip(canonical(n)).map(|(digest, n)| Piece::Part(digest, n))
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

/// A part of a block that goes to an exporter while it is stored: the exporter hears it, and
/// JetStream captures it as the [`Stored`] part of the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredTo {
    /// Who stores it.
    pub client: ClientName,
    /// Who is to hear it.
    pub exporter: ExporterName,
    /// The block.
    pub block: Sha256,
    /// Which part of it.
    pub part: u32,
}

impl StoredTo {
    /// The subject under `root`.
    pub fn under(&self, root: &Root) -> String {
        let Self { client, exporter, block, part } = self;
        format!("{root}.{VERSION}.f.{client}.to.{exporter}.{block}.{part}")
    }

    /// All parts of one block, to this exporter.
    pub fn parts_of(
        root: &Root,
        client: &ClientName,
        exporter: &ExporterName,
        block: Sha256,
    ) -> String {
        format!("{root}.{VERSION}.f.{client}.to.{exporter}.{block}.*")
    }

    /// Reads a subject under `root`.
    ///
    /// # Errors
    ///
    /// [`SubjectError::Foreign`], whatever else it is.
    pub fn read(root: &Root, subject: &str) -> Result<Self, SubjectError> {
        let read = || {
            let tokens: Vec<_> = behind(root, "f", subject)?.splitn(6, '.').collect();
            let [client, "to", exporter, block, part] = tokens[..] else { return None };
            Some(Self {
                client: client.parse().ok()?,
                exporter: exporter.parse().ok()?,
                block: block.parse().ok()?,
                part: canonical(part)?,
            })
        };
        read().ok_or(SubjectError::Foreign)
    }

    /// What JetStream captures in another place than it is published, and where, as a subject
    /// transform: all of these as [`Stored`].
    pub fn captured(root: &Root) -> (String, String) {
        let place = |from: &str| format!("{root}.{VERSION}.f.{from}");
        (place("*.to.*.*.*"), place("{{wildcard(1)}}.b.{{wildcard(3)}}.{{wildcard(4)}}"))
    }
}

/// The number, if that is how it is written.
fn canonical(text: &str) -> Option<u32> {
    text.parse().ok().filter(|n: &u32| n.to_string() == text)
}
