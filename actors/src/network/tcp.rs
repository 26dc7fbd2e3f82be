//! A TCP service.

use std::time::Duration;

use bus_schema::{Describe, Fault, driver};
use runtime::{ByteStream, Context};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::{
    Network, NetworkInterface, address, carry, connect_timeout, connected, enabled, host_port,
    named,
};

/// Connects to a TCP service.
#[derive(Debug)]
pub struct TcpNetwork {
    config: TcpNetworkConfig,
}

/// The configuration of a [`TcpNetwork`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct TcpNetworkConfig {
    /// Name or address of the host, as the exporter's host knows it.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    /// Whether `address` tells host and port.
    #[serde(default = "enabled")]
    pub enable_address: bool,
    /// How long a connection may take to come about.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Duration,
}

impl TcpNetwork {
    /// One that connects to this service.
    pub fn new(config: TcpNetworkConfig) -> Self {
        Self { config }
    }

    fn service(&self) -> String {
        host_port(&self.config.host, self.config.port)
    }
}

impl Network for TcpNetwork {
    async fn connect(&self, cx: &Context, mut stream: ByteStream) -> Result<(), Fault> {
        let TcpNetworkConfig { host, port, connect_timeout, .. } = &self.config;
        let connecting = TcpStream::connect((host.as_str(), *port));
        let mut tcp = connected(self.service(), *connect_timeout, connecting).await?;
        let _ = tcp.set_nodelay(true); // a console's keys are not to wait for each other
        carry(cx, &mut stream, &mut tcp).await.map_err(|error| {
            let _ = tcp.set_zero_linger(); // the service is to see a reset, too, and no end
            named(&self.service(), "lost the connection to", error)
        })
    }

    async fn address(&self) -> Result<String, Fault> {
        address("tcp", &self.service(), self.config.enable_address)
    }
}

#[driver(Network, name = "tcp")]
impl TcpNetwork {}
