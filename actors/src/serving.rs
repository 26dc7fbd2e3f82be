//! Servers on the exporter that give devices what clients lent: TFTP and HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bus_schema::Fault;

mod http;
mod port;
mod tftp;
mod tree;

pub use http::{HttpServer, HttpServerBlocking, HttpServerClient, HttpServerConfig};
pub use tftp::{Tftp, TftpBlocking, TftpClient, TftpConfig};

/// Where a server listens: on all addresses unless one is given.
fn listen_at(host: Option<&str>, port: u16) -> Result<SocketAddr, Fault> {
    let host: IpAddr = match host {
        None | Some("") => Ipv4Addr::UNSPECIFIED.into(),
        Some(host) => host.parse().map_err(|_| {
            Fault::argument(format_args!("host: {host:?} is no IP address of this host"))
        })?,
    };
    Ok((host, port).into())
}
