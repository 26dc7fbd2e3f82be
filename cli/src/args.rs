//! The command line, but for what single commands add to it.

use std::{ffi::OsString, path::PathBuf};

use bus_schema::{ClientName, Root};
use clap::{ArgAction, ValueEnum};
use runtime::Flags;

use crate::{advice::CliError, cmd::Command};

/// Test hardware on a NATS bus.
///
/// Start with `jmp-bus dev`: it brings a broker of its own and drivers to play with.
#[derive(Debug, clap::Parser)]
#[command(name = "jmp-bus", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document, or one JSON value per line for what comes bit by bit.
    Json,
    /// Bytes and text as they are, without line ends between items.
    Raw,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The broker: one or more URLs with commas between [env: NATS_URL].
    #[arg(short, long, global = true, value_name = "URL")]
    server: Option<String>,
    /// A context of the `nats` CLI [env: NATS_CONTEXT].
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// A credentials file [env: NATS_CREDS].
    #[arg(long, global = true, value_name = "FILE")]
    creds: Option<PathBuf>,
    /// A file with the seed of an nkey [env: NATS_NKEY].
    #[arg(long, global = true, value_name = "FILE")]
    nkey: Option<PathBuf>,
    /// A user; without a password, a token [env: NATS_USER].
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The user's password [env: NATS_PASSWORD].
    #[arg(long, global = true, value_name = "TEXT")]
    password: Option<String>,
    /// A token [env: NATS_TOKEN].
    #[arg(long, global = true, value_name = "TEXT")]
    token: Option<String>,
    /// The certificates to trust [env: NATS_CA].
    #[arg(long, global = true, value_name = "FILE")]
    tlsca: Option<PathBuf>,
    /// Our own certificate [env: NATS_CERT].
    #[arg(long, global = true, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Its key [env: NATS_KEY].
    #[arg(long, global = true, value_name = "FILE")]
    tlskey: Option<PathBuf>,
    /// The first token of all subjects: two labs can share a broker under two roots.
    #[arg(long, global = true, value_name = "NAME", env = "JMP_BUS_ROOT", default_value = "jmp")]
    pub(crate) root: Root,
    /// The client's name: by default that of the credentials, and without them the user's.
    #[arg(long = "as", global = true, value_name = "NAME", env = "JMP_BUS_CLIENT")]
    client: Option<ClientName>,
    /// How to print results.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Print results and errors only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Log what happens, to stderr; twice: in detail.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// What the command line says of the broker.
    pub(crate) fn flags(&self) -> Flags {
        Flags {
            server: self.server.clone(),
            context: self.context.clone(),
            creds: self.creds.clone(),
            nkey: self.nkey.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            tlsca: self.tlsca.clone(),
            tlscert: self.tlscert.clone(),
            tlskey: self.tlskey.clone(),
            ..Flags::default()
        }
    }

    /// The same as variables, for a command that is to find the same broker.
    pub(crate) fn broker_variables(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let given = [
            ("NATS_URL", self.server.clone()),
            ("NATS_CONTEXT", self.context.clone()),
            ("NATS_CREDS", path(&self.creds)),
            ("NATS_NKEY", path(&self.nkey)),
            ("NATS_USER", self.user.clone()),
            ("NATS_PASSWORD", self.password.clone()),
            ("NATS_TOKEN", self.token.clone()),
            ("NATS_CA", path(&self.tlsca)),
            ("NATS_CERT", path(&self.tlscert)),
            ("NATS_KEY", path(&self.tlskey)),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The options that another run of this program reaches the same broker by. Secrets are not
    /// among them: they are for files and the environment.
    #[cfg(feature = "ssh")]
    pub(crate) fn reach(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let client = self.client.as_ref().map(ToString::to_string);
        let options = [
            ("--server", self.server.clone()),
            ("--context", self.context.clone()),
            ("--creds", path(&self.creds)),
            ("--nkey", path(&self.nkey)),
            ("--tlsca", path(&self.tlsca)),
            ("--tlscert", path(&self.tlscert)),
            ("--tlskey", path(&self.tlskey)),
            ("--root", Some(self.root.to_string())),
            ("--as", client),
        ];
        let given = options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
        given.flatten().collect()
    }

    /// The name that was given.
    pub(crate) fn asked_for(&self) -> Option<&ClientName> {
        self.client.as_ref()
    }

    /// The name that was given, or the user's as far as it can be a name.
    pub(crate) fn client_name(&self) -> Result<ClientName, CliError> {
        if let Some(name) = &self.client {
            return Ok(name.clone());
        }
        let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_default();
        let name = as_name(&user);
        name.parse().map_err(|error| CliError::Usage(format!("{error}; give one by --as")))
    }
}

/// Whether a command line that cannot be read asks for JSON all the same.
pub(crate) fn wants_json(args: impl IntoIterator<Item = OsString>) -> bool {
    let mut said = None;
    for arg in args {
        let arg = arg.to_string_lossy();
        match arg.as_ref() {
            "--" => return false,
            "json" if said.as_deref().is_some_and(|said| matches!(said, "-o" | "--output")) => {
                return true;
            }
            "-ojson" | "-o=json" | "--output=json" => return true,
            _ => said = Some(arg.into_owned()),
        }
    }
    false
}

/// The words of a command line, with `--wait 10m` as `--wait=10m`. Clap alone cannot tell that time
/// from the board in `--wait bench`.
pub(crate) fn with_times(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut all, mut leases) = (Vec::<OsString>::new(), false);
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            all.push(word);
            all.extend(words); // the command's own
            break;
        }
        leases |= ["acquire", "run", "shell"].iter().any(|command| word == *command);
        let is_time = word.to_str().is_some_and(|time| humantime::parse_duration(time).is_ok());
        match all.last_mut() {
            Some(last) if leases && is_time && last == "--wait" => {
                last.push("=");
                last.push(word);
            }
            _ => all.push(word),
        }
    }
    all
}

/// A user's name as the name of a client: `Ann.Lee@lab` is `ann-lee-lab`.
fn as_name(user: &str) -> String {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '-',
    };
    let name: String = user.chars().map(plain).take(64).collect();
    match name.trim_start_matches(['-', '_']) {
        "" => "anonymous".to_owned(),
        name => name.to_owned(),
    }
}

/// A variable of the environment, if it is text. The only place that reads one.
#[expect(clippy::disallowed_methods, reason = "the CLI reads the configuration and passes it on")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_line_can_be_parsed() {
        Top::command().debug_assert();
    }

    #[test]
    fn json_is_heard_on_a_command_line_that_cannot_be_read() {
        let wants = |args: &str| wants_json(args.split(' ').map(OsString::from));
        for args in ["-o json --nonsense", "list -ojson", "call x --output=json", "--output json"] {
            assert!(wants(args), "{args}");
        }
        for args in ["list json", "call x y -- -o json", "-o table json", ""] {
            assert!(!wants(args), "{args}");
        }
    }

    #[test]
    fn a_time_behind_wait_is_that_and_a_board_is_a_board() {
        for (typed, read) in [
            ("lease acquire bench --wait 10m", "lease acquire bench --wait=10m"),
            ("lease acquire --wait bench", "lease acquire --wait bench"),
            ("run --wait 5s bench -- x --wait 5s", "run --wait=5s bench -- x --wait 5s"),
            ("drain --wait 5s", "drain --wait 5s"),
            ("shell bench --wait --for 2h", "shell bench --wait --for 2h"),
        ] {
            let words = with_times(typed.split(' ').map(OsString::from));
            assert_eq!(words.join(std::ffi::OsStr::new(" ")), read);
        }
    }

    #[test]
    fn a_user_name_becomes_a_client_name() {
        for (user, name) in [
            ("Ann.Lee@lab", "ann-lee-lab"),
            ("", "anonymous"),
            ("*", "anonymous"),
            ("_apt", "apt"),
            ("root", "root"),
        ] {
            assert_eq!(as_name(user), name);
            assert!(name.parse::<ClientName>().is_ok(), "{name}");
        }
    }
}
