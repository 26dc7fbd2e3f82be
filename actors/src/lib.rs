//! What jmp-bus does to a device: one file per kind of driver, one per backend.
//!
//! | kind                                              | what it drives |
//! |---------------------------------------------------|----------------|
//! | [`Composite`]                                     | nothing: it holds other drivers |
//! | [`FakePower`], [`ProcessPower`], [`CommandPower`] | the [`Power`] of a device |
//! | [`TcpNetwork`], [`UdpNetwork`], [`UnixNetwork`], [`SshNetwork`], [`EchoNetwork`] | a service in a [`Network`] |
//! | [`Qemu`]                                          | a virtual machine |
//! | [`Serial`]                                        | a serial port, as a [`Console`] |
//! | [`Shell`]                                         | configured scripts |
//! | [`FileStorage`], [`TargetFlasher`], [`CommandStorageMux`] | [`Storage`], a [`Flasher`], a [`StorageMux`] |
//! | `Opendal` (feature `opendal`)                    | a storage tree |
//! | `serving` (feature `serving`)                     | TFTP and HTTP servers for devices |
//!
//! | adapter                                           | what it connects a stream method to |
//! |---------------------------------------------------|----------------|
//! | [`Portforward`]                                   | a TCP, Unix or UDP port of this host |
//! | [`ExpectAdapter`]                                 | what waits for patterns, and types |
//! | `SshAdapter` (feature `ssh`)                      | SSH: commands, files, ports |
//! | `NovncAdapter` (feature `vnc`)                    | a screen in a browser |
//! | `OpendalAdapter` (feature `opendal`)              | (a resource, not a method) a file in any storage |
//! | one of your own                                   | see [`ClientAdapter`] |

#![deny(missing_docs)]

mod adapter;
mod composite;
mod console;
mod flasher;
mod kinds;
mod mux;
mod network;
#[cfg(feature = "opendal")]
mod opendal;
mod power;
mod process;
mod qemu;
mod serial;
#[cfg(feature = "serving")]
pub mod serving;
mod shell;
mod storage;

#[cfg(feature = "opendal")]
pub use self::opendal::{
    EntryMetadata, EntryMode, HashAlgorithm, OpenMode, Opendal, OpendalBlocking, OpendalClient,
    OpendalConfig, OpendalError, PresignedRequest, StorageCapability, open_operator,
};
/// OpenDAL itself, for operators of one's own.
#[cfg(feature = "opendal")]
pub use ::opendal as opendal_crate;
pub use adapter::*; // the list is there
pub use composite::Composite;
pub use console::{
    CaptureConfig, CaptureInfo, Captured, Console, ConsoleBlocking, ConsoleClient, ConsoleInterface,
};
pub use flasher::{
    FakeFlasher, FakeFlasherConfig, Flasher, FlasherBlocking, FlasherClient, FlasherInterface,
    TargetFlasher, TargetFlasherConfig,
};
pub use kinds::kinds;
pub use mux::{
    CommandStorageMux, CommandStorageMuxConfig, FakeStorageMux, FakeStorageMuxBlocking,
    FakeStorageMuxClient, FakeStorageMuxConfig, MuxSide, StorageMux, StorageMuxBlocking,
    StorageMuxClient, StorageMuxInterface,
};
pub use network::{
    Network, NetworkBlocking, NetworkClient, NetworkInterface,
    echo::EchoNetwork,
    ssh::{SshNetwork, SshNetworkBlocking, SshNetworkClient, SshNetworkConfig},
    tcp::{TcpNetwork, TcpNetworkConfig},
    udp::{UdpNetwork, UdpNetworkBlocking, UdpNetworkClient, UdpNetworkConfig},
    unix::{UnixNetwork, UnixNetworkConfig},
};
pub use power::{
    Power, PowerBlocking, PowerClient, PowerInterface, PowerReading,
    command::{CommandPower, CommandPowerConfig},
    fake::{
        FakePower, FakePowerBlocking, FakePowerClient, FakePowerConfig, PowerEvent, PowerSwitch,
    },
    process::{
        ProcessPower, ProcessPowerBlocking, ProcessPowerClient, ProcessPowerConfig, ProcessStatus,
    },
};
pub use qemu::{
    Accel, Disk, DiskFormat, Hostfwd, Qemu, QemuBlocking, QemuClient, QemuConfig, QemuMonitor,
    QemuMonitorBlocking, QemuMonitorClient,
};
pub use serial::{
    DataBits, FlowControl, LineSettings, Parity, Serial, SerialBlocking, SerialClient,
    SerialConfig, StopBits,
};
pub use shell::{
    Script, Scripts, ScriptsBlocking, ScriptsClient, ScriptsInterface, Shell, ShellConfig,
    ShellOutput,
};
pub use storage::{
    Storage, StorageBlocking, StorageClient, StorageInterface, StorageProgress, Written,
    file::FileStorage, medium::MediumConfig,
};
