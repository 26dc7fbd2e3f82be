//! The kinds of driver that jmp-bus brings: an explicit list.

use std::sync::Arc;

use bus_schema::{Fault, Interface, Value, encode_value};
use runtime::{BuildError, ChildrenRule, DriverKind, Kind, Kinds, Node, Site};
use serde::de::DeserializeOwned;

#[cfg(feature = "opendal")]
use crate::Opendal;
use crate::{
    CommandPower, CommandPowerConfig, CommandStorageMux, Composite, EchoNetwork, FakeFlasher,
    FakePower, FakePowerConfig, FakeStorageMux, FileStorage, NetworkInterface, PowerInterface,
    ProcessPower, ProcessPowerConfig, Qemu, Serial, Shell, ShellConfig, SshNetwork,
    SshNetworkConfig, TargetFlasher, TcpNetwork, TcpNetworkConfig, UdpNetwork, UdpNetworkConfig,
    UnixNetwork, UnixNetworkConfig,
};

/// Every kind of driver that jmp-bus brings. A lab adds its own with [`Kinds::with`].
pub fn kinds() -> Kinds {
    let kinds = Kinds::new()
        .with(Kind::of::<Composite>())
        .with(Kind::of::<FakePower>())
        .with(Kind { build: process_power, ..Kind::of::<ProcessPower>() })
        .with(Kind { build: command_power, ..Kind::of::<CommandPower>() })
        .with(Kind::of::<TcpNetwork>())
        .with(Kind::of::<UdpNetwork>())
        .with(Kind::of::<UnixNetwork>())
        .with(Kind { build: ssh, ..Kind::of::<SshNetwork>() })
        .with(Kind::of::<EchoNetwork>())
        .with(Qemu::kind())
        .with(Serial::kind())
        .with(Kind { build: shell, ..Kind::of::<Shell>() })
        .with(Kind { build: checked::<FileStorage>, ..Kind::of::<FileStorage>() })
        .with(Kind { build: checked::<TargetFlasher>, ..Kind::of::<TargetFlasher>() })
        .with(Kind { build: checked::<FakeFlasher>, ..Kind::of::<FakeFlasher>() })
        .with(Kind { build: checked::<CommandStorageMux>, ..Kind::of::<CommandStorageMux>() })
        .with(Kind { build: checked::<FakeStorageMux>, ..Kind::of::<FakeStorageMux>() });
    #[cfg(feature = "opendal")]
    let kinds = kinds.with(Kind { build: checked::<Opendal>, ..Kind::of::<Opendal>() });
    #[cfg(feature = "serving")]
    let kinds = {
        use crate::serving::{HttpServer, Tftp};
        kinds.with(Kind::of::<Tftp>()).with(Kind::of::<HttpServer>())
    };
    kinds
}

impl DriverKind for Composite {
    const KIND: &'static str = "composite";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_composite.driver.Composite"];
    const HELP: &'static str = "Holds other drivers.";
    const CHILDREN: ChildrenRule = ChildrenRule::Configured;
    type Config = ();

    async fn open((): (), _: Site) -> Result<Self, Fault> {
        Ok(Self)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        Vec::new()
    }
}

impl DriverKind for FakePower {
    const KIND: &'static str = "fake-power";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_power.driver.MockPower"];
    const HELP: &'static str = "A power switch that remembers what it was told, for tests.";
    type Config = FakePowerConfig;

    async fn open(config: FakePowerConfig, _: Site) -> Result<Self, Fault> {
        Ok(Self::new(config))
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![PowerInterface::describe(), crate::power::fake::FakePowerInterface::describe()]
    }
}

impl DriverKind for ProcessPower {
    const KIND: &'static str = "process-power";
    const HELP: &'static str = "Starts and stops a command: the power switch of a virtual board.";
    const CHILDREN: ChildrenRule = ChildrenRule::Own;
    const RUNS_COMMANDS: bool = true;
    type Config = ProcessPowerConfig;

    async fn open(config: ProcessPowerConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![PowerInterface::describe(), crate::power::process::ProcessPowerInterface::describe()]
    }
}

/// With the console that it may bring.
fn process_power(value: Value, site: &Site) -> Result<Node, BuildError> {
    let config = config::<ProcessPower>(&value, site)?;
    ProcessPower::new(config.clone()).map_err(|fault| BuildError::new(fault).inside("command"))?;
    Ok(ProcessPower::node(config))
}

impl DriverKind for CommandPower {
    const KIND: &'static str = "command-power";
    const HELP: &'static str = "Switches power by running configured commands.";
    const RUNS_COMMANDS: bool = true;
    type Config = CommandPowerConfig;

    async fn open(config: CommandPowerConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![PowerInterface::describe()]
    }
}

fn command_power(value: Value, site: &Site) -> Result<Node, BuildError> {
    CommandPower::new(config::<CommandPower>(&value, site)?).map_err(BuildError::new)?;
    (Kind::of::<CommandPower>().build)(value, site)
}

impl DriverKind for TcpNetwork {
    const KIND: &'static str = "tcp";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_network.driver.TcpNetwork"];
    const HELP: &'static str = "Connects to a TCP service.";
    type Config = TcpNetworkConfig;

    async fn open(config: TcpNetworkConfig, _: Site) -> Result<Self, Fault> {
        Ok(Self::new(config))
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![NetworkInterface::describe()]
    }
}

impl DriverKind for UdpNetwork {
    const KIND: &'static str = "udp";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_network.driver.UdpNetwork"];
    const HELP: &'static str = "Sends datagrams to a UDP service, and gets its answers.";
    type Config = UdpNetworkConfig;

    async fn open(config: UdpNetworkConfig, _: Site) -> Result<Self, Fault> {
        Ok(Self::new(config))
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![NetworkInterface::describe(), crate::network::udp::UdpNetworkInterface::describe()]
    }
}

impl DriverKind for UnixNetwork {
    const KIND: &'static str = "unix";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_network.driver.UnixNetwork"];
    const HELP: &'static str = "Connects to a service behind a Unix socket.";
    type Config = UnixNetworkConfig;

    async fn open(config: UnixNetworkConfig, _: Site) -> Result<Self, Fault> {
        Ok(Self::new(config))
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![NetworkInterface::describe()]
    }
}

impl DriverKind for SshNetwork {
    const KIND: &'static str = "ssh";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_ssh.driver.SSHWrapper"];
    const HELP: &'static str = "Connects to an SSH server, and says who logs in there.";
    const CHILDREN: ChildrenRule = ChildrenRule::Configured;
    type Config = SshNetworkConfig;

    async fn open(config: SshNetworkConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![NetworkInterface::describe(), crate::network::ssh::SshNetworkInterface::describe()]
    }
}

fn ssh(value: Value, site: &Site) -> Result<Node, BuildError> {
    SshNetwork::new(config::<SshNetwork>(&value, site)?).map_err(BuildError::new)?;
    (Kind::of::<SshNetwork>().build)(value, site)
}

impl DriverKind for EchoNetwork {
    const KIND: &'static str = "echo";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_network.driver.EchoNetwork"];
    const HELP: &'static str = "Gives back what it gets, for tests.";
    type Config = ();

    async fn open((): (), _: Site) -> Result<Self, Fault> {
        Ok(Self)
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![NetworkInterface::describe()]
    }
}

impl DriverKind for Shell {
    const KIND: &'static str = "shell";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_shell.driver.Shell"];
    const HELP: &'static str = "Runs configured scripts on the exporter's host, each as a method.";
    const RUNS_COMMANDS: bool = true;
    type Config = ShellConfig;

    async fn open(config: ShellConfig, _: Site) -> Result<Self, Fault> {
        Self::new(config)
    }

    /// They depend on the configuration.
    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        Vec::new()
    }
}

fn shell(value: Value, site: &Site) -> Result<Node, BuildError> {
    Shell::new(config::<Shell>(&value, site)?).map_err(BuildError::new)?;
    (Kind::of::<Shell>().build)(value, site)
}

/// What can be wrong with a configuration beyond its type.
trait Check: DriverKind {
    fn check(config: Self::Config) -> Result<(), Fault>;
}

macro_rules! check {
    ($($driver:ty: $new:expr),* $(,)?) => {
        $(impl Check for $driver {
            fn check(config: Self::Config) -> Result<(), Fault> {
                $new(config).map(drop)
            }
        })*
    };
}
check! {
    FileStorage: FileStorage::new,
    TargetFlasher: TargetFlasher::new,
    FakeFlasher: FakeFlasher::new,
    CommandStorageMux: CommandStorageMux::new,
    FakeStorageMux: |config| FakeStorageMux::new(&config),
}

#[cfg(feature = "opendal")]
check! { Opendal: Opendal::check }

fn checked<D: Check<Config: DeserializeOwned>>(
    value: Value,
    site: &Site,
) -> Result<Node, BuildError> {
    D::check(config::<D>(&value, site)?).map_err(BuildError::new)?;
    (Kind::of::<D>().build)(value, site)
}

/// The configuration of a kind that has more to say about it than its type does.
fn config<D: DriverKind<Config: DeserializeOwned>>(
    value: &Value,
    site: &Site,
) -> Result<D::Config, BuildError> {
    (Kind::of::<D>().build)(value.clone(), site)?; // says best what is wrong, and where
    let bytes = encode_value(value).map_err(BuildError::new)?;
    rmp_serde::from_slice(&bytes).map_err(BuildError::new)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use runtime::Config;

    use super::*;

    fn read(drivers: &str) -> Result<Config, String> {
        let text = format!("name: bench\nexport:\n{drivers}");
        let read = Config::parse(&text, "bench.yaml", &kinds(), Path::new("/nonexistent"));
        read.map_err(|errors| errors.to_string())
    }

    #[test]
    fn every_kind_says_what_it_is_and_what_its_configuration_means() {
        for kind in kinds().iter() {
            assert!(kind.help.ends_with('.'), "{}", kind.name);
            if let bus_schema::Type::Struct { fields, .. } = (kind.config)() {
                for field in fields {
                    assert!(!field.help.is_empty(), "{} {}", kind.name, field.name);
                }
            }
        }
    }

    #[test]
    fn a_tree_of_every_kind_is_read() {
        let config = read(
            "  power: {type: fake-power, config: {voltage: 12, read_every: 250ms}}
  board: {type: process-power, config: {command: [sh], pty: true, stop_grace: 1}}
  relay: {type: command-power, config: {on: [relay, on], off: [relay, off], env: {BUS: '1'}}}
  net:
    children:
      ssh: {type: tcp, config: {host: localhost, port: 22}}
      dns: {type: jumpstarter_driver_network.driver.UdpNetwork, config: {host: localhost, port: 53}}
      x: {type: unix, config: {path: /tmp/x}}
      echo: {type: echo}
      board: {type: ssh, config: {host: localhost, default_username: root}}
      wrapped:
        type: jumpstarter_driver_ssh.driver.SSHWrapper
        children: {tcp: {type: tcp, config: {host: localhost, port: 22}}}
      again: {ref: power}
  lab: {type: shell, config: {methods: {ls: ls -l, df: {command: df, timeout: 5, description: Free.}}}}
",
        )
        .unwrap();
        assert!(config.root.children["board"].children.contains_key("console"));
        let runs: Vec<_> = config.runs_commands.iter().map(ToString::to_string).collect();
        assert_eq!(runs, ["board", "relay", "lab"]);
    }

    #[test]
    fn what_no_driver_could_use_is_refused_where_it_is_written() {
        for (driver, problem) in [
            (
                "{type: process-power, config: {command: []}}",
                "d.config.command: the command is empty",
            ),
            ("{type: command-power, config: {on: [], off: [x]}}", "the command is empty"),
            ("{type: tcp, config: {host: x, port: 70000}}", "d.config.port"),
            ("{type: ssh, config: {ssh_identity: a, ssh_identity_file: b}}", "not both"),
            ("{type: shell, config: {methods: {call_method: ls}}}", "use another name"),
            ("{type: shell, config: {methods: {ls: {comand: ls}}}}", "no field \"comand\""),
            ("{type: fake-power, config: {volts: 5}}", "voltage"),
        ] {
            let said = read(&format!("  d: {driver}\n")).unwrap_err();
            assert!(said.contains(problem), "{driver}: {said}");
            assert!(said.starts_with("bench.yaml:3:"), "{said}");
        }
    }
}
