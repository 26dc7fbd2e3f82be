//! A flasher of files and block devices with names.

use std::{collections::BTreeMap, sync::Arc};

use bus_schema::{Describe, Fault, Interface, driver};
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};
use serde::Deserialize;

use super::{Flasher, FlasherInterface};
use crate::{
    StorageProgress, Written,
    storage::{image, medium::MediumConfig, meter::Meter},
};

/// A flasher that writes to named targets on the exporter's host.
#[derive(Debug)]
pub struct TargetFlasher {
    config: TargetFlasherConfig,
    meter: Meter,
}

/// The configuration of a [`TargetFlasher`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct TargetFlasherConfig {
    /// The targets, by name.
    pub targets: BTreeMap<String, MediumConfig>,
    /// The target that is meant where none is named. Not needed if there is only one.
    #[serde(default)]
    pub default: Option<String>,
}

impl TargetFlasher {
    /// A flasher of these targets.
    ///
    /// # Errors
    ///
    /// That there is none, or one of them makes no sense.
    pub fn new(config: TargetFlasherConfig) -> Result<Self, Fault> {
        if config.targets.is_empty() {
            return Err(Fault::argument("a flasher needs a target"));
        }
        for (name, medium) in &config.targets {
            let wrong = |problem| Fault::argument(format_args!("target {name:?}: {problem}"));
            medium.check().map_err(wrong)?;
        }
        let flasher = Self { config, meter: Meter::default() };
        if flasher.config.default.is_some() {
            flasher.target(None)?;
        }
        Ok(flasher)
    }

    fn target(&self, name: Option<&str>) -> Result<&MediumConfig, Fault> {
        let TargetFlasherConfig { targets, default } = &self.config;
        let names = || targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match name.or(default.as_deref()) {
            Some(name) => targets.get(name).ok_or_else(|| {
                Fault::argument(format_args!("no target {name:?}: there are {}", names()))
            }),
            None if targets.len() == 1 => Ok(targets.values().next().expect("there is one")),
            None => Err(Fault::argument(format_args!("which target? there are {}", names()))),
        }
    }
}

impl Flasher for TargetFlasher {
    async fn flash(
        &self,
        cx: &Context,
        source: Resource,
        partition: Option<String>,
        verify: bool,
    ) -> Result<Written, Fault> {
        let medium = self.target(partition.as_deref())?.open()?;
        image::write(cx, &self.meter, source, medium, 0, verify).await
    }

    async fn dump(
        &self,
        cx: &Context,
        target: ResourceWriter,
        partition: Option<String>,
    ) -> Result<u64, Fault> {
        let medium = self.target(partition.as_deref())?.open_to_read()?;
        let bytes = image::range(&medium, 0, None)?;
        image::read(cx, &self.meter, target, medium, 0, bytes).await
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(Flasher, name = "target-flasher")]
impl TargetFlasher {}

impl DriverKind for TargetFlasher {
    const KIND: &'static str = "flasher";
    const HELP: &'static str =
        "Writes images to named files or block devices of the exporter's host.";
    type Config = TargetFlasherConfig;

    async fn open(config: TargetFlasherConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![FlasherInterface::describe()]
    }
}
