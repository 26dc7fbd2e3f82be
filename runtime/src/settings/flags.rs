//! What a person says of the broker, before it is decided what counts.

use std::{fmt, path::PathBuf};

use super::Secret;

/// What a command line, or the environment, says of the broker. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--server`, `NATS_URL`: servers, with commas between.
    pub server: Option<String>,
    /// `--context`, `NATS_CONTEXT`: a context of the `nats` CLI.
    pub context: Option<String>,
    /// `--creds`, `NATS_CREDS`.
    pub creds: Option<PathBuf>,
    /// `--nkey`, `NATS_NKEY`.
    pub nkey: Option<PathBuf>,
    /// `--user`, `NATS_USER`. Without a password it is a token, as for the `nats` CLI.
    pub user: Option<String>,
    /// `--password`, `NATS_PASSWORD`.
    pub password: Option<String>,
    /// `--token`, `NATS_TOKEN`.
    pub token: Option<String>,
    /// `--tlsca`, `NATS_CA`.
    pub tlsca: Option<PathBuf>,
    /// `--tlscert`, `NATS_CERT`.
    pub tlscert: Option<PathBuf>,
    /// `--tlskey`, `NATS_KEY`.
    pub tlskey: Option<PathBuf>,
    /// `--tls-first`.
    pub tls_first: bool,
    /// `--inbox-prefix`.
    pub inbox_prefix: Option<String>,
}

impl Flags {
    /// What the `NATS_…` variables say. `look_up` gives the value of a variable.
    pub fn from_variables(look_up: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name| look_up(name).filter(|value| !value.is_empty());
        let path = |name| text(name).map(PathBuf::from);
        Self {
            server: text("NATS_URL"),
            context: text("NATS_CONTEXT"),
            creds: path("NATS_CREDS"),
            nkey: path("NATS_NKEY"),
            user: text("NATS_USER"),
            password: text("NATS_PASSWORD"),
            token: text("NATS_TOKEN"),
            tlsca: path("NATS_CA"),
            tlscert: path("NATS_CERT"),
            tlskey: path("NATS_KEY"),
            tls_first: false,
            inbox_prefix: None,
        }
    }
}

/// Everything that [`Settings`](crate::Settings) are made of, the strongest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The command line.
    pub flags: Flags,
    /// The environment.
    pub environment: Flags,
    /// The directory that has `nats/context.txt`: `$XDG_CONFIG_HOME` or `~/.config`.
    pub config_home: Option<PathBuf>,
    /// What `~/` means in a context.
    pub home: Option<PathBuf>,
}

impl Sources {
    /// These flags, and what the environment says. `look_up` gives the value of a variable.
    pub fn from_variables(flags: Flags, look_up: impl Fn(&str) -> Option<String>) -> Self {
        let dir = |name| look_up(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = dir("HOME");
        let config_home = dir("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        Self { flags, environment: Flags::from_variables(look_up), config_home, home }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |field: &Option<String>| field.as_ref().map(|_| Secret::new(""));
        f.debug_struct("Flags")
            .field("server", &hidden(&self.server)) // may have a password in it
            .field("context", &self.context)
            .field("creds", &self.creds)
            .field("nkey", &self.nkey)
            .field("user", &hidden(&self.user)) // may be a token
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .field("tlsca", &self.tlsca)
            .field("tlscert", &self.tlscert)
            .field("tlskey", &self.tlskey)
            .field("tls_first", &self.tls_first)
            .field("inbox_prefix", &self.inbox_prefix)
            .finish()
    }
}
