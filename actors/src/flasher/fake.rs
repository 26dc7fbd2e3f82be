//! A flasher of nothing, for tests: a medium that nobody sees, as large, slow and broken as wanted.

use std::{fs::File, sync::Arc, time::Duration};

use bus_schema::{Describe, Fault, FaultKind, Interface, driver};
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};
use serde::Deserialize;

use super::{Flasher, FlasherInterface};
use crate::{
    StorageProgress, Written,
    storage::{image, medium::Medium, meter::Meter, size::bytes_of},
};

/// A flasher with a medium of its own, which is gone with it.
#[derive(Debug)]
pub struct FakeFlasher {
    file: File,
    size: u64,
    fails_at: Option<u64>,
    settles: Duration,
    meter: Meter,
}

/// The configuration of a [`FakeFlasher`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct FakeFlasherConfig {
    /// How large the medium is: `1G` unless given.
    pub size: String,
    /// The byte from which on it cannot be written.
    pub fails_at: Option<u64>,
    /// How long it takes after an image was written.
    pub settles: Duration,
}

impl Default for FakeFlasherConfig {
    fn default() -> Self {
        Self { size: "1G".to_owned(), fails_at: None, settles: Duration::ZERO }
    }
}

impl FakeFlasher {
    /// One with an empty medium.
    ///
    /// # Errors
    ///
    /// That the size makes no sense, or there is no temporary directory.
    pub fn new(config: FakeFlasherConfig) -> Result<Self, Fault> {
        let FakeFlasherConfig { size, fails_at, settles } = config;
        let size = bytes_of(&size).map_err(Fault::argument)?;
        Ok(Self { file: tempfile::tempfile()?, size, fails_at, settles, meter: Meter::default() })
    }

    fn medium(&self) -> Result<Medium, Fault> {
        Ok(Medium::fake(self.file.try_clone()?, self.size, self.fails_at))
    }
}

impl Flasher for FakeFlasher {
    async fn flash(
        &self,
        cx: &Context,
        source: Resource,
        _partition: Option<String>,
        verify: bool,
    ) -> Result<Written, Fault> {
        let medium = self.medium()?;
        self.file.set_len(0)?;
        let written = image::write(cx, &self.meter, source, medium, 0, verify).await?;
        tokio::select! {
            biased;
            () = cx.cancelled() => Err(Fault::new(FaultKind::Cancelled, "cancelled while it settled")),
            () = tokio::time::sleep(self.settles) => Ok(written),
        }
    }

    async fn dump(
        &self,
        cx: &Context,
        target: ResourceWriter,
        _partition: Option<String>,
    ) -> Result<u64, Fault> {
        let bytes = self.file.metadata()?.len();
        image::read(cx, &self.meter, target, self.medium()?, 0, bytes).await
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(Flasher, name = "fake-flasher")]
impl FakeFlasher {}

impl DriverKind for FakeFlasher {
    const KIND: &'static str = "fake-flasher";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_opendal.driver.MockFlasher"];
    const HELP: &'static str = "A flasher whose medium nobody sees, for tests.";
    type Config = FakeFlasherConfig;

    async fn open(config: FakeFlasherConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![FlasherInterface::describe()]
    }
}
