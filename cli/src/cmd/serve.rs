//! `jmp-bus serve`: puts the devices of a configuration on the bus.

use std::{
    io::IsTerminal as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bus_schema::{Root, permission::Role};
use runtime::{Config, ConfigSource, Exporter, ExporterConfig, Kinds, Settings, Stopped};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
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
/// does not wait for running calls. SIGHUP, or `jmp-bus reload`: the configuration is read anew, and
/// what that does not change goes on, leases included. (From a terminal SIGHUP is its end.)
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
        let may_run_commands = self.insecure || may_run_commands(&settings).await?;
        if !may_run_commands {
            refuse_to_run_commands(&config, &self.file)?;
        }
        let again = Again {
            file: self.file,
            kinds: session.kinds.clone(),
            root: session.root(),
            state_dir: state_dir.clone(),
            may_run_commands,
        };
        let (grace, metrics, source) = (self.grace, self.metrics, Some(again.source()));
        serve(session, Serving { config, settings, state_dir, source, grace, metrics }).await
    }
}

/// Whether drivers that run commands may be served: not where the broker asks nobody who they are.
async fn may_run_commands(settings: &Settings) -> Result<bool, CliError> {
    Ok(settings.is_loopback() || settings.server().await?.asks_who_one_is)
}

fn refuse_to_run_commands(config: &Config, file: &Path) -> Result<(), CliError> {
    if config.runs_commands.is_empty() {
        return Ok(());
    }
    let drivers: Vec<_> = config.runs_commands.iter().map(ToString::to_string).collect();
    let (file, drivers) = (file.display().to_string(), drivers.join(", "));
    Err(CliError::Insecure { file, drivers })
}

/// How a configuration is read again.
pub(crate) struct Again {
    pub(crate) file: PathBuf,
    pub(crate) kinds: Kinds,
    pub(crate) root: Root,
    pub(crate) state_dir: PathBuf,
    pub(crate) may_run_commands: bool,
}

impl Again {
    pub(crate) fn source(self) -> ConfigSource {
        ConfigSource::new(move || self.read())
    }

    fn read(&self) -> Result<ExporterConfig, String> {
        let config = Config::read(&self.file, &self.kinds, &self.state_dir)
            .map_err(|errors| errors.to_string())?;
        if !self.may_run_commands {
            refuse_to_run_commands(&config, &self.file).map_err(|error| error.to_string())?;
        }
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        Ok(to_be_served(config, self.root.clone(), self.state_dir.clone()))
    }
}

/// What a file says, as an exporter takes it.
fn to_be_served(config: Config, root: Root, state_dir: PathBuf) -> ExporterConfig {
    ExporterConfig {
        root,
        labels: config.labels,
        state_dir: Some(state_dir),
        leases: config.leases,
        hooks: config.hooks,
        ..ExporterConfig::new(config.name, config.root)
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
    /// How the configuration is read again, if it can be.
    pub(crate) source: Option<ConfigSource>,
    /// How long running calls may take to end.
    pub(crate) grace: Duration,
    /// Where figures are given.
    pub(crate) metrics: Option<SocketAddr>,
}

/// Serves until told to stop.
pub(crate) async fn serve(session: &Session, serving: Serving) -> Result<(), CliError> {
    let mut interrupt = Interrupt::listen()?;
    let hang_up = signal(SignalKind::hangup());
    let hang_up = hang_up.map_err(|source| CliError::io("listen for signals", source))?;
    let Serving { config, settings, state_dir, source, grace, metrics } = serving;
    let endpoint = match metrics {
        Some(address) => Some(listen(session, address).await?),
        None => None,
    };
    let (name, drivers) = (&config.name.clone(), count(&config.root));
    let exporter = to_be_served(config, session.root(), state_dir);
    let exporter = ExporterConfig { source, log: Some(session.log.clone()), ..exporter };
    let exporter = Exporter::start(exporter, settings).await?;
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
        () = follow(&exporter, hang_up, session) => None,
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

/// Reads the configuration anew at each SIGHUP. Ends when a terminal was closed.
async fn follow(exporter: &Exporter, mut hang_up: Signal, session: &Session) {
    let of_a_terminal = std::io::stdin().is_terminal();
    while hang_up.recv().await.is_some() && !of_a_terminal {
        match exporter.reload("SIGHUP").await {
            Ok(done) => session.out.note(format_args!("read anew: {done}")),
            Err(why) => session.out.note(format_args!("nothing was changed: {why}")),
        }
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
