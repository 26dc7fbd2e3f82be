//! Storage that images are written to: the contract, and the medium below it.

use bus_schema::{Describe, Fault, interface};
use runtime::{Context, Items, Resource, ResourceWriter};
use serde::{Deserialize, Serialize};

pub(crate) mod file;
pub(crate) mod image;
pub(crate) mod medium;
pub(crate) mod meter;
pub(crate) mod size;

/// An image that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Written {
    /// Its bytes, unpacked.
    pub bytes: u64,
    /// How many of them are zeros that did not have to be written.
    pub holes: u64,
    /// Its SHA-256, unpacked: if it was verified, or lent with it.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether it was read back and compared.
    pub verified: bool,
}

/// How far an operation on storage is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct StorageProgress {
    /// What is being done: `write`, `verify`, `read`, `hash`, `erase`; empty if nothing is.
    pub what: String,
    /// Bytes of it that are done.
    pub bytes: u64,
    /// Bytes in all, if that is known.
    #[serde(default)]
    pub total: Option<u64>,
}

/// A file or block device that bytes are written to and read from.
#[interface]
pub trait Storage {
    /// Writes an image, and returns when it is on the medium.
    #[method(deadline = "4h")]
    async fn write(
        &self,
        cx: &Context,
        /// The image; it is unpacked.
        src: Resource,
        /// Where it begins on the medium.
        #[default(0)]
        offset: u64,
        /// Whether to read it back and compare.
        #[default(false)]
        verify: bool,
    ) -> Result<Written, Fault>;

    /// Reads what is on the medium; gives the number of bytes.
    #[method(deadline = "4h")]
    async fn read(
        &self,
        cx: &Context,
        /// Where it goes.
        dst: ResourceWriter,
        /// Where to begin.
        #[default(0)]
        offset: u64,
        /// How much: to the end unless given.
        #[default(None)]
        length: Option<u64>,
    ) -> Result<u64, Fault>;

    /// The SHA-256 of what is on the medium.
    #[method(deadline = "4h")]
    async fn hash(
        &self,
        cx: &Context,
        /// Where to begin.
        #[default(0)]
        offset: u64,
        /// How much: to the end unless given.
        #[default(None)]
        length: Option<u64>,
    ) -> Result<String, Fault>;

    /// Makes what is on the medium zeros.
    #[method(deadline = "4h")]
    async fn erase(
        &self,
        cx: &Context,
        /// Where to begin.
        #[default(0)]
        offset: u64,
        /// How much: to the end unless given.
        #[default(None)]
        length: Option<u64>,
    ) -> Result<(), Fault>;

    /// The medium's size in bytes.
    #[method(concurrent)]
    async fn size(&self) -> Result<u64, Fault>;

    /// How far the operation is that runs: at once, and whenever it is further, until the caller
    /// has enough.
    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault>;
}
