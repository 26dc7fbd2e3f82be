//! Flashers: what writes an image to a device, whole.

use bus_schema::{Fault, interface};
use runtime::{Context, Items, Resource, ResourceWriter};

use crate::{StorageProgress, Written};

mod fake;
mod targets;

pub use fake::{FakeFlasher, FakeFlasherConfig};
pub use targets::{TargetFlasher, TargetFlasherConfig};

/// Writes images to the targets of a device, and reads them back.
#[interface]
pub trait Flasher {
    /// Writes an image to a target, and returns when it is there.
    #[method(deadline = "4h")]
    async fn flash(
        &self,
        cx: &Context,
        /// The image; it is unpacked.
        source: Resource,
        /// The target: the only one, or the usual one, unless given.
        #[default(None)]
        partition: Option<String>,
        /// Whether to read it back and compare.
        #[default(false)]
        verify: bool,
    ) -> Result<Written, Fault>;

    /// Reads a target; gives the number of bytes.
    #[method(deadline = "4h")]
    async fn dump(
        &self,
        cx: &Context,
        /// Where it goes.
        target: ResourceWriter,
        /// The target: the only one, or the usual one, unless given.
        #[default(None)]
        partition: Option<String>,
    ) -> Result<u64, Fault>;

    /// How far the operation is that runs: at once, and whenever it is further, until the caller
    /// has enough.
    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault>;
}
