//! A broker, an exporter with drivers that tell what happens to them, and the program beside them.

use std::{
    fs::File,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bus_schema::{Fault, driver};
use bytes::Bytes;
use runtime::{
    Auth, ByteStream, Context, Exporter, ExporterConfig, Items, LocalBroker, Node, Served, serve,
};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy, split},
    process::{Child, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

/// Nothing here takes so long; a test that waits for ever says so instead.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happened to the drivers, in its order.
#[derive(Clone, Debug)]
pub(crate) struct Diary(Arc<watch::Sender<Vec<String>>>);

impl Diary {
    fn write(&self, entry: impl Into<String>) {
        self.0.send_modify(|entries| entries.push(entry.into()));
    }

    /// Waits until `entry` is there.
    pub(crate) async fn has(&self, entry: &str) {
        let mut reader = self.0.subscribe();
        let written = reader.wait_for(|entries| entries.iter().any(|e| e == entry));
        timeout(PATIENCE, written).await.unwrap_or_else(|_| panic!("{entry}: {self:?}")).unwrap();
    }
}

/// Writes an entry when it is dropped: an operation that ended without saying how.
struct Ends(Diary, &'static str);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.write(self.1);
    }
}

/// A piece of what a console said.
#[derive(serde::Serialize, serde::Deserialize, bus_schema::Describe)]
pub(crate) struct Said {
    at: u64,
    data: Bytes,
}

/// A relay that does what tests want to see.
pub(crate) struct Relay(Diary);

#[driver]
impl Relay {
    /// Switches the power on.
    #[export]
    async fn on(&self) {
        self.0.write("on");
    }

    /// Switches it off and on again.
    #[export]
    async fn cycle(&self, wait: Duration) -> String {
        format!("off for {} ms", wait.as_millis())
    }

    /// How it is.
    #[export]
    async fn status(&self) -> std::collections::BTreeMap<String, f64> {
        [("volts".to_owned(), 5.25)].into()
    }

    /// How many bytes came.
    #[export]
    async fn size(&self, image: Bytes) -> u64 {
        image.len() as u64
    }

    /// Fails, as devices do.
    #[export]
    async fn melt(&self) -> Result<(), Fault> {
        Err(Fault::device("the fuse is blown"))
    }

    /// Never ends by itself.
    #[export]
    async fn hang(&self, cx: &Context) -> Result<(), Fault> {
        let _ends = Ends(self.0.clone(), "hang ended");
        self.0.write("hang");
        cx.cancelled().await;
        Err(Fault::device("cancelled"))
    }

    /// Counts to `count`, or for ever.
    #[export]
    async fn count(&self, count: Option<u64>, items: Items<u64>) -> Result<(), Fault> {
        let _ends = Ends(self.0.clone(), "count ended");
        for number in 0..count.unwrap_or(u64::MAX) {
            items.send(number).await?;
        }
        Ok(())
    }

    /// Says words.
    #[export]
    async fn say(&self, items: Items<String>) -> Result<(), Fault> {
        for word in ["hello", "there"] {
            items.send(word.to_owned()).await?;
        }
        Ok(())
    }

    /// Says back everything once it has heard the end of it.
    #[export]
    async fn connect(&self, mut stream: ByteStream) -> std::io::Result<()> {
        let _ends = Ends(self.0.clone(), "connect ended");
        self.0.write("connect");
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        heard.make_ascii_uppercase();
        stream.write_all(&heard).await?;
        stream.shutdown().await
    }

    /// What was said before.
    #[export]
    async fn capture(&self, items: Items<Said>) -> Result<(), Fault> {
        items.send(Said { at: 7, data: "booted\n".into() }).await?;
        Ok(())
    }

    /// What is said from a place on.
    #[export]
    async fn watch(
        &self,
        #[default(None)] from: Option<u64>,
        mut stream: ByteStream,
    ) -> std::io::Result<()> {
        stream.write_all(format!("from {from:?}\n").as_bytes()).await?;
        stream.shutdown().await
    }

    /// Says back at once what it hears.
    #[export]
    async fn echo(&self, stream: ByteStream) -> std::io::Result<()> {
        let _ends = Ends(self.0.clone(), "echo ended");
        let (mut from, mut to) = split(stream);
        copy(&mut from, &mut to).await?;
        to.shutdown().await
    }
}

/// All of it.
pub(crate) struct Lab {
    pub(crate) served: Served,
    pub(crate) diary: Diary,
    pub(crate) home: TempDir,
    url: String,
    token: String,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Stdout, of a run that went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Stdout as JSON, of a run that went well.
    #[track_caller]
    pub(crate) fn json(self) -> Json {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Stderr, of a run that failed with `code`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }
}

/// The program, in a home of its own.
pub(crate) fn program(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jmp-bus"));
    for variable in ["NATS_URL", "NATS_TOKEN", "NATS_CONTEXT", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
    {
        command.env_remove(variable);
    }
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    command.env("JMP_BUS_CLIENT", "cli").env_remove("XDG_STATE_HOME").env_remove("JMP_BUS_ROOT");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Lab {
    /// Two relays under a third.
    pub(crate) async fn start() -> Self {
        Self::with(|tree| tree).await
    }

    /// The same, and three boards with a disk, the last of which is worn out.
    pub(crate) async fn with_disks() -> Self {
        let disk = |board: &str, fails_at| {
            let config = actors::FakeFlasherConfig {
                size: "64M".to_owned(),
                fails_at,
                ..Default::default()
            };
            Node::of("fake-flasher", actors::FakeFlasher::new(config).unwrap())
                .with_label("board", board)
        };
        Self::with(|tree| {
            tree.with_child("disk", disk("a", None))
                .with_child("disk2", disk("a", None))
                .with_child("worn", disk("b", Some(1 << 20)))
        })
        .await
    }

    /// Two relays under a third, and more drivers.
    pub(crate) async fn with(more: impl FnOnce(Node) -> Node) -> Self {
        let diary = Diary(Arc::new(watch::Sender::new(Vec::new())));
        let served = serve(more(relays(&diary))).await.unwrap();
        let broker = LocalBroker::shared().await.unwrap();
        let Auth::Token(token) = broker.connect_settings().auth else { panic!("a token") };
        let (url, token) = (broker.url(), token.expose().to_owned());
        Self { served, diary, home: tempfile::tempdir().unwrap(), url, token }
    }

    /// Another exporter beside `local`, with the same relays.
    pub(crate) async fn exporter(&self, name: &str) -> Exporter {
        self.exporter_with(name, |_| ()).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn exporter_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut ExporterConfig),
    ) -> Exporter {
        let mut config = ExporterConfig {
            root: self.served.client().root().clone(),
            state_dir: Some(self.home.path().join(name)),
            ..ExporterConfig::new(name.parse().unwrap(), relays(&self.diary))
        };
        change(&mut config);
        let broker = LocalBroker::shared().await.unwrap();
        Exporter::start(config, broker.connect_settings()).await.unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(&self.home);
        command.args(["--server", &self.url]).env("NATS_TOKEN", &self.token);
        command.args(["--root", self.served.client().root().as_str()]).args(args);
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args)).await
    }

    /// Runs it with this on stdin.
    pub(crate) async fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(stdin).await.unwrap();
        drop(pipe);
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        Ran::of(output.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap())
    }

    /// Starts it and leaves it running.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        Running::start(&mut self.command(args))
    }

    pub(crate) async fn end(self) {
        self.served.shutdown().await.unwrap();
    }
}

pub(crate) fn relays(diary: &Diary) -> Node {
    let relay = |rack: &str| {
        let node = Node::of("test-relay", Relay(diary.clone())).with_label("rack", rack);
        Node { description: "switches a board".to_owned(), ..node }
    };
    Node::of("test-relay", Relay(diary.clone()))
        .with_child("power", relay("1"))
        .with_child("spare", relay("2"))
}

/// A driver that connects to a port of this host.
pub(crate) fn tcp_to(port: u16) -> Node {
    let config = actors::TcpNetworkConfig {
        host: "127.0.0.1".to_owned(),
        port,
        enable_address: true,
        connect_timeout: PATIENCE,
    };
    Node::of("tcp", actors::TcpNetwork::new(config))
}

/// Runs a command to its end.
pub(crate) async fn run(command: &mut Command) -> Ran {
    let output = timeout(PATIENCE, command.output()).await;
    Ran::of(output.unwrap_or_else(|_| panic!("{command:?} does not end")).unwrap())
}

/// A run of the program that goes on.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line of stdout.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.out.read_line(&mut line)).await;
        read.expect("a line in time").unwrap();
        line.trim_end().to_owned()
    }

    /// The first line of stderr.
    pub(crate) async fn note(&mut self) -> String {
        let mut stderr = BufReader::new(self.child.stderr.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, stderr.read_line(&mut line)).await.expect("a line in time").unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until stdout has this byte.
    pub(crate) async fn byte(&mut self, wanted: u8) {
        let read = async { while self.out.read_u8().await.unwrap() != wanted {} };
        timeout(PATIENCE, read).await.expect("the byte in time");
    }

    /// As Ctrl-C does.
    pub(crate) async fn interrupt(&self) {
        self.signal("-INT").await;
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ran {
        let mut out = String::new();
        let read = async {
            self.out.read_to_string(&mut out).await.unwrap();
            self.child.wait_with_output().await.unwrap()
        };
        let output = timeout(PATIENCE, read).await.expect("it does not end");
        Ran { out, ..Ran::of(output) }
    }
}

/// A terminal: what a person types into, and what the program has.
pub(crate) fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).unwrap();
    (master.into(), slave.into())
}

impl Running {
    /// Closes the pipe that its stdout is read by.
    pub(crate) fn hang_up(self) -> Child {
        self.child
    }
}
