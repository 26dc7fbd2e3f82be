//! A TFTP server of the exporter, for boot loaders.

use std::{net::UdpSocket, path::PathBuf, sync::Arc};

use async_tftp::server::TftpServerBuilder;
use bus_schema::{Describe, Fault, Interface, driver};
use runtime::{DriverKind, Resource, Site};
use serde::Deserialize;

use super::{listen_at, port::Port, tree::ServedTree};

/// Blocks of one packet on an Ethernet. U-Boot does not put fragments together.
const BLOCK_BYTES_MAX: u16 = 1468;
/// Packets that are on their way at once.
const WINDOW_MAX: u16 = 16;

/// A TFTP server. It gives what was put into it, and takes nothing.
#[derive(Debug)]
pub struct Tftp {
    tree: ServedTree,
    port: Port,
}

/// The configuration of a [`Tftp`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct TftpConfig {
    /// The directory that is served: one of the driver's own unless given.
    pub root_dir: Option<PathBuf>,
    /// The address to listen on: all of them unless given.
    pub host: Option<String>,
    /// The port: 69 unless given; 0 for any that is free.
    pub port: u16,
    /// Whether what was put in is removed at the end.
    pub remove_created_on_close: bool,
}

impl Default for TftpConfig {
    fn default() -> Self {
        Self { root_dir: None, host: None, port: 69, remove_created_on_close: true }
    }
}

#[driver(name = "tftp")]
impl Tftp {
    /// Begins to serve. Does nothing if it does already.
    #[export]
    async fn start(&self) -> Result<(), Fault> {
        if self.port.is_open() {
            return Ok(());
        }
        let socket = UdpSocket::bind(self.port.wanted()).map_err(|error| self.port.fault(error))?;
        let at = socket.local_addr().map_err(|error| self.port.fault(error))?;
        let server = TftpServerBuilder::with_dir_ro(self.tree.root())
            .and_then(|builder| builder.std_socket(socket))
            .map_err(|error| self.port.fault(error))?;
        let server = server.block_size_limit(BLOCK_BYTES_MAX).window_size_limit(WINDOW_MAX);
        let server = server.build().await.map_err(|error| self.port.fault(error))?;
        self.port.serve(at, async move {
            if let Err(error) = server.serve().await {
                tracing::error!(%error, "TFTP server ended");
            }
        });
        Ok(())
    }

    /// Ends serving, and frees the port.
    #[export]
    async fn stop(&self) -> Result<(), Fault> {
        self.port.close().await;
        Ok(())
    }

    /// The address that it listens on.
    #[export]
    #[method(concurrent)]
    async fn get_host(&self) -> String {
        self.port.at().ip().to_string()
    }

    /// The port that it listens on.
    #[export]
    #[method(concurrent)]
    async fn get_port(&self) -> u16 {
        self.port.at().port()
    }

    /// Puts a file in, to be served; gives the number of bytes.
    #[export]
    #[method(deadline = "1h")]
    async fn put(
        &self,
        /// The path under which it is served.
        name: String,
        /// What is served.
        source: Resource,
    ) -> Result<u64, Fault> {
        self.tree.put(&name, source).await
    }

    /// Takes a file out.
    #[export]
    async fn remove(&self, name: String) -> Result<(), Fault> {
        self.tree.remove(&name)
    }

    /// What was put in.
    #[export]
    #[method(concurrent)]
    async fn files(&self) -> Vec<String> {
        self.tree.names()
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        let stopped = self.stop().await;
        self.tree.clear();
        stopped
    }
}

impl DriverKind for Tftp {
    const KIND: &'static str = "tftp";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_tftp.driver.Tftp"];
    const HELP: &'static str = "A TFTP server that gives devices what clients lent.";
    type Config = TftpConfig;

    async fn open(config: TftpConfig, site: Site) -> Result<Self, Fault> {
        let root = match config.root_dir {
            Some(root) => root,
            None => site.state_dir()?.join("served"),
        };
        let at = listen_at(config.host.as_deref(), config.port)?;
        let tree = ServedTree::open(root, config.remove_created_on_close)?;
        Ok(Self { tree, port: Port::new(at) })
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![TftpInterface::describe()]
    }
}
