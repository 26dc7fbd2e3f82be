//! A storage multiplexer that switches nothing, for tests.

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{Describe, Fault, Interface, driver};
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};
use serde::{Deserialize, Serialize};

use super::{StorageMux, StorageMuxInterface};
use crate::{
    StorageProgress, Written,
    storage::{image, medium::Medium, meter::Meter, size::bytes_of},
};

/// A multiplexer whose medium nobody sees.
#[derive(Debug)]
pub struct FakeStorageMux {
    file: File,
    size: u64,
    side: Mutex<MuxSide>,
    meter: Meter,
}

/// Who has the medium of a multiplexer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum MuxSide {
    /// The exporter's host.
    Host,
    /// The device under test.
    Dut,
    /// Nobody.
    #[default]
    Off,
}

/// The configuration of a [`FakeStorageMux`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct FakeStorageMuxConfig {
    /// How large the medium is: `1G` unless given.
    pub size: String,
}

impl Default for FakeStorageMuxConfig {
    fn default() -> Self {
        Self { size: "1G".to_owned() }
    }
}

impl FakeStorageMux {
    /// One with an empty medium that nobody has.
    ///
    /// # Errors
    ///
    /// That the size makes no sense, or there is no temporary directory.
    pub fn new(config: &FakeStorageMuxConfig) -> Result<Self, Fault> {
        let size = bytes_of(&config.size).map_err(Fault::argument)?;
        let (file, side, meter) = (tempfile::tempfile()?, Mutex::default(), Meter::default());
        Ok(Self { file, size, side, meter })
    }

    fn switch(&self, to: MuxSide) {
        *self.side.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    fn medium(&self) -> Result<Medium, Fault> {
        Ok(Medium::fake(self.file.try_clone()?, self.size, None))
    }
}

impl StorageMux for FakeStorageMux {
    async fn host(&self) -> Result<(), Fault> {
        self.switch(MuxSide::Host);
        Ok(())
    }

    async fn dut(&self) -> Result<(), Fault> {
        self.switch(MuxSide::Dut);
        Ok(())
    }

    async fn off(&self) -> Result<(), Fault> {
        self.switch(MuxSide::Off);
        Ok(())
    }

    async fn write(&self, cx: &Context, src: Resource, verify: bool) -> Result<Written, Fault> {
        self.switch(MuxSide::Host);
        let medium = self.medium()?;
        self.file.set_len(0)?;
        image::write(cx, &self.meter, src, medium, 0, verify).await
    }

    async fn read(&self, cx: &Context, dst: ResourceWriter) -> Result<u64, Fault> {
        self.switch(MuxSide::Host);
        let bytes = self.file.metadata()?.len();
        image::read(cx, &self.meter, dst, self.medium()?, 0, bytes).await
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(StorageMux, name = "fake-storage-mux")]
impl FakeStorageMux {
    /// Who has the medium.
    #[export]
    #[method(concurrent)]
    async fn side(&self) -> MuxSide {
        *self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.off().await
    }
}

impl DriverKind for FakeStorageMux {
    const KIND: &'static str = "fake-storage-mux";
    const ALIASES: &'static [&'static str] = &[
        "jumpstarter_driver_opendal.driver.MockStorageMux",
        "jumpstarter_driver_opendal.driver.MockStorageMuxFlasher",
    ];
    const HELP: &'static str = "A storage multiplexer whose medium nobody sees, for tests.";
    type Config = FakeStorageMuxConfig;

    async fn open(config: FakeStorageMuxConfig, _: Site) -> Result<Self, Fault> {
        Self::new(&config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![StorageMuxInterface::describe(), FakeStorageMuxInterface::describe()]
    }
}
