//! A storage multiplexer: a medium that is either at the host or at the device under test.

use bus_schema::{Fault, interface};
use runtime::{Context, Items, Resource, ResourceWriter};

use crate::{StorageProgress, Written};

mod command;
mod fake;

pub use command::{CommandStorageMux, CommandStorageMuxConfig};
pub use fake::{
    FakeStorageMux, FakeStorageMuxBlocking, FakeStorageMuxClient, FakeStorageMuxConfig, MuxSide,
};

/// Switches a medium between the host and the device under test.
#[interface]
pub trait StorageMux {
    /// Gives the medium to the exporter's host.
    async fn host(&self) -> Result<(), Fault>;

    /// Gives the medium to the device under test.
    async fn dut(&self) -> Result<(), Fault>;

    /// Takes the medium from both.
    async fn off(&self) -> Result<(), Fault>;

    /// Gives the medium to the host, and writes an image to it.
    #[method(deadline = "4h")]
    async fn write(
        &self,
        cx: &Context,
        /// The image; it is unpacked.
        src: Resource,
        /// Whether to read it back and compare.
        #[default(false)]
        verify: bool,
    ) -> Result<Written, Fault>;

    /// Gives the medium to the host, and reads it; gives the number of bytes.
    #[method(deadline = "4h")]
    async fn read(
        &self,
        cx: &Context,
        /// Where it goes.
        dst: ResourceWriter,
    ) -> Result<u64, Fault>;

    /// How far the operation is that runs: at once, and whenever it is further, until the caller
    /// has enough.
    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault>;
}
