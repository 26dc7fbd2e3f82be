//! An exporter that a test can kill: `test-exporter URL TOKEN ROOT NAME DIR [KEEP_ALIVE_MS]`.

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use bus_tests::{Taker, TestDriver};
use runtime::{Auth, Exporter, ExporterConfig, Node, Secret, Settings};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, root, name, dir, rest @ ..] = args.as_slice() else {
        anyhow::bail!("test-exporter URL TOKEN ROOT NAME DIR [KEEP_ALIVE_MS]");
    };
    let settings = Settings {
        servers: vec![url.clone()],
        auth: Auth::Token(Secret::new(token.clone())),
        ..Settings::default()
    };
    let dir = PathBuf::from(dir);
    let driver = TestDriver::new(dir.join("count"));
    let node = Node::of("test", driver).with_child("taker", Node::of("taker", Taker::default()));
    let mut config = ExporterConfig {
        root: root.parse()?,
        state_dir: Some(dir.join("state")),
        ..ExporterConfig::new(name.parse()?, node)
    };
    if let Some(keep_alive) = rest.first() {
        config.leases.keep_alive = Duration::from_millis(keep_alive.parse()?);
    }
    let exporter = Exporter::start(config, settings).await?;
    writeln!(std::io::stdout(), "up")?;
    exporter.stopped().await;
    Ok(())
}
