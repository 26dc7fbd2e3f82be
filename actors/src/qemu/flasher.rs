//! What writes images to the disks of a virtual machine, while it is off.

use std::sync::Arc;

use bus_schema::{Fault, FaultKind, driver};
use runtime::{Context, Items, Resource, ResourceWriter};

use super::{Disk, DiskFormat, machine::Machine};
use crate::{
    Flasher, FlasherInterface, MediumConfig, StorageProgress, Written,
    storage::{image, meter::Meter},
};

/// The flasher of a virtual machine. Its targets are the disks: `disk0` (the usual one), `disk1` …
pub(super) struct MachineFlasher {
    machine: Arc<Machine>,
    meter: Meter,
}

impl MachineFlasher {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self { machine, meter: Meter::default() }
    }

    fn disk(&self, partition: Option<&str>) -> Result<&Disk, Fault> {
        let disks = &self.machine.config.disks;
        let at = match partition {
            None => Some(0),
            Some(name) => name.strip_prefix("disk").and_then(|at| at.parse::<usize>().ok()),
        };
        at.and_then(|at| disks.get(at)).ok_or_else(|| match disks.len() {
            0 => Fault::argument("the machine has no disk: configure `disks`"),
            count => {
                let there: Vec<_> = (0..count).map(|at| format!("disk{at}")).collect();
                let name = partition.unwrap_or_default();
                let there = there.join(", ");
                Fault::argument(format_args!("no target {name:?}: there are {there}"))
            }
        })
    }

    /// The disk as a medium, of a machine that is off.
    async fn medium(&self, partition: Option<&str>) -> Result<MediumConfig, Fault> {
        let disk = self.disk(partition)?;
        if disk.format != DiskFormat::Raw {
            return Err(Fault::unsupported("only raw disks can be flashed, and this one is qcow2"));
        }
        if self.machine.process().await.is_some() {
            let text = "the machine is on and has its disk: switch it off first";
            return Err(Fault::new(FaultKind::Busy, text));
        }
        Ok(MediumConfig { path: disk.file.clone(), size: None })
    }
}

impl Flasher for MachineFlasher {
    async fn flash(
        &self,
        cx: &Context,
        source: Resource,
        partition: Option<String>,
        verify: bool,
    ) -> Result<Written, Fault> {
        let medium = self.medium(partition.as_deref()).await?;
        if !medium.path.exists() {
            std::fs::File::create(&medium.path)?; // a machine's disk comes to be when it is flashed
        }
        image::write(cx, &self.meter, source, medium.open()?, 0, verify).await
    }

    async fn dump(
        &self,
        cx: &Context,
        target: ResourceWriter,
        partition: Option<String>,
    ) -> Result<u64, Fault> {
        let medium = self.medium(partition.as_deref()).await?.open_to_read()?;
        let bytes = image::range(&medium, 0, None)?;
        image::read(cx, &self.meter, target, medium, 0, bytes).await
    }

    async fn progress(&self, cx: &Context, items: Items<StorageProgress>) -> Result<(), Fault> {
        self.meter.tell(cx, items).await
    }
}

#[driver(Flasher, name = "qemu-flasher")]
impl MachineFlasher {}
