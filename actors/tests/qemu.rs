//! A virtual board over the bus: U-Boot in QEMU, which has to be installed.

use std::{path::Path, process::Stdio, time::Duration};

use actors::{
    Accel, ConsoleClient, Disk, DiskFormat, FlasherClient, Hostfwd, NetworkClient, PowerClient,
    Qemu, QemuClient, QemuConfig, QemuMonitorClient, kinds,
};
use bus_schema::{FaultKind, Value};
use runtime::{ByteStream, CallError, Config, Lend, Node, Served, serve};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::Command,
    time::interval,
};

const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const PROMPT: &str = "\r\n=> ";

/// The configuration of a board of this name, or none where QEMU is not installed.
fn board(name: &str) -> Option<QemuConfig> {
    let qemu = Path::new("/usr/bin/qemu-system-aarch64");
    if !qemu.exists() || !Path::new(FIRMWARE).exists() {
        eprintln!("skipped: apt-get install qemu-system-arm u-boot-qemu");
        return None;
    }
    let forward = |guestport| Hostfwd { guestport, hostport: 0 };
    Some(QemuConfig {
        arch: "aarch64".to_owned(),
        cpu: Some("cortex-a57".to_owned()),
        smp: 1,
        mem: "256M".to_owned(),
        bios: Some(FIRMWARE.into()),
        hostfwd: [("ssh".to_owned(), forward(22)), ("http".to_owned(), forward(80))].into(),
        extra_args: ["-name".to_owned(), name.to_owned()].into(),
        ..QemuConfig::default()
    })
}

/// A name that no other test and no other run has.
fn name(of: &str) -> String {
    format!("{of}-{}", std::process::id())
}

async fn served(config: QemuConfig) -> anyhow::Result<Served> {
    serve(Qemu::node(config)?).await.map_err(anyhow::Error::from_boxed)
}

/// The processes that have this name on their command line.
fn processes(name: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let command = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let named = |command: &Vec<u8>| command.split(|byte| *byte == 0).any(|w| w == name.as_bytes());
    entries.filter_map(command).filter(named).count()
}

/// Reads until `end` comes, and gives everything up to there.
async fn until(stream: &mut ByteStream, end: &str) -> anyhow::Result<String> {
    let mut got = Vec::new();
    while !got.ends_with(end.as_bytes()) {
        got.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&got).into_owned())
}

fn fault(error: CallError) -> bus_schema::Fault {
    match error {
        CallError::Fault { fault, .. } => fault,
        other => panic!("a fault, not {other}"),
    }
}

/// How a stream was cut off.
async fn cut(stream: &mut ByteStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect_err("the stream is cut off").to_string()
}

#[tokio::test]
async fn a_board_boots_is_stopped_at_its_prompt_and_answers() -> anyhow::Result<()> {
    let name = name("boots");
    let Some(config) = board(&name) else { return Ok(()) };
    let served = served(config).await?;
    let power = PowerClient::new(served.child("power"));
    let console = ConsoleClient::new(served.child("console"));
    let monitor = QemuMonitorClient::new(served.child("qmp"));

    let off = fault(monitor.qmp("query-status".to_owned(), None).await.unwrap_err());
    assert_eq!((off.kind, processes(&name)), (FaultKind::Unreachable, 0));

    // One connects before there is power, as to a real board.
    let mut writer = console.connect(false).await?;
    let mut watcher = console.watch(None).await?;
    power.on().await?;
    until(&mut writer, "Hit any key to stop autoboot").await?;
    writer.write_all(b"\n").await?;
    until(&mut writer, PROMPT).await?;
    writer.write_all(b"echo $((6 * 7)) version $ver; version\n").await?;
    let answer = until(&mut writer, PROMPT).await?;
    assert!(answer.contains("U-Boot 20"), "{answer}");
    let seen = until(&mut watcher, "Hit any key to stop autoboot").await?;
    assert!(seen.contains("DRAM:"), "{seen}");
    until(&mut watcher, "version\r\n").await?;
    until(&mut watcher, PROMPT).await?;

    let status = monitor.qmp("query-status".to_owned(), None).await?;
    assert_eq!(status.get("status"), Some(&Value::Text("running".to_owned())));
    let refused = monitor.qmp("no-such-command".to_owned(), None).await.unwrap_err();
    assert!(fault(refused).text.contains("no-such-command"));

    power.on().await?; // does nothing to one that is on
    power.off().await?;
    assert_eq!(processes(&name), 0);
    power.cycle(Duration::ZERO).await?;
    until(&mut watcher, "Hit any key to stop autoboot").await?;
    power.off().await?;
    power.off().await?;
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn screen_monitor_and_forwarded_ports_are_streams() -> anyhow::Result<()> {
    let name = name("streams");
    let Some(config) = board(&name) else { return Ok(()) };
    let served = served(config).await?;
    let vnc = NetworkClient::new(served.child("vnc"));
    let why = cut(&mut vnc.connect().await?).await;
    assert!(why.contains("switch it on first"), "{why}");
    PowerClient::new(served.child("power")).on().await?;

    let mut screen = vnc.connect().await?;
    let mut version = [0; 12];
    screen.read_exact(&mut version).await?;
    assert_eq!(&version, b"RFB 003.008\n");

    let monitor = QemuMonitorClient::new(served.child("qmp"));
    let mut first = monitor.connect().await?;
    let greeting = until(&mut first, "\n").await?;
    assert!(greeting.starts_with("{\"QMP\""), "{greeting}");
    let why = cut(&mut monitor.connect().await?).await;
    assert!(why.contains("somebody else is connected"), "{why}");

    let (ssh, http) =
        (NetworkClient::new(served.child("ssh")), NetworkClient::new(served.child("http")));
    let (ssh_at, http_at) = (ssh.address().await?, http.address().await?);
    assert!(ssh_at.starts_with("tcp://127.0.0.1:") && ssh_at != http_at, "{ssh_at} {http_at}");
    // U-Boot serves nothing, but QEMU takes the connection.
    let _connected = ssh.connect().await?;
    served.shutdown().await?;
    assert_eq!(processes(&name), 0, "nothing outlives its exporter");
    Ok(())
}

#[tokio::test]
async fn a_reading_tells_whether_the_machine_is_on() -> anyhow::Result<()> {
    let name = name("reading");
    let Some(config) = board(&name) else { return Ok(()) };
    let served = served(config).await?;
    let power = PowerClient::new(served.child("power"));
    let mut readings = power.read().await?;
    let first = readings.next().await.expect("there is always a reading")?;
    assert_eq!((first.voltage, first.current), (0.0, 0.0));
    power.on().await?;
    loop {
        let reading = readings.next().await.expect("readings go on")?;
        if reading.current > 0.0 {
            assert_eq!(reading.voltage, 5.0);
            break;
        }
    }
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_machine_that_cannot_start_says_why() -> anyhow::Result<()> {
    let name = name("wrong");
    let Some(config) = board(&name) else { return Ok(()) };
    let disk = |file: &str| Disk { file: file.into(), format: DiskFormat::Raw, snapshot: false };
    let wrong = [
        (QemuConfig { disks: vec![disk("/no/disk.img")], ..config.clone() }, "/no/disk.img"),
        (QemuConfig { binary: Some("/no/qemu".into()), ..config.clone() }, "/no/qemu"),
        (QemuConfig { machine: Some("pdp11".to_owned()), ..config.clone() }, "machine type"),
    ];
    for (config, text) in wrong {
        let served = served(config).await?;
        let why = PowerClient::new(served.child("power")).on().await.unwrap_err();
        let why = fault(why);
        assert!(why.text.contains("does not start") && why.text.contains(text), "{why}");
        assert_eq!(processes(&name), 0);
        served.shutdown().await?;
    }
    Ok(())
}

#[tokio::test]
async fn kvm_runs_the_guest_or_says_that_it_does_not() -> anyhow::Result<()> {
    let name = name("kvm");
    let Some(config) = board(&name) else { return Ok(()) };
    let served = served(QemuConfig { accel: Accel::Kvm, ..config }).await?;
    // An aarch64 guest has no KVM on another host; on an aarch64 host it may.
    match PowerClient::new(served.child("power")).on().await {
        Ok(()) => assert_eq!(std::env::consts::ARCH, "aarch64"),
        Err(why) => assert!(fault(why).text.to_lowercase().contains("kvm")),
    }
    served.shutdown().await?;
    assert_eq!(processes(&name), 0);
    Ok(())
}

#[tokio::test]
async fn a_machine_tells_its_names_and_refuses_sizes_that_are_none() -> anyhow::Result<()> {
    let served = served(QemuConfig { hostname: "bench".to_owned(), ..Default::default() }).await?;
    let qemu = QemuClient::new(served.driver());
    assert_eq!(qemu.get_hostname().await?, "bench");
    assert_eq!(qemu.get_username().await?, "jumpstarter");
    assert_eq!(qemu.get_password().await?, "password");
    qemu.set_memory_size("1G".to_owned()).await?;
    for wrong in ["1G,foo=bar", "lots", ""] {
        let why = fault(qemu.set_disk_size(wrong.to_owned()).await.unwrap_err());
        assert_eq!(why.kind, FaultKind::Argument);
    }
    served.shutdown().await?;
    Ok(())
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let port = |name: &str, guestport| (name.to_owned(), Hostfwd { guestport, hostport: 0 });
    let good = QemuConfig::default();
    let wrong = [
        (QemuConfig { arch: "../bin/sh".to_owned(), ..good.clone() }, "architecture"),
        (QemuConfig { hostname: "a,hostfwd=".to_owned(), ..good.clone() }, "host name"),
        (QemuConfig { smp: 0, ..good.clone() }, "1 to 256"),
        (QemuConfig { mem: "much".to_owned(), ..good.clone() }, "512M"),
        (QemuConfig { hostfwd: [port("power", 22)].into(), ..good.clone() }, "already"),
        (QemuConfig { hostfwd: [port("ssh", 0)].into(), ..good.clone() }, "1 to 65535"),
        (QemuConfig { hostfwd: [port("a", 22), port("b", 22)].into(), ..good }, "forwarded as"),
    ];
    for (config, text) in wrong {
        let error = Qemu::node(config).expect_err("it is wrong").to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_board_is_configured_in_yaml() -> anyhow::Result<()> {
    let yaml = "
name: bench
export:
  board:
    type: qemu
    config:
      arch: aarch64
      bios: /usr/lib/u-boot/qemu_arm64/u-boot.bin
      hostfwd: {ssh: {guestport: 22}}
      disks: [{file: /var/lib/disk.qcow2, format: qcow2}]
      accel: tcg
      capture: {memory: 65536}
  uart:
    type: serial
    config: {url: 'loop://', parity: even, check_present: false}
";
    let parse = |yaml: &str| Config::parse(yaml, "bench.yaml", &kinds(), Path::new("/state"));
    let config = parse(yaml)?;
    let board: Vec<_> = config.root.children["board"].children.keys().collect();
    assert_eq!(board, ["console", "flasher", "power", "qmp", "ssh", "vnc"]);
    assert!(config.runs_commands.iter().any(|path| path.to_string() == "board"));

    let wrong = [
        ("guestport: 22", "guestport: 0", "1 to 65535"),
        ("{ssh:", "{power:", "already"),
        ("{ssh:", "{'*':", "hostfwd"),
        ("parity: even", "parity: evne", "even"),
        ("accel: tcg", "acel: tcg", "accel"),
        ("'loop://'", "'com1'", "no device path"),
        ("memory: 65536", "memory: 1", "4096"),
    ];
    for (right, wrong, text) in wrong {
        let error = parse(&yaml.replace(right, wrong)).expect_err(wrong).to_string();
        assert!(error.contains(text), "{wrong}: {error}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "the exporter that another test kills"]
async fn exporter_to_be_killed() -> anyhow::Result<()> {
    let name = format!("killed-{}", std::os::unix::process::parent_id());
    let Some(config) = board(&name) else { return Ok(()) };
    let served = served(config).await?;
    PowerClient::new(served.child("power")).on().await?;
    eprintln!("the machine is on");
    std::future::pending().await
}

#[tokio::test]
async fn a_machine_does_not_outlive_an_exporter_that_is_killed() -> anyhow::Result<()> {
    let name = name("killed");
    if board(&name).is_none() {
        return Ok(());
    }
    let mut exporter = Command::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "--nocapture", "exporter_to_be_killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(exporter.stderr.take().expect("it is piped")).lines();
    while let Some(line) = said.next_line().await? {
        if line.contains("the machine is on") {
            break;
        }
    }
    assert!(processes(&name) > 0, "it runs");
    exporter.kill().await?;
    let mut look = interval(Duration::from_millis(10));
    while processes(&name) > 0 {
        look.tick().await;
    }
    Ok(())
}

/// A disk of this size for a board of this name.
fn board_with_disk(name: &str, file: &Path, size: u64) -> anyhow::Result<Option<QemuConfig>> {
    let Some(config) = board(name) else { return Ok(None) };
    std::fs::File::create(file)?.set_len(size)?;
    let disk = Disk { file: file.to_owned(), format: DiskFormat::Raw, snapshot: false };
    Ok(Some(QemuConfig { disks: vec![disk], ..config }))
}

/// Switches it on, and stops it at its prompt.
async fn prompt(served: &Served, board: &str) -> anyhow::Result<ByteStream> {
    let child = |name: &str| served.child(format!("{board}/{name}").trim_start_matches('/'));
    let mut console = ConsoleClient::new(child("console")).connect(false).await?;
    PowerClient::new(child("power")).on().await?;
    until(&mut console, "Hit any key to stop autoboot").await?;
    console.write_all(b"\n").await?;
    until(&mut console, PROMPT).await?;
    Ok(console)
}

async fn ask(console: &mut ByteStream, command: &str) -> anyhow::Result<String> {
    console.write_all(format!("{command}\n").as_bytes()).await?;
    let (mut got, patience) = (Vec::new(), Duration::from_secs(20));
    while !got.ends_with(PROMPT.as_bytes()) {
        match tokio::time::timeout(patience, console.read_u8()).await {
            Ok(byte) => got.push(byte?),
            Err(_) => anyhow::bail!("{command}: {}", String::from_utf8_lossy(&got)),
        }
    }
    Ok(String::from_utf8_lossy(&got).into_owned())
}

#[tokio::test]
async fn a_large_sparse_image_is_flashed_to_a_board_that_is_off_and_seen_by_it()
-> anyhow::Result<()> {
    let (name, dir) = (name("flashed"), tempfile::tempdir()?);
    let file = dir.path().join("disk");
    let Some(config) = board_with_disk(&name, &file, 0)? else { return Ok(()) };
    let image = dir.path().join("image");
    let mut bytes = vec![0_u8; 1 << 20];
    bytes[..12].copy_from_slice(b"jmp-bus was ");
    std::fs::write(&image, &bytes)?;
    std::fs::File::options().write(true).open(&image)?.set_len(600 << 20)?;
    let served = served(config).await?;
    let flasher = FlasherClient::new(served.child("flasher"));
    let written = flasher.flash(&*image, None, true).await?;
    assert!(written.bytes == 600 << 20 && written.verified, "{written:?}");
    use std::os::unix::fs::MetadataExt as _;
    assert!(std::fs::metadata(&file)?.blocks() * 512 < 32 << 20, "it is sparse no more");

    let mut console = prompt(&served, "").await?;
    let on = flasher.flash(Lend::bytes("x"), None, false).await.unwrap_err();
    assert_eq!(fault(on).kind, FaultKind::Busy);
    let seen = ask(&mut console, "virtio scan; virtio read 40400000 0 1; md.b 40400000 c").await?;
    assert!(seen.contains("jmp-bus was"), "{seen}");
    PowerClient::new(served.child("power")).off().await?;
    let none = flasher.flash(Lend::bytes("x"), Some("disk7".to_owned()), false).await.unwrap_err();
    assert!(fault(none).text.contains("there are disk0"));
    served.shutdown().await?;
    Ok(())
}

#[cfg(feature = "serving")]
#[tokio::test]
async fn a_boot_loader_fetches_what_a_client_lent_by_tftp_and_writes_it_to_its_disk()
-> anyhow::Result<()> {
    use actors::serving::TftpClient;
    use std::io::Write as _;
    let (name, dir) = (name("tftp"), tempfile::tempdir()?);
    let file = dir.path().join("disk");
    let Some(config) = board_with_disk(&name, &file, 32 << 20)? else { return Ok(()) };
    if std::net::UdpSocket::bind("127.0.0.1:69").is_err() {
        eprintln!("skipped: port 69 is not ours to have, and U-Boot asks no other");
        return Ok(());
    }
    let text = format!("{{root_dir: {}, host: 127.0.0.1}}", dir.path().join("served").display());
    let kinds = kinds();
    let yaml = format!("name: lab\nexport:\n  tftp: {{type: tftp, config: {text}}}\n");
    let config_of = Config::parse(&yaml, "lab.yaml", &kinds, dir.path())?;
    let tree = Node { children: config_of.root.children, ..config_of.root }
        .with_child("board", Qemu::node(config)?);
    let served = serve(tree).await.map_err(anyhow::Error::from_boxed)?;
    let image: Vec<u8> = (0..(8_u32 << 20) + 4096).map(|at| (at / 3 * 7) as u8).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&image)?;
    let path = dir.path().join("image.gz");
    std::fs::write(&path, packed.finish()?)?;
    let tftp = TftpClient::new(served.child("tftp"));
    tftp.start().await?;
    tftp.put("image.gz".to_owned(), &*path).await?;

    let mut console = prompt(&served, "board").await?;
    for (command, said) in [
        ("setenv autoload no; dhcp", "DHCP client bound"),
        ("setenv serverip 127.0.0.1; tftpboot ${loadaddr} image.gz", "Bytes transferred"),
        ("virtio scan; gzwrite virtio 0 ${fileaddr} ${filesize}", "8392704"),
    ] {
        let answer = ask(&mut console, command).await?;
        assert!(answer.contains(said), "{command}: {answer}");
    }
    PowerClient::new(served.child("board/power")).off().await?;
    assert!(std::fs::read(&file)?[..image.len()] == image[..], "the disk has something else");
    tftp.stop().await?;
    assert!(std::net::UdpSocket::bind("127.0.0.1:69").is_ok(), "the port is free again");
    served.shutdown().await?;
    assert!(!dir.path().join("served/image.gz").exists(), "nothing is left behind");
    Ok(())
}
