//! What hangs below a virtual machine.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus_schema::{Fault, FaultKind, Value, driver};
use runtime::{ByteStream, Context, Items};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::TcpStream,
    sync::Mutex,
    time::sleep,
};

use super::machine::Machine;
use crate::{
    CaptureConfig, ConsoleInterface, Network, NetworkInterface, Power, PowerInterface,
    PowerReading,
    console::{CurrentOpener, HasPort, Port},
    process::processor_time,
};

/// What a reading shows of a machine that is on: there is no meter to read it from.
const VOLTS: f64 = 5.0;
/// How often a reading is sent.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The power switch.
pub(super) struct MachinePower(pub(super) Arc<Machine>);

impl Power for MachinePower {
    async fn on(&self) -> Result<(), Fault> {
        self.0.on().await
    }

    async fn off(&self) -> Result<(), Fault> {
        self.0.off().await
    }

    async fn read(&self, cx: &Context, items: Items<PowerReading>) -> Result<(), Fault> {
        let mut last = self.processor().await;
        items.send(reading(None, last)).await?;
        loop {
            tokio::select! {
                biased;
                () = cx.cancelled() => return Ok(()),
                () = sleep(READ_EVERY) => {}
            }
            let now = self.processor().await;
            items.send(reading(last, now)).await?;
            last = now;
        }
    }
}

#[driver(Power, name = "qemu-power")]
impl MachinePower {
    /// A machine that nobody uses is off: an idle U-Boot keeps a processor busy.
    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.0.off().await
    }
}

/// Processor time used up to a moment, of a machine that is on.
type Used = Option<(Instant, Duration)>;

impl MachinePower {
    async fn processor(&self) -> Used {
        let process = self.0.process().await?;
        Some((Instant::now(), processor_time(process).unwrap_or_default()))
    }
}

/// 5 V while the machine is on, and an ampere for each processor of the host that it keeps busy.
fn reading(last: Used, now: Used) -> PowerReading {
    let current = match (last, now) {
        (Some((then, before)), Some((at, used))) if at > then => {
            used.saturating_sub(before).as_secs_f64() / (at - then).as_secs_f64()
        }
        _ => 0.0,
    };
    PowerReading { voltage: if now.is_some() { VOLTS } else { 0.0 }, current }
}

/// The serial console. It is there while the machine is off, too.
pub(super) struct MachineConsole(Port);

impl MachineConsole {
    pub(super) async fn start(machine: &Machine, capture: &CaptureConfig) -> Result<Self, Fault> {
        Ok(Self(Port::start(CurrentOpener(machine.line()), true, capture).await?))
    }
}

impl HasPort for MachineConsole {
    fn port(&self) -> &Port {
        &self.0
    }
}

#[driver(Console, name = "qemu-console")]
impl MachineConsole {}

/// The screen: the RFB protocol.
pub(super) struct Vnc(pub(super) Arc<Machine>);

impl Network for Vnc {
    async fn connect(&self, _: &Context, stream: ByteStream) -> Result<(), Fault> {
        carry(stream, self.0.socket("vnc.sock").await).await
    }
}

#[driver(Network, name = "qemu-vnc")]
impl Vnc {}

/// A TCP port of the machine.
pub(super) struct Forward {
    pub(super) machine: Arc<Machine>,
    pub(super) name: String,
}

impl Network for Forward {
    async fn connect(&self, _: &Context, stream: ByteStream) -> Result<(), Fault> {
        let connect = async {
            let port = self.machine.port(&self.name).await?;
            let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
            tcp.set_nodelay(true)?;
            Ok(tcp)
        };
        carry(stream, connect.await).await
    }

    async fn address(&self) -> Result<String, Fault> {
        let port = self.machine.port(&self.name).await?;
        Ok(format!("tcp://127.0.0.1:{port}"))
    }
}

#[driver(Network, name = "qemu-forward")]
impl Forward {}

/// The driver of QEMU's own monitor.
#[derive(Debug)]
pub struct QemuMonitor {
    machine: Arc<Machine>,
    /// QEMU talks to one at a time and lets others wait without a word.
    socket: Mutex<()>,
}

impl QemuMonitor {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self { machine, socket: Mutex::new(()) }
    }
}

#[driver(name = "qemu-monitor")]
impl QemuMonitor {
    /// Runs one command of QMP: `query-status`, `screendump` …
    #[export]
    async fn qmp(
        &self,
        command: String,
        /// Its arguments, an object.
        #[default(None)]
        arguments: Option<Value>,
    ) -> Result<Value, Fault> {
        let arguments = arguments.map(serde_json::to_value).transpose();
        let arguments = arguments.map_err(Fault::argument)?;
        let answer = self.machine.qmp(&command, arguments).await?;
        serde_json::from_value(answer).map_err(Fault::device)
    }

    /// Connects to the monitor, which begins with its greeting. One client at a time.
    #[export]
    async fn connect(&self, _: &Context, stream: ByteStream) -> Result<(), Fault> {
        let Ok(_mine) = self.socket.try_lock() else {
            let busy = Fault::new(FaultKind::Busy, "somebody else is connected to the monitor");
            return carry(stream, Err::<TcpStream, _>(busy)).await;
        };
        carry(stream, self.machine.socket("monitor.sock").await).await
    }
}

/// Carries bytes both ways, or tells why there is nowhere to carry them.
async fn carry(
    mut stream: ByteStream,
    socket: Result<impl AsyncRead + AsyncWrite + Unpin, Fault>,
) -> Result<(), Fault> {
    let carried = match socket {
        Ok(mut socket) => {
            copy_bidirectional(&mut stream, &mut socket).await.map(drop).map_err(Fault::from)
        }
        Err(fault) => Err(fault),
    };
    // Dropped before the method has returned, the stream would be cut off without the reason.
    carried.inspect_err(|why| stream.reset(why))
}
