//! Storage that is a file or a block device of the exporter's host.

use std::sync::Arc;

use bus_schema::{Fault, Interface, driver};
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};

use super::{
    Storage, StorageInterface, StorageProgress, Written, image, medium::MediumConfig, meter::Meter,
};

/// A file or block device.
#[derive(Debug)]
pub struct FileStorage {
    medium: MediumConfig,
    meter: Meter,
}

impl FileStorage {
    /// The medium at a path.
    ///
    /// # Errors
    ///
    /// That the path or the size makes no sense.
    pub fn new(medium: MediumConfig) -> Result<Self, Fault> {
        medium.check().map_err(Fault::argument)?;
        Ok(Self { medium, meter: Meter::default() })
    }
}

impl Storage for FileStorage {
    async fn write(
        &self,
        cx: &Context,
        src: Resource,
        offset: u64,
        verify: bool,
    ) -> Result<Written, Fault> {
        image::write(cx, &self.meter, src, self.medium.open()?, offset, verify).await
    }

    async fn read(
        &self,
        cx: &Context,
        dst: ResourceWriter,
        offset: u64,
        length: Option<u64>,
    ) -> Result<u64, Fault> {
        let medium = self.medium.open_to_read()?;
        let bytes = image::range(&medium, offset, length)?;
        image::read(cx, &self.meter, dst, medium, offset, bytes).await
    }

    async fn hash(&self, cx: &Context, offset: u64, length: Option<u64>) -> Result<String, Fault> {
        let medium = self.medium.open_to_read()?;
        let bytes = image::range(&medium, offset, length)?;
        image::hash(cx, &self.meter, "hash", &Arc::new(medium), offset, bytes).await
    }

    async fn erase(&self, cx: &Context, offset: u64, length: Option<u64>) -> Result<(), Fault> {
        let medium = self.medium.open()?;
        let bytes = image::range(&medium, offset, length)?;
        image::erase(cx, &self.meter, medium, offset, bytes).await
    }

    async fn size(&self) -> Result<u64, Fault> {
        self.medium.open_to_read()?.size()
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(Storage, name = "file-storage")]
impl FileStorage {}

impl DriverKind for FileStorage {
    const KIND: &'static str = "storage";
    const HELP: &'static str = "A file or block device that images are written to and read from.";
    type Config = MediumConfig;

    async fn open(config: MediumConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![StorageInterface::describe()]
    }
}
