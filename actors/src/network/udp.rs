//! A UDP service.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bus_schema::{Describe, Fault, driver};
use runtime::{ByteStream, Context};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UdpSocket, lookup_host},
};

use super::{
    Network, NetworkInterface, address, connect_timeout, connected, enabled, host_port, named,
    unless_left,
};

/// Most that one datagram carries over IPv4: 65,535 without the headers of IP and UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Connects to a UDP service.
///
/// A stream is bytes and keeps no boundaries. What one read of it gives goes out as one datagram,
/// and each datagram that comes in is one write: for a client that waits for its answers that is
/// one datagram for one write. Writes that follow each other closely may go out as one datagram,
/// and datagrams may come out of one read. A protocol that depends on each boundary needs a driver
/// of its own. Datagrams get lost, also between the exporter and a client that reads slowly.
#[derive(Debug)]
pub struct UdpNetwork {
    config: UdpNetworkConfig,
}

/// The configuration of a [`UdpNetwork`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct UdpNetworkConfig {
    /// Name or address of the host, as the exporter's host knows it.
    pub host: String,
    /// Port of the service.
    pub port: u16,
    /// Whether `address` tells host and port.
    #[serde(default = "enabled")]
    pub enable_address: bool,
}

impl UdpNetwork {
    /// One that sends to this service.
    pub fn new(config: UdpNetworkConfig) -> Self {
        Self { config }
    }

    fn service(&self) -> String {
        host_port(&self.config.host, self.config.port)
    }

    async fn socket(&self) -> io::Result<UdpSocket> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for service in lookup_host((self.config.host.as_str(), self.config.port)).await? {
            let any: SocketAddr = match service {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any).await?;
            match socket.connect(service).await {
                Ok(()) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Network for UdpNetwork {
    async fn connect(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault> {
        let socket = connected(self.service(), connect_timeout(), self.socket()).await?;
        let (mut input, mut output) = tokio::io::split(stream);
        let send = async {
            let mut buf = vec![0; DATAGRAM_BYTES_MAX];
            while let read @ 1.. = input.read(&mut buf).await? {
                socket.send(&buf[..read]).await?;
            }
            // A datagram has no end of input: who sends no more may still wait for answers.
            std::future::pending().await
        };
        let receive = async {
            let mut buf = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let received = socket.recv(&mut buf).await?;
                output.write_all(&buf[..received]).await?;
            }
        };
        let carry = async {
            tokio::select! { ended = send => ended, ended = receive => ended }
        };
        unless_left(cx, carry)
            .await
            .map_err(|error| named(&self.service(), "lost the connection to", error))
    }

    async fn address(&self) -> Result<String, Fault> {
        address("udp", &self.service(), self.config.enable_address)
    }
}

#[driver(Network, name = "udp")]
impl UdpNetwork {}
