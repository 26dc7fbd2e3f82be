//! A storage multiplexer that is a set of commands: sdwire's `sd-mux-ctrl`, and whatever else has a
//! command-line tool.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{Describe, Fault, FaultKind, Interface, driver};
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{StorageMux, StorageMuxInterface};
use crate::{
    StorageProgress, Written, process,
    storage::{
        image,
        medium::{Medium, MediumConfig},
        meter::Meter,
    },
};

/// Between two looks for a device that is to appear.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A multiplexer that runs configured commands on the exporter's host.
#[derive(Debug)]
pub struct CommandStorageMux {
    config: CommandStorageMuxConfig,
    meter: Meter,
}

/// The configuration of a [`CommandStorageMux`]. A command is a list of words; no shell reads it.
#[derive(Clone, Debug, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct CommandStorageMuxConfig {
    /// Gives the medium to the host: program and arguments.
    pub host: Vec<String>,
    /// Gives the medium to the device under test: program and arguments.
    pub dut: Vec<String>,
    /// Takes the medium from both: program and arguments. Without it, it cannot be done.
    #[serde(default)]
    pub off: Option<Vec<String>>,
    /// Where the medium is when the host has it: a block device, or a file.
    pub path: PathBuf,
    /// How long to wait for it after the switch: 10 s unless given.
    #[serde(default = "appears_within")]
    pub appears_within: Duration,
    /// How long each command may take: 20 s unless given.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// Variables for the commands' environment, in addition to that of the exporter.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

fn appears_within() -> Duration {
    Duration::from_secs(10)
}

fn timeout() -> Duration {
    Duration::from_secs(20)
}

impl CommandStorageMux {
    /// One that runs these commands.
    ///
    /// # Errors
    ///
    /// A fault if one of the commands is an empty list, or the path makes no sense.
    pub fn new(config: CommandStorageMuxConfig) -> Result<Self, Fault> {
        for words in
            [Some(&config.host), Some(&config.dut), config.off.as_ref()].into_iter().flatten()
        {
            process::command(words)?;
        }
        let mux = Self { config, meter: Meter::default() };
        mux.medium().check().map_err(Fault::argument)?;
        Ok(mux)
    }

    async fn run(&self, words: &[String]) -> Result<(), Fault> {
        let mut command = process::command(words)?;
        command.envs(&self.config.env);
        process::run(words, command, self.config.timeout).await.map(drop)
    }

    fn medium(&self) -> MediumConfig {
        MediumConfig { path: self.config.path.clone(), size: None }
    }

    /// The medium, at the host.
    async fn at_host(
        &self,
        open: fn(&MediumConfig) -> Result<Medium, Fault>,
    ) -> Result<Medium, Fault> {
        self.run(&self.config.host).await?;
        let until = Instant::now() + self.config.appears_within;
        loop {
            match open(&self.medium()) {
                Ok(medium) => return Ok(medium),
                Err(fault) if Instant::now() >= until => {
                    let within = self.config.appears_within;
                    let text = format!("the medium is not at the host after {within:?}: {fault}");
                    return Err(Fault::new(FaultKind::Unreachable, text));
                }
                Err(_not_yet) => sleep(LOOK_EVERY).await,
            }
        }
    }
}

impl StorageMux for CommandStorageMux {
    async fn host(&self) -> Result<(), Fault> {
        self.run(&self.config.host).await
    }

    async fn dut(&self) -> Result<(), Fault> {
        self.run(&self.config.dut).await
    }

    async fn off(&self) -> Result<(), Fault> {
        match &self.config.off {
            Some(words) => self.run(words).await,
            None => Err(Fault::unsupported("no \"off\" command is configured for this driver")),
        }
    }

    async fn write(&self, cx: &Context, src: Resource, verify: bool) -> Result<Written, Fault> {
        let medium = self.at_host(MediumConfig::open).await?;
        image::write(cx, &self.meter, src, medium, 0, verify).await
    }

    async fn read(&self, cx: &Context, dst: ResourceWriter) -> Result<u64, Fault> {
        let medium = self.at_host(MediumConfig::open_to_read).await?;
        let bytes = image::range(&medium, 0, None)?;
        image::read(cx, &self.meter, dst, medium, 0, bytes).await
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(StorageMux, name = "command-storage-mux")]
impl CommandStorageMux {}

impl DriverKind for CommandStorageMux {
    const KIND: &'static str = "command-storage-mux";
    const HELP: &'static str = "Switches a storage multiplexer by running configured commands.";
    const RUNS_COMMANDS: bool = true;
    type Config = CommandStorageMuxConfig;

    async fn open(config: CommandStorageMuxConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![StorageMuxInterface::describe()]
    }
}
