//! A service behind a Unix socket.

use std::path::PathBuf;

use bus_schema::{Describe, Fault, driver};
use runtime::{ByteStream, Context};
use serde::Deserialize;
use tokio::net::UnixStream;

use super::{Network, NetworkInterface, carry, connect_timeout, connected, named};

/// Connects to a service behind a Unix socket.
#[derive(Debug)]
pub struct UnixNetwork {
    config: UnixNetworkConfig,
}

/// The configuration of a [`UnixNetwork`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct UnixNetworkConfig {
    /// Path of the socket.
    pub path: PathBuf,
}

impl UnixNetwork {
    /// One that connects to this socket.
    pub fn new(config: UnixNetworkConfig) -> Self {
        Self { config }
    }
}

impl Network for UnixNetwork {
    async fn connect(&self, cx: &Context, mut stream: ByteStream) -> Result<(), Fault> {
        let path = &self.config.path;
        let connecting = UnixStream::connect(path);
        let mut socket = connected(path.display(), connect_timeout(), connecting).await?;
        carry(cx, &mut stream, &mut socket)
            .await
            .map_err(|error| named(&path.display(), "lost the connection to", error))
    }
}

#[driver(Network, name = "unix")]
impl UnixNetwork {}
