//! A UDP service.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bus_schema::{Describe, Fault, driver};
use runtime::{ByteStream, Context};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UdpSocket, lookup_host},
};

use super::{
    Network, NetworkInterface, address, connect_timeout, connected, enabled, host_port, named,
    unless_left,
};

/// Most that one datagram carries over IPv4: 65,535 without the headers of IP and UDP.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The method that keeps datagrams apart.
pub(crate) const DATAGRAMS: &str = "datagrams";

/// Connects to a UDP service.
///
/// By `datagrams` each one keeps its boundaries. By `connect`, as in Jumpstarter, a stream is bytes and keeps no boundaries. What one read of it gives goes out as one datagram,
/// and each datagram that comes in is one write: for a client that waits for its answers that is
/// one datagram for one write. Writes that follow each other closely may go out as one datagram,
/// and datagrams may come out of one read. Datagrams get lost, also between the exporter and a client that reads slowly.
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
impl UdpNetwork {
    /// Opens a connection that keeps datagrams apart: in both directions each has its length in
    /// bytes before it, two bytes, the higher one first.
    #[export]
    async fn datagrams(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault> {
        let socket = connected(self.service(), connect_timeout(), self.socket()).await?;
        let (mut input, mut output) = tokio::io::split(stream);
        let send = async {
            let mut buf = vec![0; DATAGRAM_BYTES_MAX];
            while let Some(size) = read_datagram(&mut input, &mut buf).await? {
                socket.send(&buf[..size]).await?;
            }
            std::future::pending().await // who sends no more may still wait for answers
        };
        let receive = async {
            let mut buf = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let received = socket.recv(&mut buf).await?;
                write_datagram(&mut output, &buf[..received]).await?;
            }
        };
        let carry = async {
            tokio::select! { ended = send => ended, ended = receive => ended }
        };
        unless_left(cx, carry)
            .await
            .map_err(|error| named(&self.service(), "lost the connection to", error))
    }
}

/// Reads one datagram with its length; `None` at the end.
pub(crate) async fn read_datagram(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut [u8],
) -> io::Result<Option<usize>> {
    let mut head = [0; 2];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let size = usize::from(u16::from_be_bytes(head));
    let Some(datagram) = into.get_mut(..size) else {
        let text = format!("a datagram of {size} bytes; the largest has {DATAGRAM_BYTES_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    from.read_exact(datagram).await?;
    Ok(Some(size))
}

/// Writes one datagram with its length.
pub(crate) async fn write_datagram(
    to: &mut (impl AsyncWrite + Unpin),
    datagram: &[u8],
) -> io::Result<()> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the datagram is too large");
    let size = u16::try_from(datagram.len()).map_err(|_| too_large())?;
    let mut framed = Vec::with_capacity(2 + datagram.len());
    framed.extend_from_slice(&size.to_be_bytes());
    framed.extend_from_slice(datagram);
    to.write_all(&framed).await
}
