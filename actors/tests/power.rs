//! What every power switch does, whatever is behind it, over the bus.

use std::{path::Path, sync::Arc, time::Duration};

use actors::{
    CaptureConfig, CommandPower, CommandPowerConfig, ConsoleClient, FakePower, FakePowerClient,
    FakePowerConfig, PowerClient, PowerReading, PowerSwitch, ProcessPower, ProcessPowerClient,
    ProcessPowerConfig,
};
use anyhow::{Context as _, Error, Result};
use bus_schema::{Args, Interface, RawContext, RawItems, RawPipe, Serve, Serving};
use runtime::{CallError, DriverRef, ItemStream, Node, Served, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn served(node: impl Into<Node>) -> Result<Served> {
    serve(node).await.map_err(Error::from_boxed)
}

fn words(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn fake() -> Node {
    FakePower::new(FakePowerConfig { read_every: OFTEN, ..FakePowerConfig::default() }).into()
}

fn process(script: &str) -> ProcessPowerConfig {
    ProcessPowerConfig {
        command: words(script),
        cwd: None,
        env: [("BOARD".to_owned(), "7".to_owned())].into(),
        stop_grace: Duration::from_secs(2),
        pty: false,
        capture: CaptureConfig::default(),
        read_every: OFTEN,
    }
}

/// A relay that is a file.
fn command(dir: &Path) -> CommandPowerConfig {
    CommandPowerConfig {
        on: words("echo 5 0.5 >relay"),
        off: words("echo 0 0 >relay"),
        cycle: None,
        read: Some(words("cat relay 2>/dev/null || echo 0 0")),
        read_every: OFTEN,
        timeout: Duration::from_secs(20),
        cwd: Some(dir.to_owned()),
        env: [].into(),
    }
}

const OFTEN: Duration = Duration::from_millis(20);

/// Waits for a reading.
async fn until(items: &mut ItemStream<PowerReading>, is_on: bool) -> Result<()> {
    loop {
        let reading = items.next().await.context("the readings ended")??;
        if (reading.voltage > 0.0) == is_on {
            return Ok(());
        }
    }
}

/// The contract.
async fn is_a_power_switch(node: Node) -> Result<()> {
    let served = served(node).await?;
    let power = PowerClient::new(served.driver());
    let mut readings = power.read().await?;
    until(&mut readings, false).await?;

    power.off().await?; // off already
    power.on().await?;
    power.on().await?; // on already
    until(&mut readings, true).await?; // and the open reading kept nobody from switching
    power.off().await?;
    until(&mut readings, false).await?;
    power.cycle(Duration::from_millis(1)).await?;
    until(&mut readings, true).await?;

    drop(readings);
    power.off().await?;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_fake_is_a_power_switch() -> Result<()> {
    is_a_power_switch(fake()).await
}

#[tokio::test]
async fn a_process_is_a_power_switch() -> Result<()> {
    is_a_power_switch(ProcessPower::node(process("sleep 1000 & wait"))).await
}

#[tokio::test]
async fn a_set_of_commands_is_a_power_switch() -> Result<()> {
    let dir = TempDir::new()?;
    is_a_power_switch(CommandPower::new(command(dir.path()))?.into()).await
}

#[tokio::test]
async fn a_fake_remembers_what_it_was_told() -> Result<()> {
    let served = served(fake()).await?;
    let power = PowerClient::new(served.driver());
    power.on().await?;
    power.cycle(Duration::ZERO).await?;
    let fake = FakePowerClient::new(served.driver());
    let told: Vec<_> = fake.history().await?.iter().map(|event| event.what).collect();
    assert_eq!(told, [PowerSwitch::On, PowerSwitch::Off, PowerSwitch::On]);
    fake.forget().await?;
    assert_eq!(fake.history().await?, []);
    served.shutdown().await?;
    Ok(())
}

fn fault(error: CallError) -> String {
    match error {
        CallError::Fault { fault, .. } => fault.text,
        other => panic!("no fault: {other}"),
    }
}

#[tokio::test]
async fn the_output_of_a_command_that_fails_is_in_the_fault() -> Result<()> {
    let dir = TempDir::new()?;
    let config = CommandPowerConfig { on: words("echo stuck >&2; exit 9"), ..command(dir.path()) };
    let served = served(CommandPower::new(config)?).await?;
    let said = fault(PowerClient::new(served.driver()).on().await.unwrap_err());
    assert!(said.ends_with("exit code 9: stuck"), "{said}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_cycle_of_its_own_gets_the_time_between() -> Result<()> {
    let dir = TempDir::new()?;
    let cycle = [words("echo \"$1\" >cycled"), vec!["cycle".to_owned()]].concat();
    let config = CommandPowerConfig { cycle: Some(cycle), ..command(dir.path()) };
    let served = served(CommandPower::new(config)?).await?;
    PowerClient::new(served.driver()).cycle(Duration::from_millis(1500)).await?;
    assert_eq!(std::fs::read_to_string(dir.path().join("cycled"))?, "1.5\n");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_reading_that_is_none_is_quoted() -> Result<()> {
    let dir = TempDir::new()?;
    let config = CommandPowerConfig { read: Some(words("echo lots")), ..command(dir.path()) };
    let served = served(CommandPower::new(config)?).await?;
    let mut readings = PowerClient::new(served.driver()).read().await?;
    let said = readings.next().await.context("an item or its fault")?.unwrap_err();
    assert!(fault(said).ends_with("it printed \"lots\""));
    served.shutdown().await?;
    Ok(())
}

fn processes(driver: DriverRef) -> (PowerClient<DriverRef>, ProcessPowerClient<DriverRef>) {
    (PowerClient::new(driver.clone()), ProcessPowerClient::new(driver))
}

#[tokio::test]
async fn a_process_that_dies_is_noticed_and_can_be_switched_on_again() -> Result<()> {
    let dir = TempDir::new()?;
    let script = "test -e ran && exec sleep 1000; touch ran; echo out of memory >&2; exit 3";
    let config = ProcessPowerConfig { cwd: Some(dir.path().to_owned()), ..process(script) };
    let served = served(ProcessPower::node(config)).await?;
    let (power, process) = processes(served.driver());
    power.on().await?;
    let mut readings = power.read().await?;
    until(&mut readings, false).await?;
    let status = process.status().await?;
    assert_eq!(status.died.as_deref(), Some("exit code 3: out of memory"));

    power.on().await?;
    until(&mut readings, true).await?;
    assert!(process.status().await?.running);
    drop(readings);
    served.shutdown().await?;
    Ok(())
}

/// Whether a process runs, as its number tells.
fn runs(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn off_ends_all_of_a_board_that_ignores_it() -> Result<()> {
    let dir = TempDir::new()?;
    let script =
        "trap '' TERM; (trap '' TERM; echo $BOARD >board; sleep 1000 & echo $! >pid; wait) & wait";
    let config = ProcessPowerConfig {
        cwd: Some(dir.path().to_owned()),
        stop_grace: Duration::from_millis(100),
        ..process(script)
    };
    let served = served(ProcessPower::node(config)).await?;
    let (power, _) = processes(served.driver());
    power.on().await?;
    let pid: i32 = written(&dir.path().join("pid")).await?.trim().parse()?;
    assert_eq!(std::fs::read_to_string(dir.path().join("board"))?, "7\n");
    assert!(runs(pid));
    power.off().await?;
    until_gone(pid).await;
    served.shutdown().await?;
    Ok(())
}

/// The first line of a file that somebody is about to write.
async fn written(path: &Path) -> Result<String> {
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return Ok(text),
            _ => tokio::task::yield_now().await,
        }
    }
}

async fn until_gone(id: i32) {
    while runs(id) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_board_ends_with_its_exporter() -> Result<()> {
    let dir = TempDir::new()?;
    let config = ProcessPowerConfig {
        cwd: Some(dir.path().to_owned()),
        ..process("sleep 1000 & echo $! >pid; wait")
    };
    let served = served(ProcessPower::node(config)).await?;
    PowerClient::new(served.driver()).on().await?;
    let pid: i32 = written(&dir.path().join("pid")).await?.trim().parse()?;
    served.shutdown().await?;
    until_gone(pid).await;
    Ok(())
}

#[tokio::test]
async fn a_board_with_a_terminal_is_typed_at_watched_and_replayed() -> Result<()> {
    let config = ProcessPowerConfig {
        command: ["sh", "-i"].map(str::to_owned).to_vec(),
        pty: true,
        env: [("PS1".to_owned(), "board> ".to_owned())].into(),
        ..process("")
    };
    let served = served(ProcessPower::node(config)).await?;
    let (power, console) = (PowerClient::new(served.driver()), served.child("console"));
    let mut typist = Console(open(&console, "connect").await?);
    let mut watcher = Console(open(&console, "watch").await?);
    power.on().await?;
    typist.hear("board> ").await?;
    typist.0.write_all(b"tty >/dev/null && echo $((6*7))\n").await?;
    typist.hear("\n42\r\n").await?;
    watcher.hear("\n42\r\n").await?;

    let mut second = open(&console, "connect").await?;
    let said = second.read_to_end(&mut Vec::new()).await.unwrap_err().to_string();
    assert!(said.contains("busy: tester has been its writer for"), "{said}");

    // A job of its own group, which outlives a shell that is hung up.
    let job = "(trap '' HUP TERM; exec sleep 1000) & echo pid\"=\"$!\"_\"done\n";
    typist.0.write_all(job.as_bytes()).await?;
    let heard = typist.hear("_done").await?;
    let (_, pid) = heard.split_once("pid=").context("a number")?;
    let pid: i32 = pid.split('_').next().unwrap_or_default().parse()?;
    assert!(runs(pid));
    power.off().await?;
    until_gone(pid).await;
    power.on().await?;
    typist.hear("board> ").await?; // the console outlives the board

    // Whoever comes late reads it from the beginning.
    let mut items = ConsoleClient::new(console).capture(0, false).await?;
    let mut said = Vec::new();
    while let Some(item) = items.next().await {
        let item = item?;
        assert_eq!(item.at, said.len() as u64);
        said.extend_from_slice(&item.data);
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.starts_with("board> ") && said.contains("\n42\r\n"), "{said}");
    served.shutdown().await?;
    Ok(())
}

async fn open(console: &DriverRef, method: &'static str) -> Result<runtime::ByteStream> {
    use bus_schema::{Invoke as _, Outgoing};
    Ok(console.stream(Outgoing::new(method, None, &[(); 0])).await?)
}

struct Console(runtime::ByteStream);

impl Console {
    /// Reads until `text` was said.
    async fn hear(&mut self, text: &str) -> Result<String> {
        let mut heard = Vec::new();
        let mut buf = [0; 1024];
        while !String::from_utf8_lossy(&heard).contains(text) {
            let read = self.0.read(&mut buf).await?;
            anyhow::ensure!(read > 0, "the console ended after {heard:?}");
            heard.extend_from_slice(&buf[..read]);
        }
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }
}

/// A power switch with a bug in `forget`.
struct Brittle(Arc<FakePower>);

impl Serve for Brittle {
    fn interfaces(&self) -> Vec<Arc<Interface>> {
        self.0.interfaces()
    }

    fn call(self: Arc<Self>, cx: RawContext, method: &str, args: Args) -> Serving<Vec<u8>> {
        match method {
            "forget" => Box::pin(async { panic!("a bug") }),
            _ => Serve::call(self.0.clone(), cx, method, args),
        }
    }

    fn streaming_call(
        self: Arc<Self>,
        cx: RawContext,
        method: &str,
        args: Args,
        items: RawItems,
    ) -> Serving<()> {
        Serve::streaming_call(self.0.clone(), cx, method, args, items)
    }

    fn stream(
        self: Arc<Self>,
        cx: RawContext,
        method: &str,
        args: Args,
        pipe: RawPipe,
    ) -> Serving<()> {
        Serve::stream(self.0.clone(), cx, method, args, pipe)
    }

    fn safe(self: Arc<Self>, cx: RawContext) -> Option<Serving<()>> {
        Serve::safe(self.0.clone(), cx)
    }
}

#[tokio::test]
async fn a_device_is_off_after_its_driver_crashed() -> Result<()> {
    let served = served(Brittle(Arc::new(FakePower::default()))).await?;
    let fake = FakePowerClient::new(served.driver());
    PowerClient::new(served.driver()).on().await?;
    let crash = fake.forget().await.unwrap_err();
    assert!(fault(crash).contains("a bug"));
    let events = loop {
        match fake.history().await {
            Ok(events) if events.len() > 1 => break events,
            Ok(_) | Err(CallError::Refused { .. }) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    };
    assert_eq!(events[1].what, PowerSwitch::Safe);
    served.shutdown().await?;
    Ok(())
}
