//! A virtual machine: a board without hardware.
//!
//! Of Jumpstarter's `Qemu` the names and meanings are kept, but for what belongs to its `fls` tool
//! (`fls_*`, `flash_timeout`) and `default_partitions`, which `disks` are.
//! Its child `ssh` is a forwarded port here: `hostfwd: {ssh: {guestport: 22}}`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bus_schema::{Describe, Fault, Serve, Value, driver};
use runtime::{BuildError, ChildrenRule, Factory, Kind, Node, Site};
use serde::{Deserialize, Serialize};

use crate::CaptureConfig;

mod children;
mod command;
mod flasher;
mod machine;
mod qmp;

use children::{Forward, MachineConsole, MachinePower, Vnc};
pub use children::{QemuMonitor, QemuMonitorBlocking, QemuMonitorClient};
use flasher::MachineFlasher;
use machine::Machine;

const NAME: &str = "qemu";
/// Children that every machine has.
const CHILDREN: [&str; 5] = ["power", "console", "vnc", "qmp", "flasher"];
/// Most processors of a machine.
const SMP_MAX: u16 = 256;

/// What a virtual machine is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct QemuConfig {
    /// The processor's architecture, as QEMU names it (`aarch64`): that of the exporter's host
    /// unless given.
    pub arch: String,
    /// The program, if it is not `qemu-system-ARCH` of the PATH.
    pub binary: Option<PathBuf>,
    /// The board that QEMU plays: `virt` or `q35` unless given.
    pub machine: Option<String>,
    /// The processor: `max` unless given.
    pub cpu: Option<String>,
    /// Processors: 2 unless given.
    pub smp: u16,
    /// Memory: `512M` unless given.
    pub mem: String,
    /// Firmware.
    pub bios: Option<PathBuf>,
    /// A kernel that is started without a boot loader.
    pub kernel: Option<PathBuf>,
    /// The kernel's first file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub append: Option<String>,
    /// Disks, the first of which `disk_size` is about.
    pub disks: Vec<Disk>,
    /// What the first disk is made to have at least: `20G`.
    pub disk_size: Option<String>,
    /// The machine's name in its own network.
    pub hostname: String,
    /// Who can log in on it, for those who ask.
    pub username: String,
    /// With which password, for those who ask.
    pub password: String,
    /// Ports of the machine that are services: a child for each.
    pub hostfwd: BTreeMap<String, Hostfwd>,
    /// What runs the machine's code: `tcg` unless given.
    pub accel: Accel,
    /// More words for QEMU's command line.
    pub extra_args: Vec<String>,
    /// What is kept of what the console says.
    pub capture: CaptureConfig,
}

/// A disk of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its image.
    pub file: PathBuf,
    /// The image's format: `raw` unless given.
    #[serde(default)]
    pub format: DiskFormat,
    /// Whether what the machine writes is forgotten when it is off.
    #[serde(default)]
    pub snapshot: bool,
}

/// The format of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// As on the disk.
    #[default]
    Raw,
    /// QEMU's own.
    Qcow2,
}

/// A TCP port of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct Hostfwd {
    /// The port of the machine.
    pub guestport: u16,
    /// The port of the host's loopback interface that leads to it: a free one unless given.
    #[serde(default)]
    pub hostport: u16,
}

/// What runs the machine's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// QEMU itself, anywhere.
    #[default]
    Tcg,
    /// The host's processor, where the host lets it.
    Kvm,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            arch: std::env::consts::ARCH.to_owned(),
            binary: None,
            machine: None,
            cpu: None,
            smp: 2,
            mem: "512M".to_owned(),
            bios: None,
            kernel: None,
            initrd: None,
            append: None,
            disks: Vec::new(),
            disk_size: None,
            hostname: "demo".to_owned(),
            username: "jumpstarter".to_owned(),
            password: "password".to_owned(),
            hostfwd: BTreeMap::new(),
            accel: Accel::Tcg,
            extra_args: Vec::new(),
            capture: CaptureConfig::default(),
        }
    }
}

impl DiskFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl QemuConfig {
    fn program(&self) -> String {
        let named = self.binary.as_ref().map(|binary| binary.display().to_string());
        named.unwrap_or_else(|| format!("qemu-system-{}", self.arch))
    }

    fn machine(&self) -> Option<String> {
        let usual = match self.arch.as_str() {
            "aarch64" | "arm" | "riscv64" | "riscv32" => Some("virt".to_owned()),
            "x86_64" | "i386" => Some("q35".to_owned()),
            _ => None,
        };
        self.machine.clone().or(usual)
    }

    fn cpu(&self) -> Option<String> {
        let usual = match self.arch.as_str() {
            "aarch64" | "arm" | "x86_64" | "i386" => Some("max".to_owned()),
            _ => None,
        };
        self.cpu.clone().or(usual)
    }

    fn check(&self) -> Result<(), BuildError> {
        let at = |key: &'static str| move |text: String| BuildError::new(text).inside(key);
        let plain = |text: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !text.is_empty() && text.chars().all(good)
        };
        if !plain(&self.arch) {
            return Err(at("arch")(format!("{:?} is no architecture of QEMU", self.arch)));
        }
        if !plain(&self.hostname) {
            return Err(at("hostname")(format!("{:?} is no host name", self.hostname)));
        }
        if !(1..=SMP_MAX).contains(&self.smp) {
            return Err(at("smp")(format!("{} is not 1 to {SMP_MAX}", self.smp)));
        }
        command::bytes_of(&self.mem).map_err(at("mem"))?;
        if let Some(size) = &self.disk_size {
            command::bytes_of(size).map_err(at("disk_size"))?;
        }
        self.capture.check().map_err(BuildError::new)?;
        let mut guests = BTreeMap::new();
        for (name, to) in &self.hostfwd {
            let wrong = |text: String| BuildError::new(text).inside(name).inside("hostfwd");
            if CHILDREN.contains(&name.as_str()) {
                return Err(wrong(format!("the machine has a child {name:?} already")));
            }
            if to.guestport == 0 {
                return Err(wrong("guestport is 0, not 1 to 65535".to_owned()));
            }
            if let Some(other) = guests.insert(to.guestport, name) {
                return Err(wrong(format!("port {} is forwarded as {other:?}", to.guestport)));
            }
        }
        Ok(())
    }
}

/// The driver of a virtual machine: what is the machine's and no child's.
///
/// Below it are `power`, `console`, `flasher` (of its disks), `vnc` (the screen), `qmp` (QEMU's monitor), and a child for each
/// forwarded port.
#[derive(Debug)]
pub struct Qemu(Arc<Machine>);

#[driver(name = "qemu")]
impl Qemu {
    /// The machine's name.
    #[export]
    #[method(concurrent)]
    async fn get_hostname(&self) -> String {
        self.0.config.hostname.clone()
    }

    /// Who can log in.
    #[export]
    #[method(concurrent)]
    async fn get_username(&self) -> String {
        self.0.config.username.clone()
    }

    /// With which password.
    #[export]
    #[method(concurrent)]
    async fn get_password(&self) -> String {
        self.0.config.password.clone()
    }

    /// Sets what the first disk has at least (`20G`) when the machine is switched on the next time.
    #[export]
    async fn set_disk_size(&self, size: String) -> Result<(), Fault> {
        command::bytes_of(&size).map_err(Fault::argument)?;
        self.0.resize(|sizes| sizes.disk = Some(size));
        Ok(())
    }

    /// Sets the memory (`512M`) of the machine when it is switched on the next time.
    #[export]
    async fn set_memory_size(&self, size: String) -> Result<(), Fault> {
        command::bytes_of(&size).map_err(Fault::argument)?;
        self.0.resize(|sizes| sizes.memory = size);
        Ok(())
    }
}

impl Qemu {
    /// The kind of driver that a configuration calls `qemu`.
    pub fn kind() -> Kind {
        Kind {
            name: NAME,
            aliases: &["jumpstarter_driver_qemu.driver.Qemu"],
            help: "A virtual machine with power, console, screen and network ports.",
            config: QemuConfig::describe,
            interfaces: || vec![QemuInterface::describe()],
            build,
            children: ChildrenRule::Own,
            // QEMU's monitor can write any file and start programs.
            runs_commands: true,
        }
    }

    /// The tree of one virtual machine, switched off.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense.
    pub fn node(config: QemuConfig) -> Result<Node, BuildError> {
        config.check()?;
        let hostfwd = config.hostfwd.clone();
        let machine = Arc::new(Machine::new(config));
        let child = |make: fn(Arc<Machine>) -> Arc<dyn Serve>, kind: &str| {
            let machine = machine.clone();
            let factory: Factory = Arc::new(move || {
                let driver = make(machine.clone());
                Box::pin(async move { Ok(driver) })
            });
            Node::new(kind, factory)
        };
        let mut node = child(|machine| Arc::new(Self(machine)), NAME)
            .with_child("power", child(|m| Arc::new(MachinePower(m)), "qemu-power"))
            .with_child("console", console(machine.clone()))
            .with_child("flasher", child(|m| Arc::new(MachineFlasher::new(m)), "qemu-flasher"))
            .with_child("vnc", child(|m| Arc::new(Vnc(m)), "qemu-vnc"))
            .with_child("qmp", child(|m| Arc::new(QemuMonitor::new(m)), "qemu-monitor"));
        for name in hostfwd.into_keys() {
            let forward =
                Node::of("qemu-forward", Forward { machine: machine.clone(), name: name.clone() });
            node = node.with_child(name, forward);
        }
        Ok(node)
    }
}

fn console(machine: Arc<Machine>) -> Node {
    let factory: Factory = Arc::new(move || {
        let machine = machine.clone();
        Box::pin(async move {
            let console = MachineConsole::start(&machine, &machine.config.capture).await?;
            Ok(Arc::new(console) as Arc<dyn Serve>)
        })
    });
    Node::new("qemu-console", factory)
}

fn build(value: Value, site: &Site) -> Result<Node, BuildError> {
    let json = serde_json::to_value(&value).map_err(BuildError::new)?;
    let config: QemuConfig = serde_json::from_value(json).map_err(BuildError::new)?;
    for name in config.hostfwd.keys() {
        site.child(name).map_err(|e| BuildError::new(e).inside(name).inside("hostfwd"))?;
    }
    Qemu::node(config)
}
