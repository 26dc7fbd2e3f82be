//! `jmp-bus dev`: a broker and an exporter of one's own.

use std::path::PathBuf;

use runtime::{BrokerOptions, Config, LocalBroker, OnProgress, Progress, ScratchDir};
use serde_json::json;

use super::serve::{Again, Serving, serve};
use crate::{advice::CliError, desk, session::Session};

/// What is served where no configuration is given.
const FAKES: &str = include_str!("dev.yaml");

/// Start a private broker and an exporter, for this user's other commands to find.
///
/// Without a configuration it serves fakes to play with. Everything ends with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The configuration.
    file: Option<PathBuf>,
    /// Keep JetStream's data here, instead of throwing it away.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Listen on this port of the loopback.
    #[arg(long)]
    port: Option<u16>,
    /// This nats-server and no other.
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        // Before the broker, which takes longer.
        let scratch = ScratchDir::new("dev").map_err(|error| CliError::io("keep state", error))?;
        let state_dir = scratch.path().join("state");
        let config = match &self.file {
            Some(file) => Config::read(file, &session.kinds, &state_dir)?,
            None => Config::parse(FAKES, "dev.yaml", &session.kinds, &state_dir)?,
        };
        for warning in &config.warnings {
            session.out.note(warning);
        }
        let broker = LocalBroker::start(self.broker(session)).await?;
        let settings = broker.connect_settings();
        settings.make_streams(&session.root()).await?;
        let announced = desk::announce(&broker)?;
        let (url, token_file) = (broker.url(), broker.token_file());
        let found = announced.is_some();
        let data = json!({ "server": url, "token_file": token_file, "found_by_others": found });
        let text = || match found {
            true => format!("broker at {url}; this user's other commands find it by themselves\n"),
            false => format!(
                "broker at {url}; reach it with\n  export NATS_URL={url} NATS_TOKEN=$(cut -d'\"' -f2 {})\n",
                token_file.display()
            ),
        };
        session.out.document(&data, text).await?;
        let grace = std::time::Duration::from_secs(5);
        let source = self.file.clone().map(|file| {
            let (kinds, root) = (session.kinds.clone(), session.root());
            let state_dir = state_dir.clone();
            Again { file, kinds, root, state_dir, may_run_commands: true }.source()
        });
        let serving = Serving { config, settings, state_dir, source, grace, metrics: None };
        let served = Box::pin(serve(session, serving)).await;
        drop(announced); // before the broker: who finds it may use it
        broker.stop().await;
        served
    }

    fn broker(&self, session: &Session) -> BrokerOptions {
        let out = session.out;
        let progress = OnProgress::new(move |progress| match progress {
            Progress::Fetching { package, version } => {
                out.note(format_args!("fetching {package} {version}"));
            }
            Progress::Starting { server } => {
                out.note(format_args!("starting {}", server.display()));
            }
        });
        BrokerOptions {
            server: self.nats_server.clone(),
            store: self.store.clone(),
            port: self.port,
            progress,
        }
    }
}
