//! Serving a driver in the process that uses it, for tests.

use std::fmt;

use bus_schema::{Address, ExporterName, Path, Root, Serve};

use crate::{
    Client, DriverRef, Exporter, ExporterConfig, LocalBroker, Node, ShutdownError, bus::random,
};

/// A driver that is served, and a client for it: over a real broker, which all of one process
/// share, under a root of its own.
#[must_use = "dropping it stops the driver"]
pub struct Served {
    exporter: Exporter,
    client: Client,
    root: DriverRef,
}

/// Serves a driver, or a whole [`Node`], for local testing.
///
/// # Errors
///
/// A broker that does not start, or an exporter that does not.
pub async fn serve(
    node: impl Into<Node>,
) -> Result<Served, Box<dyn std::error::Error + Send + Sync>> {
    let broker = LocalBroker::shared().await?;
    let root: Root = format!("t{:016x}", random()).parse()?;
    let settings = broker.connect_settings();
    settings.make_streams(&root).await?;
    let name: ExporterName = "local".parse()?;
    let config =
        ExporterConfig { root: root.clone(), ..ExporterConfig::new(name.clone(), node.into()) };
    let exporter = Exporter::start(config, settings.clone()).await?;
    let client = Client::connect(settings, root, "tester".parse()?).await?;
    let address = Address { exporter: name, path: Path::ROOT };
    let root = client.driver(&address);
    Ok(Served { exporter, client, root })
}

impl<D: Serve> From<D> for Node {
    fn from(driver: D) -> Self {
        Self::of("local", driver)
    }
}

impl Served {
    /// The driver at the root of the tree.
    pub fn driver(&self) -> DriverRef {
        self.root.clone()
    }

    /// A child, by its path.
    ///
    /// # Panics
    ///
    /// If `path` is no path: this is for tests.
    pub fn child(&self, path: &str) -> DriverRef {
        let path: Path = path.parse().expect("a path of child names joined by '/'");
        self.client.driver(&Address { exporter: self.exporter.name().clone(), path })
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The exporter.
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Stops both.
    ///
    /// # Errors
    ///
    /// [`ShutdownError`], as [`Exporter::shutdown`].
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.client.close().await;
        self.exporter.shutdown(std::time::Duration::from_secs(5)).await
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}
