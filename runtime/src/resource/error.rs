//! Why a resource could not be had.

use std::io;

use bus_schema::{Failure, Fault, FaultKind};

/// Why a resource could not be had, or is not what it was said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It is not stored (any more).
    #[error("the file is not stored, or no longer: {what} is missing; it has to be stored again")]
    Gone {
        /// Which piece.
        what: String,
    },
    /// What is stored is not what it is stored as.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// It is not what its lender says.
    #[error("the resource is not what it was said to be: {0}")]
    Mismatch(String),
    /// It could not be unpacked.
    #[error("the {packing} data cannot be unpacked: {why}")]
    Unpack {
        /// How it is compressed.
        packing: String,
        /// What the decoder says.
        why: String,
    },
    /// A URL could not be fetched. It names no secret.
    #[error("{url} cannot be fetched: {why}")]
    Fetch {
        /// The URL, as it may be shown.
        url: String,
        /// Why not.
        why: String,
    },
    /// The caller's stream broke off.
    #[error("the caller's stream broke off: {0}")]
    Cut(String),
    /// The broker cannot give it.
    #[error("{0}")]
    Broker(String),
    /// It is used the wrong way round.
    #[error("the resource is to be {0}")]
    Direction(&'static str),
    /// The operation that it was lent to has ended.
    #[error("the operation that the resource was lent to has ended")]
    Over,
}

impl From<ResourceError> for Fault {
    fn from(error: ResourceError) -> Self {
        let kind = match error {
            ResourceError::Gone { .. } => FaultKind::Gone,
            _ => FaultKind::Resource,
        };
        Self::new(kind, error)
    }
}

impl From<ResourceError> for Failure {
    fn from(error: ResourceError) -> Self {
        Fault::from(error).into()
    }
}

impl From<ResourceError> for io::Error {
    fn from(error: ResourceError) -> Self {
        Self::other(Fault::from(error)) // a driver that passes it on says whose trouble it is
    }
}
