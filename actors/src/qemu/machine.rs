//! One virtual machine, on and off.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{Fault, FaultKind};
use runtime::ScratchDir;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{UnixListener, UnixStream},
    process::{Child, ChildStdin, Command},
    sync::{Mutex as AsyncMutex, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Accel, QemuConfig, command, qmp::Qmp};
use crate::console::Current;

const KEEPER: &str = include_str!("keeper.sh");
/// How long QEMU has to come up: it takes 0.1 s on a machine with nothing else to do.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long QEMU has to quit before it is killed.
const QUIT_WITHIN: Duration = Duration::from_secs(5);
/// How long a KVM guest is looked at before it counts as running.
const KVM_PROBE: Duration = Duration::from_millis(500);
/// Longest path of a Unix socket, without the longest name of one of ours.
const RUN_PATH_MAX: usize = 107 - "/monitor.sock".len();
/// What is kept of QEMU's messages.
const SAID_BYTES_MAX: usize = 2048;

/// A virtual machine, which its drivers share.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) config: QemuConfig,
    /// What clients have set for the next run.
    sizes: Mutex<Sizes>,
    run: AsyncMutex<Option<Run>>,
    console: watch::Sender<Option<Arc<UnixStream>>>,
}

/// Sizes in QEMU's words.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) memory: String,
    pub(super) disk: Option<String>,
}

/// One run of QEMU. Dropping it kills QEMU.
#[derive(Debug)]
struct Run {
    /// The keeper kills everything when this is closed, by whomever.
    orders: ChildStdin,
    /// How QEMU ended, once it has.
    ended: watch::Receiver<Option<String>>,
    qmp: Qmp<UnixStream>,
    ports: BTreeMap<String, u16>,
    dir: ScratchDir,
    /// Reaps the keeper.
    _tasks: JoinSet<()>,
}

impl Machine {
    pub(super) fn new(config: QemuConfig) -> Self {
        let sizes = Sizes { memory: config.mem.clone(), disk: config.disk_size.clone() };
        Self {
            config,
            sizes: Mutex::new(sizes),
            run: AsyncMutex::new(None),
            console: watch::Sender::new(None),
        }
    }

    /// The serial line.
    pub(super) fn line(&self) -> Current<UnixStream> {
        self.console.subscribe()
    }

    /// Changes a size for the next run.
    pub(super) fn resize(&self, change: impl FnOnce(&mut Sizes)) {
        change(&mut self.sizes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Starts it, if it does not run.
    pub(super) async fn on(&self) -> Result<(), Fault> {
        let mut run = self.run.lock().await;
        if run.as_ref().is_some_and(Run::is_on) {
            return Ok(());
        }
        *run = None;
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *run = Some(Run::start(&self.config, &sizes, &self.console).await?);
        Ok(())
    }

    /// Ends it, if it runs.
    pub(super) async fn off(&self) -> Result<(), Fault> {
        let mut run = self.run.lock().await;
        match run.take() {
            Some(run) => run.stop().await,
            None => Ok(()),
        }
    }

    /// The process that is the machine, while it is on.
    pub(super) async fn process(&self) -> Option<u32> {
        let run = self.run.lock().await;
        let run = run.as_ref().filter(|run| run.is_on())?;
        std::fs::read_to_string(run.dir.path().join("pid")).ok()?.trim().parse().ok()
    }

    /// Tells QEMU something.
    pub(super) async fn qmp(&self, command: &str, arguments: Option<Json>) -> Result<Json, Fault> {
        let mut run = self.run.lock().await;
        on(run.as_mut())?.qmp.execute(command, arguments).await
    }

    /// Connects to one of QEMU's sockets.
    pub(super) async fn socket(&self, name: &str) -> Result<UnixStream, Fault> {
        let mut run = self.run.lock().await;
        Ok(UnixStream::connect(on(run.as_mut())?.dir.path().join(name)).await?)
    }

    /// The host's port that leads to a port of the machine.
    pub(super) async fn port(&self, name: &str) -> Result<u16, Fault> {
        let mut run = self.run.lock().await;
        let port = on(run.as_mut())?.ports.get(name).copied();
        port.ok_or_else(|| Fault::device(format_args!("QEMU does not forward the port {name}")))
    }
}

fn on(run: Option<&mut Run>) -> Result<&mut Run, Fault> {
    run.filter(|run| run.is_on())
        .ok_or_else(|| Fault::new(FaultKind::Unreachable, "the machine is off: switch it on first"))
}

impl Run {
    async fn start(
        config: &QemuConfig,
        sizes: &Sizes,
        console: &watch::Sender<Option<Arc<UnixStream>>>,
    ) -> Result<Self, Fault> {
        if config.accel == Accel::Kvm {
            kvm_opens()?;
        }
        command::resize_disk(config, sizes)?;
        let dir = ScratchDir::short("qemu", RUN_PATH_MAX)?;
        let line_in = UnixListener::bind(dir.path().join("console.sock"))?;
        let qmp_in = UnixListener::bind(dir.path().join("qmp.sock"))?;
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER, "jmp-bus-qemu"]).arg(dir.path());
        keeper.args(command::words(config, sizes, dir.path())).process_group(0);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = keeper.spawn()?;
        let orders = child.stdin.take().expect("standard input is piped");
        let (tell, mut ended) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(reap(child, tell));

        let connect = async {
            let (line, _) = line_in.accept().await?;
            let (socket, _) = qmp_in.accept().await?;
            let mut qmp = Qmp::greet(socket).await?;
            let ports = forwarded(config, &mut qmp).await?;
            if config.accel == Accel::Kvm {
                guest_runs(&mut qmp).await?;
            }
            Ok::<_, Fault>((line, qmp, ports))
        };
        let connected = tokio::select! {
            connected = timeout(START_WITHIN, connect) => connected.unwrap_or_else(|_| {
                Err(Fault::timeout(format_args!("QEMU did not come up within {START_WITHIN:?}")))
            }),
            () = has_ended(&mut ended) => Err(Fault::new(FaultKind::Unreachable, "")),
        };
        let (line, qmp, ports) = match connected {
            Ok(connected) => connected,
            // It has hung up: then it ends, and that says more.
            Err(fault) if fault.kind == FaultKind::Unreachable => {
                let _ = timeout(QUIT_WITHIN, has_ended(&mut ended)).await;
                let how = ended.borrow().clone().unwrap_or(fault.text);
                return Err(Fault::device(format_args!("QEMU does not start: {how}")));
            }
            Err(fault) => return Err(fault),
        };
        console.send_replace(Some(Arc::new(line)));
        Ok(Self { orders, ended, qmp, ports, dir, _tasks: tasks })
    }

    fn is_on(&self) -> bool {
        self.ended.borrow().is_none()
    }

    async fn stop(mut self) -> Result<(), Fault> {
        if self.is_on() {
            // An error means that it ends, or has to be killed.
            let _ = timeout(QUIT_WITHIN, self.qmp.execute("quit", None)).await;
        }
        if timeout(QUIT_WITHIN, has_ended(&mut self.ended)).await.is_err() {
            drop(self.orders);
            let killed = timeout(QUIT_WITHIN, has_ended(&mut self.ended)).await;
            killed.map_err(|_| Fault::timeout("QEMU does not end, though it was killed"))?;
        }
        Ok(())
    }
}

/// Resolves when QEMU has ended. Cancel safe.
async fn has_ended(ended: &mut watch::Receiver<Option<String>>) {
    // An error means that nobody is left to tell, and that is an end, too.
    let _ = ended.wait_for(Option::is_some).await;
}

/// Waits for QEMU's end and tells how it came.
async fn reap(mut child: Child, tell: watch::Sender<Option<String>>) {
    let stderr = child.stderr.take().expect("standard error is piped");
    let said = last_words(stderr).await;
    let status = child.wait().await.map_or_else(|error| error.to_string(), |s| s.to_string());
    tell.send_replace(Some(format!("{status}: {}", said.trim())));
}

/// The end of what is said.
async fn last_words(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let mut buf = [0; 512];
    while let Ok(read @ 1..) = stderr.read(&mut buf).await {
        said.extend_from_slice(&buf[..read]);
        said.drain(..said.len().saturating_sub(SAID_BYTES_MAX));
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// The ports that the kernel has chosen, found by the guest's ports and the order of the rules.
async fn forwarded(
    config: &QemuConfig,
    qmp: &mut Qmp<UnixStream>,
) -> Result<BTreeMap<String, u16>, Fault> {
    if config.hostfwd.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ask = json!({ "command-line": "info usernet" });
    let table = qmp.execute("human-monitor-command", Some(ask)).await?;
    let table = table.as_str().unwrap_or_default();
    let port_of = |guest: u16| table.lines().find_map(|line| host_port(line, guest));
    let ports = config.hostfwd.iter();
    Ok(ports.filter_map(|(name, to)| Some((name.clone(), port_of(to.guestport)?))).collect())
}

/// The host's port in a line of QEMU's table, if it leads to the guest's port `guest`.
fn host_port(line: &str, guest: u16) -> Option<u16> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == "TCP[HOST_FORWARD]")?;
    let host = words.nth(2)?.parse().ok()?;
    (words.nth(1)?.parse() == Ok(guest)).then_some(host)
}

fn kvm_opens() -> Result<(), Fault> {
    let kvm = Path::new("/dev/kvm");
    std::fs::OpenOptions::new().read(true).write(true).open(kvm).map(drop).map_err(|error| {
        let text = format!("KVM was asked for and {}: {error}; accel: tcg works", kvm.display());
        Fault::unsupported(text)
    })
}

/// `/dev/kvm` may be there and not run guests: then the processor stops at its first step.
async fn guest_runs(qmp: &mut Qmp<UnixStream>) -> Result<(), Fault> {
    sleep(KVM_PROBE).await;
    let status = qmp.execute("query-status", None).await?;
    match status["status"].as_str() {
        Some("running") => Ok(()),
        other => {
            let text = format!(
                "KVM was asked for and its guest does not run ({}); accel: tcg works",
                other.unwrap_or("no status")
            );
            Err(Fault::unsupported(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarded_port_is_found_in_the_table_of_qemu() {
        let line =
            "  TCP[HOST_FORWARD]   9       127.0.0.1 39695       10.0.2.15    22     0     0";
        assert_eq!(host_port(line, 22), Some(39695));
        assert_eq!(host_port(line, 39695), None);
        assert_eq!(host_port("  Protocol[State]    FD  Source Address  Port", 22), None);
        let other = "  UDP[236 sec]   9       127.0.0.1 39695       10.0.2.15    22     0     0";
        assert_eq!(host_port(other, 22), None);
    }
}
