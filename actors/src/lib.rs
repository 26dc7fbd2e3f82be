//! What jmp-bus does to a device: one file per kind of driver, one per backend.
//!
//! | kind                                              | what it drives |
//! |---------------------------------------------------|----------------|
//! | [`Composite`]                                     | nothing: it holds other drivers |
//! | [`FakePower`], [`ProcessPower`], [`CommandPower`] | the [`Power`] of a device |
//! | [`TcpNetwork`], [`UdpNetwork`], [`UnixNetwork`], [`EchoNetwork`] | a service in a [`Network`] |
//! | [`Qemu`]                                          | a virtual machine |
//! | [`Serial`]                                        | a serial port, as a [`Console`] |
//! | [`Shell`]                                         | configured scripts |
//!
//! | adapter                                           | what it connects a stream method to |
//! |---------------------------------------------------|----------------|
//! | [`Portforward`]                                   | a TCP, Unix or UDP port of this host |
//! | one of your own                                   | see [`ClientAdapter`] |

#![deny(missing_docs)]

mod adapter;
mod composite;
mod console;
mod kinds;
mod network;
mod power;
mod process;
mod qemu;
mod serial;
mod shell;

pub use adapter::{
    ClientAdapter, StreamMethod,
    portforward::{Forwarded, Local, Portforward, PortforwardError, Trouble},
};
pub use composite::Composite;
pub use console::{
    CaptureConfig, CaptureInfo, Captured, Console, ConsoleBlocking, ConsoleClient, ConsoleInterface,
};
pub use kinds::kinds;
pub use network::{
    Network, NetworkBlocking, NetworkClient, NetworkInterface,
    echo::EchoNetwork,
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
