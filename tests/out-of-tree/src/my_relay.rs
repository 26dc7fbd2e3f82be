//! The relays of one lab: a file for each, with what it is told in it.

use std::{path::PathBuf, sync::Arc};

use bus_schema::{Describe, Fault, Interface, driver};
use runtime::{DriverKind, Site};
use serde::Deserialize;

/// A relay.
#[derive(Debug)]
pub(crate) struct MyRelay {
    config: MyRelayConfig,
}

/// The configuration of a [`MyRelay`].
#[derive(Clone, Debug, Deserialize, Describe)]
pub(crate) struct MyRelayConfig {
    /// The relay's file.
    pub(crate) file: PathBuf,
    /// Whether it is closed when the file says `off`.
    #[serde(default)]
    pub(crate) inverted: bool,
}

impl DriverKind for MyRelay {
    const KIND: &'static str = "my-relay";
    const HELP: &'static str = "A relay of my lab.";
    type Config = MyRelayConfig;

    async fn open(config: MyRelayConfig, _: Site) -> Result<Self, Fault> {
        Ok(Self { config })
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![MyRelayInterface::describe()]
    }
}

#[driver]
impl MyRelay {
    /// Closes the relay, or opens it.
    #[export]
    async fn close(
        &self,
        /// Whether it is to be closed.
        #[default(true)]
        closed: bool,
    ) -> Result<(), Fault> {
        let text = if closed == self.config.inverted { "off" } else { "on" };
        Ok(tokio::fs::write(&self.config.file, text).await?)
    }

    /// A relay that nobody uses is open.
    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.close(false).await
    }
}
