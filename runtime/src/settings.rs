//! How to reach an operator's broker, named the way NATS tools name it.

mod context;
mod flags;
mod secret;
mod server;
#[cfg(test)]
mod tests;
mod variables;

use std::{
    fmt, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use self::{context::Context, server::Servers};
pub use self::{
    flags::{Flags, Sources},
    secret::Secret,
};
use crate::authority::{Identity, JwtError, jwt_of};

/// The broker of a context that names none, as for the `nats` CLI.
const SERVER_OF_A_CONTEXT: &str = "nats://127.0.0.1:4222";

/// How to reach a broker. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The servers, without credentials. None means that nobody has named a broker: see
    /// [`LocalBroker`](crate::LocalBroker).
    pub servers: Vec<String>,
    /// Who we are.
    pub auth: Auth,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// Where answers go, instead of our own choice.
    pub inbox_prefix: Option<String>,
    /// The JetStream domain, if it is not that of the connection.
    pub jetstream_domain: Option<String>,
    /// What the broker shows to its operator as our name.
    pub name: Option<String>,
    /// What the person who set this up should hear.
    pub warnings: Vec<Warning>,
}

/// How to prove who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By a token.
    Token(Secret),
    /// By a password.
    UserPassword {
        /// Who.
        user: String,
        /// The password.
        password: Secret,
    },
    /// By a file with a JWT and its seed.
    Creds(PathBuf),
    /// By what would be in such a file.
    CredsText(Secret),
    /// By a file with the seed of an nkey.
    Nkey(PathBuf),
    /// By a JWT.
    Jwt {
        /// The JWT.
        jwt: Secret,
        /// The file with its seed; a bearer JWT has none.
        seed: Option<PathBuf>,
    },
}

/// How the connection is encrypted. By a file that is given here, or a `tls://` server, it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The certificates to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The handshake comes before the server's greeting.
    pub first: bool,
}

impl Tls {
    /// Whether a connection without TLS is refused.
    #[must_use]
    pub fn is_required(&self) -> bool {
        *self != Self::default()
    }
}

/// Something that works and should not stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A file with a secret is not private.
    #[error(
        "{field} {} has mode {mode:03o}, so others may read it: `chmod 600` it",
        file.display()
    )]
    ReadableByOthers {
        /// What the file is.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flags,
    /// The environment.
    Environment,
    /// A context file of the `nats` CLI.
    Context(PathBuf),
}

/// Why there is no way to the broker.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A server cannot be one.
    #[error("{from} name the server {server}, {why}")]
    Server {
        /// Who says so.
        from: Source,
        /// The server, without credentials.
        server: String,
        /// What is wrong with it, and what would be right.
        why: BadServer,
    },
    /// Two servers come with different credentials.
    #[error("{from} name servers with different credentials; give one `--creds` or `--token`")]
    ServersDisagree {
        /// Who says so.
        from: Source,
    },
    /// Two proofs of who we are at a time.
    #[error("{from} give both {one} and {other}; one of them is enough")]
    Both {
        /// Who does so.
        from: Source,
        /// A field.
        one: &'static str,
        /// Another field.
        other: &'static str,
    },
    /// Half of a pair.
    #[error("{from} give {given} without {missing}; they go together")]
    Alone {
        /// Who does so.
        from: Source,
        /// A field.
        given: &'static str,
        /// What it needs.
        missing: &'static str,
    },
    /// There is no such context.
    #[error(
        "no context {name} in {}; there is {}",
        dir.display(),
        if known.is_empty() { "none".into() } else { known.join(", ") }
    )]
    NoContext {
        /// Its name.
        name: String,
        /// Where the contexts are.
        dir: PathBuf,
        /// Those that are there.
        known: Vec<String>,
    },
    /// This is no name of a context.
    #[error(
        "{name:?} is no name of a context: a name is the file's, without directory and `.json`"
    )]
    ContextName {
        /// What was given.
        name: String,
    },
    /// A context was named, and it is not known where contexts are.
    #[error("no directory for the context {name}: neither XDG_CONFIG_HOME nor HOME is set")]
    NoConfigHome {
        /// The context.
        name: String,
    },
    /// A context is not what `nats` writes. The text is not shown, as it has secrets.
    #[error(
        "context {} is damaged at line {line}, column {column}; see `nats context edit`",
        file.display()
    )]
    ContextMalformed {
        /// The file.
        file: PathBuf,
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// A context asks for what jmp-bus does not do.
    #[error("context {} has {field}, which jmp-bus does not do; {instead}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The field.
        field: &'static str,
        /// What would do.
        instead: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {field} {}", file.display())]
    File {
        /// What the file is.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A JWT cannot be read. It is not shown.
    #[error("the JWT of {of} is damaged: {source}")]
    Jwt {
        /// Where it is.
        of: String,
        /// What is wrong with it.
        source: JwtError,
    },
    /// A file is not what it should be.
    #[error("{field} {} has no {lacks}", file.display())]
    Content {
        /// What the file is.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// What should be in it.
        lacks: &'static str,
    },
}

/// What is wrong with the address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadServer {
    /// There is no host.
    #[error("which has no host; write nats://HOST:PORT")]
    NoHost,
    /// The port is no number.
    #[error("whose port is no number up to 65535; write nats://HOST:PORT")]
    Port,
    /// There is something after the host.
    #[error("which has a path; write nats://HOST:PORT")]
    Path,
    /// It is made for a browser.
    #[error("but WebSocket is not built in; use the broker's nats:// or tls:// port")]
    WebSocket,
    /// It refers to the store of `nsc`.
    #[error("but nsc is not asked; write a file with `nsc generate creds` and give it as creds")]
    Nsc,
    /// It is something else.
    #[error("whose scheme is unknown; use nats:// or tls://")]
    Scheme,
}

impl Settings {
    /// Decides between `sources`: flags over environment over context, field by field, except that
    /// the strongest source that says who we are says all of it.
    ///
    /// # Errors
    ///
    /// See [`SettingsError`].
    pub fn resolve(sources: Sources) -> Result<Self, SettingsError> {
        let Sources { flags, environment, config_home, home } = sources;
        let named = flags.context.clone().or(environment.context.clone());
        let context = context::load(named.as_deref(), config_home.as_deref())?;
        let mut layers =
            vec![Layer::of(Source::Flags, flags), Layer::of(Source::Environment, environment)];
        layers.extend(context.map(|(file, context)| Layer::of_context(file, context)));
        for layer in &mut layers {
            layer.expand_home(home.as_deref());
        }
        let mut settings = merge(&layers)?;
        settings.warnings = settings.check_files()?;
        Ok(settings)
    }

    /// Whether every server is on this machine. No server is on no machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| server::is_loopback(server))
    }

    /// Host and port of one of our [`servers`](Self::servers).
    pub(crate) fn endpoint(server: &str) -> (&str, u16) {
        server::endpoint(server)
    }

    /// Who we are by our credentials; `None` if they have no JWT, so that only the broker knows.
    ///
    /// # Errors
    ///
    /// [`SettingsError::File`], [`SettingsError::Content`] and [`SettingsError::Jwt`].
    pub fn identity(&self) -> Result<Option<Identity>, SettingsError> {
        let identity = |of: String, jwt: &str| {
            Identity::of_jwt(jwt).map(Some).map_err(|source| SettingsError::Jwt { of, source })
        };
        match &self.auth {
            Auth::None | Auth::Token(_) | Auth::UserPassword { .. } | Auth::Nkey(_) => Ok(None),
            Auth::Creds(file) => {
                let text = std::fs::read_to_string(file);
                let text = text.map_err(|source| SettingsError::File {
                    field: "creds",
                    file: file.clone(),
                    source,
                })?;
                let lacks = "user JWT and its seed";
                let jwt = jwt_of(&text).ok_or_else(|| SettingsError::Content {
                    field: "creds",
                    file: file.clone(),
                    lacks,
                })?;
                identity(file.display().to_string(), jwt)
            }
            Auth::CredsText(creds) => match jwt_of(creds.expose()) {
                Some(jwt) => identity("the credentials".to_owned(), jwt),
                None => Ok(None),
            },
            Auth::Jwt { jwt, .. } => identity("the context".to_owned(), jwt.expose()),
        }
    }

    /// Finds files that are missing before anything waits for a connection.
    fn check_files(&self) -> Result<Vec<Warning>, SettingsError> {
        let (field, secret) = match &self.auth {
            Auth::Creds(file) => ("creds", Some(file)),
            Auth::Nkey(file) | Auth::Jwt { seed: Some(file), .. } => ("nkey", Some(file)),
            Auth::None
            | Auth::Token(_)
            | Auth::UserPassword { .. }
            | Auth::CredsText(_)
            | Auth::Jwt { .. } => ("", None),
        };
        let secrets = [(field, secret), ("tlskey", self.tls.key.as_ref())];
        let open = [("tlsca", &self.tls.ca), ("tlscert", &self.tls.cert)];
        for (field, file) in open {
            file.as_ref().map(|file| mode(field, file)).transpose()?;
        }
        let mut warnings = Vec::new();
        for (field, file) in secrets.into_iter().filter_map(|(field, file)| Some((field, file?))) {
            let mode = mode(field, file)?;
            if mode & 0o077 != 0 {
                warnings.push(Warning::ReadableByOthers { field, file: file.clone(), mode });
            }
        }
        Ok(warnings)
    }
}

/// What one source says.
struct Layer {
    source: Source,
    flags: Flags,
    user_jwt: Option<String>,
    jetstream_domain: Option<String>,
}

impl Layer {
    fn of(source: Source, flags: Flags) -> Self {
        Self { source, flags, user_jwt: None, jetstream_domain: None }
    }

    fn of_context(file: PathBuf, context: Context) -> Self {
        let Context { flags, user_jwt, jetstream_domain } = context;
        Self { source: Source::Context(file), flags, user_jwt, jetstream_domain }
    }

    fn expand_home(&mut self, home: Option<&Path>) {
        let Flags { creds, nkey, tlsca, tlscert, tlskey, .. } = &mut self.flags;
        for path in [creds, nkey, tlsca, tlscert, tlskey].into_iter().flatten() {
            if let (Some(home), Ok(rest)) = (home, path.strip_prefix("~")) {
                *path = home.join(rest);
            }
        }
    }

    /// Who we are, by this source.
    fn auth(&self, password: Option<&String>) -> Result<Option<Auth>, SettingsError> {
        let Flags { creds, nkey, user, token, .. } = &self.flags;
        let given = [
            ("user", user.is_some()),
            ("creds", creds.is_some()),
            ("nkey", nkey.is_some() && self.user_jwt.is_none()),
            ("token", token.is_some()),
            ("user_jwt", self.user_jwt.is_some()),
        ];
        let mut given = given.into_iter().filter_map(|(field, given)| given.then_some(field));
        if let (Some(one), Some(other)) = (given.next(), given.next()) {
            return Err(SettingsError::Both { from: self.source.clone(), one, other });
        }
        let secret = |text: &String| Secret::new(text.as_str());
        let by_user = user.as_ref().map(|user| match password {
            None => Auth::Token(secret(user)),
            Some(password) => Auth::UserPassword { user: user.clone(), password: secret(password) },
        });
        let by_jwt = |jwt| Auth::Jwt { jwt: secret(jwt), seed: nkey.clone() };
        Ok(by_user
            .or_else(|| creds.clone().map(Auth::Creds))
            .or_else(|| self.user_jwt.as_ref().map(by_jwt))
            .or_else(|| nkey.clone().map(Auth::Nkey))
            .or_else(|| token.as_ref().map(|token| Auth::Token(secret(token)))))
    }

    fn servers(&self) -> Result<Option<Servers>, SettingsError> {
        self.flags.server.as_ref().map(|list| server::parse(list, &self.source)).transpose()
    }

    /// Certificate and key of this source: two halves of different origin make no pair.
    fn pair(&self) -> Result<Option<(PathBuf, PathBuf)>, SettingsError> {
        let alone = |given, missing| {
            Err(SettingsError::Alone { from: self.source.clone(), given, missing })
        };
        match (&self.flags.tlscert, &self.flags.tlskey) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
            (Some(_), None) => alone("tlscert", "tlskey"),
            (None, Some(_)) => alone("tlskey", "tlscert"),
        }
    }
}

fn merge(layers: &[Layer]) -> Result<Settings, SettingsError> {
    let first = |field: fn(&Layer) -> &Option<String>| layers.iter().find_map(|l| field(l).clone());
    let mut settings = Settings {
        inbox_prefix: first(|layer| &layer.flags.inbox_prefix),
        jetstream_domain: first(|layer| &layer.jetstream_domain),
        ..Settings::default()
    };
    for (at, layer) in layers.iter().enumerate() {
        // Credentials in a server that a stronger source has replaced were meant for that server.
        let servers = if settings.servers.is_empty() { layer.servers()? } else { None };
        let (addresses, in_url) = servers.map_or_else(Default::default, Servers::into_parts);
        settings.servers.extend(addresses);
        if settings.auth == Auth::None {
            // A password may stay out of the command line and out of a file, but the one of a
            // context belongs to the user of that context.
            let near = &layers[..=at.max(1)];
            let password = near.iter().find_map(|layer| layer.flags.password.as_ref());
            let explicit = layer.auth(password)?;
            settings.auth = explicit.or(in_url).unwrap_or_default();
        }
        if settings.tls.cert.is_none()
            && let Some((cert, key)) = layer.pair()?
        {
            (settings.tls.cert, settings.tls.key) = (Some(cert), Some(key));
        }
        settings.tls.ca = settings.tls.ca.or_else(|| layer.flags.tlsca.clone());
        settings.tls.first |= layer.flags.tls_first;
    }
    let password = layers.iter().find(|layer| layer.flags.password.is_some());
    if let (Auth::None, Some(layer)) = (&settings.auth, password) {
        let from = layer.source.clone();
        return Err(SettingsError::Alone { from, given: "password", missing: "user" });
    }
    Ok(settings)
}

fn mode(field: &'static str, file: &Path) -> Result<u32, SettingsError> {
    match file.metadata() {
        Ok(meta) => Ok(meta.permissions().mode() & 0o777),
        Err(source) => Err(SettingsError::File { field, file: file.to_owned(), source }),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags => f.write_str("the flags"),
            Self::Environment => f.write_str("the NATS_ variables"),
            Self::Context(file) => write!(f, "the fields of {}", file.display()),
        }
    }
}
