//! An SSH server, and who logs in there.

use std::{path::PathBuf, time::Duration};

use bus_schema::{Describe, Fault, driver};
use runtime::{ByteStream, Context};
use serde::Deserialize;

use super::{Network, NetworkInterface, connect_timeout, enabled};
use crate::{TcpNetwork, TcpNetworkConfig};

/// Connects to an SSH server, and says who logs in there and how.
///
/// As in Jumpstarter the connection may be that of a child `tcp` instead; then `host` is not given.
#[derive(Debug)]
pub struct SshNetwork {
    config: SshNetworkConfig,
    tcp: Option<TcpNetwork>,
}

/// The configuration of an [`SshNetwork`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct SshNetworkConfig {
    /// Name or address of the host, as the exporter's host knows it; none if there is a child `tcp`.
    #[serde(default)]
    pub host: Option<String>,
    /// Port of the server: 22 unless given.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// Who logs in, unless the client says otherwise.
    #[serde(default)]
    pub default_username: String,
    /// The command that Jumpstarter's clients run.
    #[serde(default = "ssh_command")]
    pub ssh_command: String,
    /// A private key to log in with, which is given to every client.
    #[serde(default)]
    pub ssh_identity: Option<String>,
    /// A file on the exporter's host with such a key.
    #[serde(default)]
    pub ssh_identity_file: Option<PathBuf>,
    /// Whether `address` tells host and port.
    #[serde(default = "enabled")]
    pub enable_address: bool,
    /// How long a connection may take to come about.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Duration,
}

fn ssh_port() -> u16 {
    22
}

fn ssh_command() -> String {
    "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR".to_owned()
}

impl SshNetwork {
    /// One that connects to this server.
    ///
    /// # Errors
    ///
    /// *argument* if two keys are configured.
    pub fn new(config: SshNetworkConfig) -> Result<Self, Fault> {
        if config.ssh_identity.is_some() && config.ssh_identity_file.is_some() {
            let text = "give ssh_identity or ssh_identity_file, not both";
            return Err(Fault::argument(text));
        }
        let tcp = config.host.clone().map(|host| {
            TcpNetwork::new(TcpNetworkConfig {
                host,
                port: config.port,
                enable_address: config.enable_address,
                connect_timeout: config.connect_timeout,
            })
        });
        Ok(Self { config, tcp })
    }

    fn tcp(&self) -> Result<&TcpNetwork, Fault> {
        self.tcp.as_ref().ok_or_else(|| {
            Fault::unsupported("no `host` is configured: the connection is that of the child `tcp`")
        })
    }
}

impl Network for SshNetwork {
    async fn connect(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault> {
        self.tcp()?.connect(cx, stream).await
    }

    async fn address(&self) -> Result<String, Fault> {
        self.tcp()?.address().await
    }
}

#[driver(Network, name = "ssh")]
impl SshNetwork {
    /// Who logs in, unless the client says otherwise; empty if nobody is configured.
    #[export]
    #[method(concurrent)]
    async fn get_default_username(&self) -> String {
        self.config.default_username.clone()
    }

    /// The command that Jumpstarter's clients run.
    #[export]
    #[method(concurrent)]
    async fn get_ssh_command(&self) -> String {
        self.config.ssh_command.clone()
    }

    /// The private key to log in with, if one is configured.
    #[export]
    #[method(concurrent)]
    async fn get_ssh_identity(&self) -> Result<Option<String>, Fault> {
        match &self.config.ssh_identity_file {
            None => Ok(self.config.ssh_identity.clone()),
            Some(file) => {
                let read = tokio::fs::read_to_string(file).await;
                let named = |error| Fault::device(format_args!("{}: {error}", file.display()));
                read.map(Some).map_err(named)
            }
        }
    }
}
