//! What a command has to work with.

use std::{path::PathBuf, sync::Once};

use bus_schema::{ClientName, Root, permission::Role};
use runtime::{Client, Kinds, LogTap, Settings, Sources};
use tokio::sync::OnceCell;

use crate::{
    advice::CliError,
    args::{Global, variable},
    desk,
    hook::Hook,
    output::Output,
};

/// One run of the program: its options, its output and its connection, opened when it is needed.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) global: Global,
    pub(crate) kinds: Kinds,
    pub(crate) out: Output,
    /// Where exporters of this process take their logs from.
    pub(crate) log: LogTap,
    client: OnceCell<Client>,
    /// Which desk is used is said once.
    desk_told: Once,
}

impl Session {
    pub(crate) fn new(global: Global, kinds: Kinds, log: LogTap) -> Self {
        let out = Output::new(global.output, global.quiet);
        Self { global, kinds, out, log, client: OnceCell::new(), desk_told: Once::new() }
    }

    pub(crate) fn root(&self) -> Root {
        self.global.root.clone()
    }

    /// How to reach the broker: as flags, environment and context say, or the one of `jmp-bus dev`.
    pub(crate) fn settings(&self) -> Result<Settings, CliError> {
        let flags = self.global.flags();
        let settings = Settings::resolve(Sources::from_variables(flags, variable))?;
        for warning in &settings.warnings {
            self.out.note(warning);
        }
        if !settings.servers.is_empty() {
            return Ok(settings);
        }
        let desk = desk::find().ok_or(CliError::NoBroker)?;
        self.desk_told.call_once(|| {
            self.out.note(format_args!("using the broker of `jmp-bus dev` at {}", desk.url));
        });
        Ok(desk.settings)
    }

    /// The connection.
    pub(crate) async fn client(&self) -> Result<&Client, CliError> {
        let connect = async || {
            let settings = self.settings()?;
            // Whoever says who they are, in a hook, is that.
            if let (Some(Hook { exporter, id }), None) =
                (Hook::of_environment(), self.global.asked_for())
            {
                let root = self.root();
                return Ok(Client::connect_as_hook(settings, root, exporter, id).await?);
            }
            let name = self.client_name(&settings)?;
            Ok(Client::connect(settings, self.root(), name).await?)
        };
        self.client.get_or_try_init(connect).await
    }

    /// The name that the credentials are for. Where they say none, the one that was asked for.
    pub(crate) fn client_name(&self, settings: &Settings) -> Result<ClientName, CliError> {
        let Some(identity) = settings.identity()? else { return self.global.client_name() };
        let whose = || match identity.role {
            Some(role) => format!("{role} {}", identity.name),
            None => identity.name.clone(),
        };
        if matches!(identity.role, Some(Role::Exporter | Role::Leaf)) {
            let wanted = "a client's, an observer's or an admin's".to_owned();
            return Err(CliError::NotYours { whose: whose(), wanted });
        }
        // Another tool's user may have any name; the broker then says what it may do.
        let Ok(name) = identity.name.parse::<ClientName>() else {
            return self.global.client_name();
        };
        match self.global.asked_for() {
            Some(asked) if *asked != name => {
                Err(CliError::NotYours { whose: whose(), wanted: format!("those of {asked}") })
            }
            _ => Ok(name),
        }
    }

    /// Says goodbye to the broker: cancels of what was given up are delivered first.
    pub(crate) async fn close(mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    /// A file in which this user keeps what must outlast this run.
    #[cfg(feature = "ssh")]
    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.state_dir(None, name)
    }

    /// Where an exporter of this name keeps what must outlast it.
    pub(crate) fn state_dir(&self, given: Option<PathBuf>, exporter: &str) -> PathBuf {
        let dir = |name: &str| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        given.or_else(|| dir("STATE_DIRECTORY")).unwrap_or_else(|| {
            let home = dir("XDG_STATE_HOME").or_else(|| Some(dir("HOME")?.join(".local/state")));
            home.unwrap_or_else(|| "/var/lib".into()).join("jmp-bus").join(exporter)
        })
    }
}
