//! `jmp-bus serve`: puts the devices of a configuration on the bus.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bus_schema::permission::Role;
use runtime::{Config, Exporter, ExporterConfig, Settings, Stopped};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::check::count;
use crate::{
    advice::CliError,
    interrupt::Interrupt,
    metrics::{self, Endpoint},
    session::Session,
    systemd::ServiceManager,
};

/// Serve the drivers of a configuration until told to stop.
///
/// SIGTERM or Ctrl-C: running calls may end, devices are made safe, then it leaves. A second one
/// does not wait for running calls.
#[derive(Debug, clap::Args)]
pub(crate) struct Cmd {
    /// The configuration.
    file: PathBuf,
    /// How long running calls may take to end when it is told to stop.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::told::time)]
    grace: Duration,
    /// Where it keeps what must outlast it.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Serve drivers that run commands even where the broker asks nobody who they are.
    #[arg(long)]
    insecure: bool,
    /// Give figures to Prometheus at this port of the loopback, or at this address.
    #[arg(long, value_name = "ADDR", value_parser = metrics::address)]
    metrics: Option<SocketAddr>,
}

impl Cmd {
    pub(crate) async fn run(self, session: &Session) -> Result<(), CliError> {
        // The state directory is named after the exporter, which only the file knows.
        let state_dir = session.state_dir(self.state_dir.clone(), &file_stem(&self.file));
        let config = Config::read(&self.file, &session.kinds, &state_dir)?;
        for warning in &config.warnings {
            session.out.note(warning);
        }
        let settings = session.settings()?;
        check_credentials(&config, &settings)?;
        if !self.insecure {
            self.refuse_to_run_commands_for_anybody(&config, &settings).await?;
        }
        let (grace, metrics) = (self.grace, self.metrics);
        serve(session, Serving { config, settings, state_dir, grace, metrics }).await
    }

    async fn refuse_to_run_commands_for_anybody(
        &self,
        config: &Config,
        settings: &Settings,
    ) -> Result<(), CliError> {
        if config.runs_commands.is_empty() || settings.is_loopback() {
            return Ok(());
        }
        let authenticated = settings.server().await?.asks_who_one_is;
        if authenticated {
            return Ok(());
        }
        let drivers: Vec<_> = config.runs_commands.iter().map(ToString::to_string).collect();
        let (file, drivers) = (self.file.display().to_string(), drivers.join(", "));
        Err(CliError::Insecure { file, drivers })
    }
}

/// Whether the credentials are those of this exporter, as far as they say whose they are.
fn check_credentials(config: &Config, settings: &Settings) -> Result<(), CliError> {
    let Some(identity) = settings.identity()? else { return Ok(()) };
    let Some(role) = identity.role else { return Ok(()) };
    if role == Role::Exporter && identity.name == config.name.as_str() {
        return Ok(());
    }
    let whose = format!("{role} {}", identity.name);
    Err(CliError::NotYours { whose, wanted: format!("those of exporter {}", config.name) })
}

fn file_stem(file: &std::path::Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is served, and how.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) state_dir: PathBuf,
    /// How long running calls may take to end.
    pub(crate) grace: Duration,
    /// Where figures are given.
    pub(crate) metrics: Option<SocketAddr>,
}

/// Serves until told to stop.
pub(crate) async fn serve(session: &Session, serving: Serving) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    let Serving { config, settings, state_dir, grace, metrics } = serving;
    let endpoint = match metrics {
        Some(address) => Some(listen(session, address).await?),
        None => None,
    };
    let drivers = count(&config.root);
    let exporter = ExporterConfig {
        root: session.root(),
        labels: config.labels,
        state_dir: Some(state_dir),
        leases: config.leases,
        hooks: config.hooks,
        log: Some(session.log.clone()),
        ..ExporterConfig::new(config.name.clone(), config.root)
    };
    let exporter = Exporter::start(exporter, settings).await?;
    let name = &config.name;
    let mut data = json!({ "up": name, "drivers": drivers });
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let _stop_on_drop = stop.clone().drop_guard();
    if let Some(endpoint) = endpoint {
        data["metrics"] = endpoint.address.to_string().into();
        tasks.spawn(endpoint.serve(exporter.metrics(), stop.clone()));
    }
    session.out.document(&data, || format!("{name} is up with {drivers} drivers\n")).await?;
    let manager = Arc::new(ServiceManager::of_environment());
    manager.ready(&format!("{name} serves {drivers} drivers"));
    let (alive, ends) = (manager.clone(), stop.clone());
    tasks.spawn(async move { ends.run_until_cancelled(alive.stay_alive()).await });
    let stopped = tokio::select! {
        signal = interrupt.next() => {
            tracing::info!(?signal, "told to stop: running calls may end");
            None
        }
        why = exporter.stopped() => Some(why),
    };
    manager.stopping();
    let stopping = exporter.shutdown(grace);
    tokio::select! {
        biased;
        stopped = stopping => stopped?,
        signal = interrupt.next() => return Err(CliError::Interrupted(signal)),
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    match stopped {
        Some(Stopped::Replaced) => Err(CliError::Replaced(name.to_string())),
        Some(Stopped::Hook(why)) => Err(CliError::HookFailed(why)),
        None => Ok(()),
    }
}

async fn listen(session: &Session, address: SocketAddr) -> Result<Endpoint, CliError> {
    let listening = Endpoint::listen(address).await;
    let endpoint =
        listening.map_err(|source| CliError::io(format!("listen on {address}"), source))?;
    session.out.note(format_args!("figures at http://{}/metrics", endpoint.address));
    if !endpoint.address.ip().is_loopback() {
        session.out.note("whoever reaches that address may read them");
    }
    Ok(endpoint)
}
