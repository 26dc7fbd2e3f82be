//! The `serial` driver over the bus, on pseudo-terminals.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use actors::{Captured, ConsoleClient, Serial, SerialClient, SerialConfig};
use anyhow::{Context as _, ensure};
use bus_schema::FaultKind;
use runtime::{ByteStream, CallError, DriverRef, Served, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_serial::{SerialPort as _, SerialStream};

/// A port with a board at its other end, that can be pulled out.
struct Bench {
    dir: TempDir,
    board: SerialStream,
    served: Served,
    console: ConsoleClient<DriverRef>,
    serial: SerialClient<DriverRef>,
}

fn plug(path: &Path) -> anyhow::Result<SerialStream> {
    let (board, port) = SerialStream::pair()?;
    symlink(port.name().context("a pseudo-terminal has a name")?, path)?;
    Ok(board)
}

async fn bench_with(memory: u64) -> anyhow::Result<Bench> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("ttyBoard");
    let board = plug(&path)?;
    let mut config = SerialConfig { url: Some(path.display().to_string()), ..Default::default() };
    config.capture.memory = memory;
    let serial = Serial::start(config).await?;
    let served = serve(serial).await.map_err(anyhow::Error::from_boxed)?;
    let console = ConsoleClient::new(served.driver());
    let serial = SerialClient::new(served.driver());
    Ok(Bench { dir, board, served, console, serial })
}

async fn bench() -> anyhow::Result<Bench> {
    bench_with(1 << 20).await
}

impl Bench {
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("ttyBoard")
    }

    /// Waits until the exporter has heard `bytes` bytes in all.
    async fn heard(&self, bytes: u64) -> anyhow::Result<()> {
        let mut captured = self.console.capture(0, true).await?;
        while let Some(item) = captured.next().await {
            let item = item?;
            if item.at + item.data.len() as u64 >= bytes {
                return Ok(());
            }
        }
        anyhow::bail!("the capture ended")
    }

    async fn close(self) -> anyhow::Result<()> {
        self.served.shutdown().await?;
        Ok(())
    }
}

async fn expect(stream: &mut ByteStream, wanted: &str) -> anyhow::Result<()> {
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).await?;
    let got = String::from_utf8_lossy(&got).into_owned();
    ensure!(got == wanted, "expected {wanted:?}, got {got:?}");
    Ok(())
}

/// Reads until `end`, which is to come.
async fn until(stream: &mut ByteStream, end: &str) -> anyhow::Result<String> {
    let mut got = Vec::new();
    while !got.ends_with(end.as_bytes()) {
        got.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&got).into_owned())
}

/// How a stream was cut off.
async fn cut(stream: &mut ByteStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect_err("the stream is cut off").to_string()
}

#[tokio::test]
async fn a_writer_writes_and_every_watcher_reads_along() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut writer = bench.console.connect(false).await?;
    let mut watchers = [bench.console.watch(None).await?, bench.console.watch(None).await?];

    writer.write_all(b"version\n").await?;
    let mut got = [0; 8];
    bench.board.read_exact(&mut got).await?;
    assert_eq!(&got, b"version\n");

    bench.board.write_all(b"U-Boot\r\n=> ").await?;
    expect(&mut writer, "U-Boot\r\n=> ").await?;
    for watcher in &mut watchers {
        expect(watcher, "U-Boot\r\n=> ").await?;
    }
    bench.close().await
}

#[tokio::test]
async fn a_second_writer_is_told_who_has_the_console() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut first = bench.console.connect(false).await?;
    let mut second = bench.console.connect(false).await?;
    let why = cut(&mut second).await;
    assert!(why.contains("busy: tester has been its writer for"), "{why}");

    bench.board.write_all(b"still here").await?;
    expect(&mut first, "still here").await?;
    bench.close().await
}

#[tokio::test]
async fn a_console_is_free_when_its_writer_has_left() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut first = bench.console.connect(false).await?;
    first.write_all(b"1").await?;
    assert_eq!(bench.board.read_u8().await?, b'1');
    drop(first);
    // The exporter hears of it in its own time.
    let _writer = loop {
        let mut next = bench.console.connect(false).await?;
        if next.write_all(b"2").await.is_err() {
            continue; // refused before the byte was written
        }
        tokio::select! {
            byte = bench.board.read_u8() => {
                assert_eq!(byte?, b'2');
                break next;
            }
            refused = next.read_u8() => assert!(refused.is_err(), "the board says nothing"),
        }
    };
    bench.close().await
}

#[tokio::test]
async fn a_console_is_taken_over_by_force() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut first = bench.console.connect(false).await?;
    let mut second = bench.console.connect(true).await?;
    let why = cut(&mut first).await;
    assert!(why.contains("tester has taken the console over by force"), "{why}");
    second.write_all(b"mine").await?;
    let mut got = [0; 4];
    bench.board.read_exact(&mut got).await?;
    assert_eq!(&got, b"mine");
    bench.close().await
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_lost_and_disturbs_nobody() -> anyhow::Result<()> {
    const BLOCK: usize = 32 << 10;
    let mut bench = bench_with(128 << 10).await?;
    let mut slow = bench.console.watch(None).await?;
    let mut fast = bench.console.watch(None).await?;
    let mut said = 0;
    // Until the slow one is behind by all that its credit and the ring hold.
    let block: Vec<u8> = (0..BLOCK).map(|at| b'a' + (at % 26) as u8).collect();
    for _ in 0..(16 << 20) / BLOCK {
        let mut got = vec![0; BLOCK];
        let (wrote, read) = tokio::join!(bench.board.write_all(&block), fast.read_exact(&mut got));
        wrote?;
        read?;
        assert!(got == block, "the fast watcher gets every byte");
        said += BLOCK as u64;
    }
    bench.board.write_all(b"END").await?;
    expect(&mut fast, "END").await?;
    let all = until(&mut slow, "END").await?;

    let (mut read, mut lost) = (0, 0);
    for (at, part) in all.split('[').enumerate() {
        let Some((note, text)) = part.split_once(']').filter(|_| at > 0) else {
            read += part.len() as u64;
            continue;
        };
        lost += note.strip_suffix(" bytes lost").context("a loss is told")?.parse::<u64>()?;
        read += text.len() as u64;
    }
    assert!(lost > 0, "16 MiB are more than anybody keeps");
    assert_eq!(read + lost, said + 3);
    bench.close().await
}

#[tokio::test]
async fn the_capture_is_read_from_any_place_with_times() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    // Nobody listens yet.
    bench.board.write_all(b"first ").await?;
    bench.heard(6).await?;
    bench.board.write_all(b"second").await?;
    bench.heard(12).await?;
    let info = bench.console.capture_info().await?;
    assert_eq!((info.start, info.end, info.bytes, info.file), (0, 12, 12, None));

    let mut items = bench.console.capture(3, false).await?;
    let mut got: Vec<Captured> = Vec::new();
    while let Some(item) = items.next().await {
        got.push(item?);
    }
    let text: Vec<u8> = got.iter().flat_map(|item| item.data.to_vec()).collect();
    assert_eq!(text, b"st second");
    assert_eq!(got[0].at, 3);
    assert!(got.windows(2).all(|pair| {
        pair[0].at + pair[0].data.len() as u64 == pair[1].at && pair[0].time <= pair[1].time
    }));
    let age = got[0].time.elapsed()?;
    assert!(age < Duration::from_secs(3600), "a time of this run: {age:?} ago");

    let mut late = bench.console.watch(Some(6)).await?;
    expect(&mut late, "second").await?;
    bench.board.write_all(b" third").await?;
    expect(&mut late, " third").await?;
    bench.close().await
}

#[tokio::test]
async fn a_port_survives_unplug_and_replug() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut watcher = bench.console.watch(None).await?;
    let mut writer = bench.console.connect(false).await?;
    bench.serial.set_baudrate(9600).await?;
    bench.board.write_all(b"before").await?;
    expect(&mut watcher, "before").await?;

    let path = bench.path();
    fs::remove_file(&path)?;
    let (other, _slot) = SerialStream::pair()?; // keeps the number from being given again
    drop(std::mem::replace(&mut bench.board, other));
    let note = until(&mut watcher, "]").await?;
    assert!(note.contains("[port lost: "), "{note}");
    let why = cut(&mut writer).await;
    assert!(why.contains("the port is not there"), "{why}");
    let fault = bench.serial.set_baudrate(9600).await.expect_err("there is no port");
    let CallError::Fault { fault, .. } = fault else { anyhow::bail!("a fault, not {fault}") };
    assert_eq!(fault.kind, FaultKind::Unreachable);
    let mut nobody = bench.console.connect(false).await?;
    let why = cut(&mut nobody).await;
    assert!(why.contains("the port is not there"), "{why}");

    bench.board = plug(&path)?;
    expect(&mut watcher, "\r\n\r\n[port back]\r\n").await?;
    assert_eq!(bench.board.baud_rate()?, 9600, "the rate is that which was set");
    bench.board.write_all(b"after").await?;
    expect(&mut watcher, "after").await?;
    let mut writer = bench.console.connect(false).await?;
    writer.write_all(b"x").await?;
    assert_eq!(bench.board.read_u8().await?, b'x');
    let mut whole = bench.console.watch(Some(0)).await?;
    expect(&mut whole, "before\r\n[port lost: ").await?;
    bench.close().await
}

#[tokio::test]
async fn the_rate_changes_and_a_terminal_has_no_modem_lines() -> anyhow::Result<()> {
    let bench = bench().await?;
    assert_eq!(bench.serial.settings().await?.baudrate, 115_200);
    bench.serial.set_baudrate(57_600).await?;
    assert_eq!(bench.board.baud_rate()?, 57_600);
    assert_eq!(bench.serial.settings().await?.baudrate, 57_600);
    bench.serial.send_break(Duration::from_millis(1)).await?;

    let refused = [
        (bench.serial.set_dtr(true).await, FaultKind::Unsupported, "no line DTR"),
        (bench.serial.set_rts(false).await, FaultKind::Unsupported, "no line RTS"),
        (bench.serial.set_baudrate(3).await, FaultKind::Argument, "50 to 12000000"),
        (bench.serial.send_break(Duration::MAX).await, FaultKind::Argument, "5s"),
    ];
    for (result, kind, text) in refused {
        let error = result.expect_err("it cannot be done");
        let CallError::Fault { fault, .. } = error else { anyhow::bail!("a fault, not {error}") };
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.text.contains(text), "{fault}");
    }
    bench.close().await
}

#[tokio::test]
async fn a_stalled_device_stalls_its_writer_and_nothing_else() -> anyhow::Result<()> {
    let mut bench = bench().await?;
    let mut writer = bench.console.connect(false).await?;
    let mut watcher = bench.console.watch(None).await?;
    let wanted: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    let sent = wanted.clone();
    let send = async {
        writer.write_all(&sent).await?;
        writer.flush().await
    };
    tokio::pin!(send);
    // The board takes nothing, so the writer does not get far; the board is heard all the same.
    let talk = async {
        for _ in 0..64 {
            bench.board.write_all(b"tick").await?;
            expect(&mut watcher, "tick").await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        biased;
        sent = &mut send => anyhow::bail!("8 MiB are more than anybody keeps: {sent:?}"),
        talked = talk => talked?,
    }
    let mut got = vec![0; wanted.len()];
    let (sent, read) = tokio::join!(send, bench.board.read_exact(&mut got));
    sent?;
    read?;
    assert!(got == wanted, "every byte arrives once and in order");
    bench.close().await
}

#[tokio::test]
async fn a_loop_hears_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("uart.log");
    let mut config = SerialConfig { url: Some("loop://".to_owned()), ..Default::default() };
    config.capture.file = Some(file.display().to_string());
    let served = serve(Serial::start(config).await?).await.map_err(anyhow::Error::from_boxed)?;
    let console = ConsoleClient::new(served.driver());
    let mut stream = console.connect(false).await?;
    stream.write_all(b"hello").await?;
    expect(&mut stream, "hello").await?;
    SerialClient::new(served.driver()).set_dtr(true).await?;
    let info = console.capture_info().await?;
    assert_eq!(info.file, Some(file.display().to_string()));
    served.shutdown().await?;
    Ok(())
}

/// What is kept from a place on: places, bytes, notes, and how many bytes are missing between.
async fn captured(console: &ConsoleClient<DriverRef>, from: u64) -> anyhow::Result<String> {
    let mut items = console.capture(from, false).await?;
    let (mut text, mut end) = (String::new(), from);
    while let Some(item) = items.next().await {
        let item = item?;
        ensure!(item.at >= end, "{item:?} after place {end}");
        if item.at > end {
            text += &format!("<{} lost>", item.at - end);
        }
        end = item.at + item.data.len() as u64;
        text += &String::from_utf8_lossy(&item.data);
        text += &item.note.map_or(String::new(), |note| format!("<{note}>"));
    }
    Ok(text)
}

/// A port that hears itself, and keeps 64 KiB in memory and the rest in a file.
async fn recorder(file: &Path) -> anyhow::Result<(Served, ConsoleClient<DriverRef>)> {
    let mut config = SerialConfig { url: Some("loop://".to_owned()), ..Default::default() };
    config.capture.memory = 64 << 10;
    config.capture.file = Some(file.display().to_string());
    let served = serve(Serial::start(config).await?).await.map_err(anyhow::Error::from_boxed)?;
    let console = ConsoleClient::new(served.driver());
    Ok((served, console))
}

/// Says something, and waits until it was said.
async fn say(console: &ConsoleClient<DriverRef>, text: &str) -> anyhow::Result<()> {
    let mut stream = console.connect(true).await?;
    let (mut from, mut to) = tokio::io::split(&mut stream);
    let mut heard = vec![0; text.len()];
    let (wrote, read) = tokio::join!(to.write_all(text.as_bytes()), from.read_exact(&mut heard));
    wrote?;
    read?;
    ensure!(heard == text.as_bytes());
    Ok(())
}

/// Says something, and waits until the file has it.
async fn write_down(
    console: &ConsoleClient<DriverRef>,
    text: &str,
    file: &Path,
) -> anyhow::Result<()> {
    let size = || fs::metadata(file).map_or(0, |file| file.len());
    let before = size();
    say(console, text).await?;
    while size() < before + text.len() as u64 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn what_has_left_memory_is_read_from_the_file_also_after_a_restart() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("uart.log");
    let first: String = (0..20_000).map(|line| format!("line {line:05}\r\n")).collect();
    let (served, console) = recorder(&file).await?;
    for part in first.as_bytes().chunks(13_000) {
        write_down(&console, std::str::from_utf8(part)?, &file).await?;
    }
    let info = console.capture_info().await?;
    assert_eq!((info.start, info.end, info.file_error), (0, first.len() as u64, None));
    assert!(captured(&console, 0).await? == first, "260 KB are in the file, 64 KiB in memory");
    assert!(captured(&console, 13).await? == first[13..], "from any place");
    let mut watcher = console.watch(Some(0)).await?;
    expect(&mut watcher, &first).await?;
    drop(watcher);
    served.shutdown().await?;

    let (served, console) = recorder(&file).await?;
    say(&console, "second run").await?;
    let wanted = format!("{first}<the exporter was restarted>second run");
    assert!(captured(&console, 0).await? == wanted, "places go on, and a note says why");
    let info = console.capture_info().await?;
    assert_eq!((info.start, info.end), (0, first.len() as u64 + 10));
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_stops_the_file_and_not_the_console() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("uart.log");
    symlink("/dev/full", &file)?;
    let (served, console) = recorder(&file).await?;
    let part = "x".repeat(20_000);
    for _ in 0..10 {
        say(&console, &part).await?;
    }
    let error = console.capture_info().await?.file_error.context("the disk is full")?;
    assert!(error.contains("No space left"), "{error}");
    let kept = captured(&console, 0).await?;
    assert!(kept.starts_with('<') && kept.ends_with("xxx"), "memory still has the last of it");

    fs::remove_file(&file)?;
    while console.capture_info().await?.file_error.is_some() {
        tokio::task::yield_now().await;
    }
    let part = "y".repeat(20_000);
    for _ in 0..10 {
        write_down(&console, &part, &file).await?;
    }
    let all = captured(&console, 0).await?;
    let (lost, rest) = all.rsplit_once(" lost>").context("the hole is told")?;
    assert!(lost.contains('<') && rest.ends_with(&part.repeat(10)), "what came later is there");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_slow_device_is_written_to_at_its_pace_and_keeps_its_dtr() -> anyhow::Result<()> {
    let (mut board, port) = SerialStream::pair()?;
    let path = port.name().context("a pseudo-terminal has a name")?;
    let terminal = fs::File::options().read(true).write(true).open(&path)?;
    let mut settings = rustix::termios::tcgetattr(&terminal)?;
    settings.control_modes |= rustix::termios::ControlModes::HUPCL;
    rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &settings)?;
    let config = SerialConfig {
        url: Some(path),
        cps: Some(50.0),
        disable_hupcl: true,
        ..Default::default()
    };
    let served = serve(Serial::start(config).await?).await.map_err(anyhow::Error::from_boxed)?;
    let settings = rustix::termios::tcgetattr(&terminal)?;
    assert!(!settings.control_modes.contains(rustix::termios::ControlModes::HUPCL));

    let mut writer = ConsoleClient::new(served.driver()).connect(false).await?;
    let began = std::time::Instant::now();
    writer.write_all(b"0123456789").await?;
    let mut all = [0; 10];
    board.read_exact(&mut all).await?;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(150), "ten bytes at 50 per second took {took:?}");
    SerialClient::new(served.driver()).close().await?;
    let why = cut(&mut writer).await;
    assert!(why.contains("tester has closed the console"), "{why}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_names_no_port_is_refused() {
    let url = |url: &str| SerialConfig { url: Some(url.to_owned()), ..Default::default() };
    let wrong = [
        (SerialConfig::default(), "either url or usb_serial"),
        (url("rfc2217://there:1"), "socket://there:1 carries its bytes"),
        (url("ftp://there:1"), "no device path, loop:// or socket://host:port"),
        (SerialConfig { cps: Some(0.0), ..url("loop://") }, "cps is 0"),
        (SerialConfig { cps: Some(f64::NAN), ..url("loop://") }, "cps is NaN"),
        (SerialConfig { baudrate: 0, ..url("loop://") }, "a rate of 0"),
        (url("/dev/there-is-no-such-port"), "the port is not there"),
    ];
    for (config, text) in wrong {
        let fault = Serial::start(config).await.expect_err("it is wrong");
        assert!(fault.text.contains(text), "{fault}");
    }
}
