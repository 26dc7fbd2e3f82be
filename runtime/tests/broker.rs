//! The local broker, with real processes.

#![expect(clippy::unwrap_used, reason = "a test that panics says why")]

use std::{
    env, fs,
    io::{BufRead, BufReader as StdBufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use runtime::{Auth, BrokerError, BrokerOptions, LocalBroker, Unusable};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{interval, timeout},
};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Longer than a keeper waits for a server that does not listen.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_client_with_the_token_gets_in_and_one_without_does_not() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let settings = broker.connect_settings();
    assert_eq!(settings.servers, [broker.url()]);
    assert_eq!(token(&broker).len(), 64);

    Client::connect(&broker).await?;
    let refused = Client::connect_as(&broker, "guess").await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("Authorization Violation"), "{refused}");
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn many_roots_fit_whatever_the_free_disk_is() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    for number in 0..64 {
        broker.connect_settings().make_streams(&format!("r{number}").parse()?).await?;
    }
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_token_is_in_one_private_file_and_nowhere_else() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let run = run_dir(&broker);
    let mode = |path: &Path| path.metadata().map(|meta| meta.permissions().mode() & 0o777);
    assert_eq!(mode(&run)?, 0o700);
    assert_eq!(mode(&broker.token_file())?, 0o600);
    assert_eq!(mode(&run.join("nats-server.conf"))?, 0o600);

    let token = token(&broker);
    let with_token: Vec<_> = files_below(&run)
        .into_iter()
        .filter(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).contains(&token))
        .collect();
    assert_eq!(with_token, [broker.token_file()]);
    for process in [server_pid(&run), parent(server_pid(&run))] {
        let spoken = output("ps", &["-ww", "-o", "args=", "-p", &process.to_string()]);
        assert!(!spoken.is_empty() && !spoken.contains(&token), "{spoken}");
    }
    assert!(!format!("{broker:?} {:?}", broker.connect_settings()).contains(&token));
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_stopped_broker_leaves_nothing() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let trace = Trace::of(&broker);
    assert_eq!(parent(trace.keeper), std::process::id(), "nothing else is between");
    broker.stop().await;
    trace.assert_gone();
    Ok(())
}

#[tokio::test]
async fn a_dropped_broker_leaves_nothing() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let trace = Trace::of(&broker);
    drop(broker);
    trace.assert_gone();
    Ok(())
}

#[tokio::test]
async fn a_broker_whose_start_is_abandoned_leaves_nothing() -> TestResult {
    let dir = tempfile::tempdir()?;
    let real = LocalBroker::find(&BrokerOptions::default()).await?;
    let waits = format!(
        r#"[ "$1" = --version ] && exec {} --version; echo $$ >"$(dirname "$0")/pid"; exec sleep 100"#,
        real.display()
    );
    let server = script(dir.path(), &waits);
    let options = BrokerOptions { server: Some(server), ..Default::default() };
    let mut start = Box::pin(LocalBroker::start(options));
    let pid_file = dir.path().join("pid");
    tokio::select! {
        started = &mut start => panic!("it started: {started:?}"),
        () = eventually(|| pid_in(&pid_file).is_some()) => {}
    }
    let pid = pid_in(&pid_file).unwrap();
    drop(start);
    assert!(!runs(pid));
    Ok(())
}

/// Not a test of its own: the next one starts it in a process that it can kill.
#[tokio::test]
#[ignore = "is run by another test"]
async fn owner() -> TestResult {
    if env::var_os("JMP_TEST_OWNER").is_some() {
        let broker = LocalBroker::start(BrokerOptions::default()).await?;
        eprintln!("run={}", run_dir(&broker).display());
        std::future::pending::<()>().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_whose_owner_was_killed_ends_by_itself() -> TestResult {
    let (mut owner, run) = spawn_owner();
    let trace = Trace::of_dir(&run);
    assert!(runs(trace.server));
    owner.kill()?;
    owner.wait()?;
    eventually(|| trace.is_gone()).await;
    Ok(())
}

#[tokio::test]
async fn a_broker_ends_when_its_keeper_is_told_to_stop() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let trace = Trace::of(&broker);
    signal("TERM", trace.keeper);
    eventually(|| trace.is_gone()).await;
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_broker_ends_when_its_keeper_is_killed() -> TestResult {
    let broker = LocalBroker::start(BrokerOptions::default()).await?;
    let trace = Trace::of(&broker);
    signal("KILL", trace.keeper);
    eventually(|| !runs(trace.server)).await;
    broker.stop().await;
    trace.assert_gone();
    Ok(())
}

#[tokio::test]
async fn a_killed_broker_starts_again_as_it_was() -> TestResult {
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let (url, token_before, first) = (broker.url(), token(&broker), Trace::of(&broker));
    Client::connect(&broker).await?.create_stream("KEPT").await?;

    broker.kill().await;
    assert!(!runs(first.server) && !runs(first.keeper));
    assert!(Client::connect(&broker).await.is_err());

    broker.start_again().await?;
    assert_eq!((broker.url(), token(&broker)), (url, token_before));
    assert_ne!(Trace::of(&broker).server, first.server);
    assert!(Client::connect(&broker).await?.has_stream("KEPT").await?);
    broker.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_named_store_outlives_its_broker() -> TestResult {
    let store = tempfile::tempdir()?;
    let options = BrokerOptions { store: Some(store.path().into()), ..Default::default() };
    let first = LocalBroker::start(options.clone()).await?;
    Client::connect(&first).await?.create_stream("KEPT").await?;
    let trace = Trace::of(&first);
    first.stop().await;
    trace.assert_gone();

    let second = LocalBroker::start(options).await?;
    assert!(Client::connect(&second).await?.has_stream("KEPT").await?);
    second.stop().await;
    Ok(())
}

#[tokio::test]
async fn two_brokers_do_not_share_a_store() -> TestResult {
    let store = tempfile::tempdir()?;
    let options = BrokerOptions { store: Some(store.path().into()), ..Default::default() };
    let first = LocalBroker::start(options.clone()).await?;
    let refused = LocalBroker::start(options).await.unwrap_err();
    assert!(matches!(refused, BrokerError::StoreInUse { .. }), "{refused}");
    first.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_end_of_one_broker_does_not_disturb_another() -> TestResult {
    let one = LocalBroker::start(BrokerOptions::default()).await?;
    let mut other = LocalBroker::start(BrokerOptions::default()).await?;
    assert_ne!(one.url(), other.url());
    let mut client = Client::connect(&one).await?;
    client.create_stream("MINE").await?;
    assert!(!Client::connect(&other).await?.has_stream("MINE").await?);
    assert!(Client::connect_as(&other, &token(&one)).await.is_err());

    other.kill().await;
    drop(other);
    assert!(client.has_stream("MINE").await?);
    one.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_reported_at_once() -> TestResult {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = Some(taken.local_addr()?.port());
    let start = LocalBroker::start(BrokerOptions { port, ..Default::default() });
    let refused = timeout(PATIENCE, start).await?.unwrap_err();
    assert!(matches!(refused, BrokerError::Ended { .. }), "{refused}");
    assert!(refused.to_string().contains("address already in use"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_server_behind_a_script_that_waits_for_it_ends_with_its_broker() -> TestResult {
    let dir = tempfile::tempdir()?;
    let real = LocalBroker::find(&BrokerOptions::default()).await?;
    let server = script(dir.path(), &format!(r#"{} "$@"; exit $?"#, real.display()));
    let options = BrokerOptions { server: Some(server), ..Default::default() };

    let stopped = LocalBroker::start(options.clone()).await?;
    let trace = Trace::of(&stopped);
    assert_ne!(parent(trace.keeper), std::process::id(), "the script is between");
    stopped.stop().await;
    eventually(|| trace.is_gone()).await;

    let mut killed = LocalBroker::start(options).await?;
    let server = server_pid(&run_dir(&killed));
    killed.kill().await;
    eventually(|| !runs(server)).await;
    Ok(())
}

#[tokio::test]
async fn a_named_server_must_be_there_and_new_enough() -> TestResult {
    let dir = tempfile::tempdir()?;
    let start = |server: PathBuf| {
        LocalBroker::start(BrokerOptions { server: Some(server), ..Default::default() })
    };
    let missing = start(dir.path().join("none")).await.unwrap_err();
    assert!(matches!(missing, BrokerError::Named { why: Unusable::Missing { .. } }), "{missing}");

    let old = script(dir.path(), "echo nats-server: v2.10.29");
    let refused = start(old).await.unwrap_err();
    assert!(matches!(refused, BrokerError::Named { why: Unusable::TooOld { .. } }), "{refused}");
    Ok(())
}

#[tokio::test]
async fn the_shared_broker_is_one() -> TestResult {
    let (one, other) = tokio::join!(LocalBroker::shared(), LocalBroker::shared());
    assert!(std::ptr::eq(one?, other?));
    Ok(())
}

/// What a broker has on this machine.
struct Trace {
    server: u32,
    /// The parent of the server.
    keeper: u32,
    run: PathBuf,
}

impl Trace {
    fn of(broker: &LocalBroker) -> Self {
        Self::of_dir(&run_dir(broker))
    }

    fn of_dir(run: &Path) -> Self {
        let server = server_pid(run);
        Self { server, keeper: parent(server), run: run.to_owned() }
    }

    fn is_gone(&self) -> bool {
        !runs(self.server) && !self.run.exists() && !runs(self.keeper)
    }

    fn assert_gone(&self) {
        assert!(!runs(self.server), "the server runs");
        assert!(!self.run.exists(), "the run directory is there");
        assert!(!is_listed(self.keeper), "the keeper runs, or is a zombie");
    }
}

/// Just enough of a NATS client: the runtime's own is not what is tested here.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    async fn connect(broker: &LocalBroker) -> std::io::Result<Self> {
        Self::connect_as(broker, &token(broker)).await
    }

    async fn connect_as(broker: &LocalBroker, token: &str) -> std::io::Result<Self> {
        let address = broker.url().replace("nats://", "");
        let mut client = Self { stream: BufReader::new(TcpStream::connect(address).await?) };
        client.line().await?; // INFO
        // In one go: the server hangs up on a wrong token, and a later write would fail.
        let connect = format!("CONNECT {{\"auth_token\":\"{token}\",\"verbose\":false}}");
        client.say(&format!("{connect}\r\nSUB answer 1\r\nPING")).await?;
        match client.line().await?.as_str() {
            "PONG" => Ok(client),
            other => Err(std::io::Error::other(other.to_owned())),
        }
    }

    async fn create_stream(&mut self, name: &str) -> std::io::Result<()> {
        let config = format!("{{\"name\":\"{name}\",\"subjects\":[\"{name}.>\"]}}");
        let answer = self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &config).await?;
        assert!(!answer.contains("error"), "{answer}");
        Ok(())
    }

    async fn has_stream(&mut self, name: &str) -> std::io::Result<bool> {
        let answer = self.ask(&format!("$JS.API.STREAM.INFO.{name}"), "").await?;
        Ok(!answer.contains("error"))
    }

    async fn ask(&mut self, subject: &str, body: &str) -> std::io::Result<String> {
        self.say(&format!("PUB {subject} answer {}\r\n{body}", body.len())).await?;
        while !self.line().await?.starts_with("MSG answer") {}
        self.line().await
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }
}

/// Starts [`owner`] in a process of its own, and says where its broker runs.
fn spawn_owner() -> (Child, PathBuf) {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["owner", "--exact", "--ignored", "--nocapture"])
        .env("JMP_TEST_OWNER", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = StdBufReader::new(owner.stderr.take().unwrap()).lines();
    let run = lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("run=")?.into()));
    (owner, run.expect("the owner says where its broker runs"))
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    let wait = async {
        let mut ticks = interval(Duration::from_millis(10));
        while !condition() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it happens in time");
}

fn token(broker: &LocalBroker) -> String {
    let Auth::Token(token) = broker.connect_settings().auth else { panic!("no token") };
    let file = fs::read_to_string(broker.token_file()).unwrap();
    assert_eq!(file, format!("token: \"{}\"\n", token.expose()));
    token.expose().to_owned()
}

fn run_dir(broker: &LocalBroker) -> PathBuf {
    broker.token_file().parent().unwrap().to_owned()
}

fn server_pid(run: &Path) -> u32 {
    pid_in(&run.join("pid")).expect("the server wrote its process id")
}

fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn parent(pid: u32) -> u32 {
    output("ps", &["-o", "ppid=", "-p", &pid.to_string()]).trim().parse().unwrap()
}

/// Whether a process runs: one that has ended but is nobody's child in a container does not.
fn runs(pid: u32) -> bool {
    let state = output("ps", &["-o", "stat=", "-p", &pid.to_string()]);
    !state.trim().is_empty() && !state.trim().starts_with('Z')
}

fn is_listed(pid: u32) -> bool {
    !output("ps", &["-o", "stat=", "-p", &pid.to_string()]).trim().is_empty()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Writes an executable script. A shell writes it, as a file that a forked process still has open
/// for writing cannot be run.
fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("nats-server-script");
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2""#;
    let status = Command::new("sh").args(["-c", write, "sh", body]).arg(&path).status().unwrap();
    assert!(status.success());
    path
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
