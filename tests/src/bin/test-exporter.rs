//! An exporter that a test can kill: `test-exporter URL TOKEN ROOT NAME DIR`.

use std::{io::Write as _, path::PathBuf};

use anyhow::Context as _;
use bus_tests::{Taker, TestDriver};
use runtime::{Auth, Exporter, ExporterConfig, Node, Secret, Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, root, name, dir] =
        args.try_into().ok().context("test-exporter URL TOKEN ROOT NAME DIR")?;
    let settings = Settings {
        servers: vec![url],
        auth: Auth::Token(Secret::new(token)),
        ..Settings::default()
    };
    let dir = PathBuf::from(dir);
    let driver = TestDriver::new(dir.join("count"));
    let node = Node::of("test", driver).with_child("taker", Node::of("taker", Taker::default()));
    let config = ExporterConfig {
        root: root.parse()?,
        state_dir: Some(dir.join("state")),
        ..ExporterConfig::new(name.parse()?, node)
    };
    let exporter = Exporter::start(config, settings).await?;
    writeln!(std::io::stdout(), "up")?;
    exporter.stopped().await;
    Ok(())
}
