//! Storage, flashers and multiplexers over the bus: what is written, and what is not.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::{
    CommandStorageMux, CommandStorageMuxConfig, FakeFlasher, FakeFlasherConfig, FakeStorageMux,
    FakeStorageMuxClient, FakeStorageMuxConfig, FileStorage, FlasherClient, MediumConfig, MuxSide,
    StorageClient, StorageMuxClient, TargetFlasher, TargetFlasherConfig,
};
use anyhow::{Error, Result};
use bus_schema::FaultKind;
use runtime::{CallError, DriverRef, Lend, Node, Served, serve};
use tempfile::TempDir;
use tokio::io::AsyncWrite;

const MIB: usize = 1 << 20;

async fn served(node: impl Into<Node>) -> Result<Served> {
    serve(node).await.map_err(Error::from_boxed)
}

/// Bytes with a hole in them.
fn image(bytes: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..bytes).map(|at| (at * 31 / 7) as u8).collect();
    if bytes > 3 * MIB {
        image[MIB..2 * MIB].fill(0);
    }
    image
}

fn fault(error: CallError) -> (FaultKind, String) {
    match error {
        CallError::Fault { fault, .. } => (fault.kind, fault.text),
        other => panic!("no fault: {other:?}"),
    }
}

/// Takes what is written.
#[derive(Clone, Default)]
struct Into_(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Into_ {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.0.lock().expect("nothing panics that holds it").extend_from_slice(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

impl Into_ {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("nothing panics that holds it").clone()
    }
}

struct Disk {
    _dir: TempDir,
    path: PathBuf,
    served: Served,
    storage: StorageClient<DriverRef>,
}

impl Disk {
    async fn of(size: Option<&str>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("disk");
        if size.is_none() {
            std::fs::write(&path, b"what was there before, and is longer than nothing")?;
        }
        let medium = MediumConfig { path: path.clone(), size: size.map(str::to_owned) };
        let served = served(Node::of("storage", FileStorage::new(medium)?)).await?;
        let storage = StorageClient::new(served.driver());
        Ok(Self { _dir: dir, path, served, storage })
    }
}

#[tokio::test]
async fn an_image_is_written_verified_hashed_read_and_erased() -> Result<()> {
    let disk = Disk::of(Some("16M")).await?;
    let bytes = image(5 * MIB + 3);
    let written = disk.storage.write(Lend::bytes(bytes.clone()), 0, true).await?;
    assert_eq!((written.bytes, written.verified), (bytes.len() as u64, true));
    let there = std::fs::read(&disk.path)?;
    assert!(there.len() == 16 * MIB && there[..bytes.len()] == bytes[..]);
    let hash = disk.storage.hash(0, Some(bytes.len() as u64)).await?;
    assert_eq!(Some(hash), written.sha256);
    let into = Into_::default();
    let read = disk.storage.read(Lend::writer(into.clone()), 7, Some(MIB as u64 + 1)).await?;
    assert_eq!(read, MIB as u64 + 1);
    assert!(into.bytes() == bytes[7..7 + MIB + 1]);
    // In the middle: what is around stays.
    disk.storage.write(Lend::bytes("middle"), 100, true).await?;
    let there = std::fs::read(&disk.path)?;
    assert!(&there[100..106] == b"middle" && there[..100] == bytes[..100]);
    assert!(there[106..bytes.len()] == bytes[106..]);
    disk.storage.erase(0, None).await?;
    assert!(std::fs::read(&disk.path)?.iter().all(|byte| *byte == 0));
    assert_eq!(disk.storage.size().await?, 16 * MIB as u64);
    disk.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn zeros_of_an_image_are_zeros_on_a_medium_that_had_something_there() -> Result<()> {
    let disk = Disk::of(Some("8M")).await?;
    disk.storage.write(Lend::bytes(vec![0xee; 8 * MIB]), 0, false).await?;
    let path = disk.path.with_file_name("image");
    let bytes = [vec![1; 3 * MIB], vec![0; 5 * MIB]].concat();
    std::fs::write(&path, &bytes)?;
    let written = disk.storage.write(&*path, 0, true).await?;
    assert!(written.holes >= 4 * MIB as u64, "{written:?}");
    assert!(std::fs::read(&disk.path)? == bytes);
    disk.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_file_without_a_size_is_replaced_by_the_image_and_stays_sparse() -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let disk = Disk::of(None).await?;
    let before = disk.storage.write(Lend::bytes(image(40 * MIB)), 0, true).await?;
    assert_eq!(before.bytes, 40 * MIB as u64);
    let path = disk.path.with_file_name("image");
    let file = std::fs::File::create(&path)?;
    file.set_len(64 * MIB as u64)?;
    disk.storage.write(&*path, 0, true).await?;
    let about = std::fs::metadata(&disk.path)?;
    assert_eq!(about.len(), 64 * MIB as u64);
    assert!(about.blocks() * 512 < MIB as u64, "{} blocks", about.blocks());
    disk.storage.write(Lend::bytes("short"), 0, true).await?;
    assert_eq!(std::fs::read(&disk.path)?, b"short");
    disk.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn an_image_larger_than_the_target_overwrites_nothing() -> Result<()> {
    let disk = Disk::of(Some("4M")).await?;
    disk.storage.write(Lend::bytes("precious"), 0, false).await?;
    for lend in [
        Lend::bytes(image(4 * MIB + 1)),
        Lend::from({
            let path = disk.path.with_file_name("image");
            std::fs::write(&path, image(5 * MIB))?;
            path
        }),
    ] {
        let (kind, text) = fault(disk.storage.write(lend, 0, false).await.unwrap_err());
        assert_eq!(kind, FaultKind::Argument);
        assert!(text.contains("larger than the target") && text.contains("4194304"), "{text}");
    }
    assert_eq!(std::fs::read(&disk.path)?[..8], *b"precious");
    // Of an unknown length it is found out on the way.
    let reader = std::io::Cursor::new(image(5 * MIB));
    let (_, text) = fault(disk.storage.write(Lend::reader(reader), 0, false).await.unwrap_err());
    assert!(text.contains("larger than the target"), "{text}");
    let (_, text) = fault(disk.storage.hash(0, Some(1 << 40)).await.unwrap_err());
    assert!(text.contains("behind the end"), "{text}");
    let (_, text) = fault(disk.storage.erase(1 << 40, None).await.unwrap_err());
    assert!(text.contains("behind the end"), "{text}");
    disk.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_flasher_writes_to_the_target_that_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let medium =
        |name: &str| MediumConfig { path: dir.path().join(name), size: Some("1M".to_owned()) };
    let targets = [("boot".to_owned(), medium("boot")), ("root".to_owned(), medium("root"))].into();
    let config = TargetFlasherConfig { targets, default: Some("root".to_owned()) };
    let served = served(Node::of("flasher", TargetFlasher::new(config)?)).await?;
    let flasher = FlasherClient::new(served.driver());
    flasher.flash(Lend::bytes("kernel"), Some("boot".to_owned()), true).await?;
    flasher.flash(Lend::bytes("rootfs"), None, true).await?;
    assert_eq!(std::fs::read(dir.path().join("boot"))?[..6], *b"kernel");
    assert_eq!(std::fs::read(dir.path().join("root"))?[..6], *b"rootfs");
    let into = Into_::default();
    assert_eq!(flasher.dump(Lend::writer(into.clone()), Some("boot".to_owned())).await?, 1 << 20);
    assert_eq!(into.bytes()[..6], *b"kernel");
    let none = flasher.flash(Lend::bytes("x"), Some("data".to_owned()), false).await;
    let (_, text) = fault(none.unwrap_err());
    assert_eq!(text, "no target \"data\": there are boot, root");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_device_that_fails_at_90_percent_says_where() -> Result<()> {
    let config =
        FakeFlasherConfig { fails_at: Some(9 * MIB as u64), ..FakeFlasherConfig::default() };
    let served = served(Node::of("fake-flasher", FakeFlasher::new(config)?)).await?;
    let flasher = FlasherClient::new(served.driver());
    let (kind, text) =
        fault(flasher.flash(Lend::bytes(image(10 * MIB)), None, false).await.unwrap_err());
    assert_eq!(kind, FaultKind::Io);
    assert!(text.contains("cannot write at byte") && text.contains("worn out"), "{text}");
    assert!(flasher.flash(Lend::bytes(image(8 * MIB)), None, true).await.is_ok());
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_flash_that_is_given_up_ends_and_the_next_one_is_served() -> Result<()> {
    let config =
        FakeFlasherConfig { settles: Duration::from_secs(3600), ..FakeFlasherConfig::default() };
    let served = served(Node::of("fake-flasher", FakeFlasher::new(config)?)).await?;
    let flasher = FlasherClient::new(served.driver());
    let mut progress = flasher.progress().await?;
    let begun = async {
        while let Some(item) = progress.next().await {
            if item.as_ref().is_ok_and(|item| item.what == "write") {
                return;
            }
        }
    };
    let endless = Lend::reader(tokio::io::repeat(7));
    tokio::select! {
        () = begun => {}
        ended = flasher.flash(endless, None, false) => panic!("it ended: {ended:?}"),
    }
    // It has its turn, or would be refused as waiting for it.
    let error = FlasherClient::new(served.driver().with_deadline(Duration::from_secs(2)))
        .flash(Lend::bytes("x"), None, false)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::TimedOut { sent: true, .. }), "{error}");
    served.shutdown().await?;
    Ok(())
}

fn words(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// A multiplexer that moves a file.
fn mux_of(dir: &Path) -> CommandStorageMuxConfig {
    let at = |name: &str| dir.join(name).display().to_string();
    let (host, dut) = (at("at-host"), at("at-dut"));
    CommandStorageMuxConfig {
        host: words(&format!("mv {dut} {host} 2>/dev/null || test -e {host}")),
        dut: words(&format!("mv {host} {dut} 2>/dev/null || test -e {dut}")),
        off: None,
        path: dir.join("at-host"),
        appears_within: Duration::from_millis(300),
        timeout: Duration::from_secs(10),
        env: [].into(),
    }
}

#[tokio::test]
async fn a_multiplexer_takes_the_medium_to_the_host_to_write_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("at-dut"), b"")?;
    let mux = CommandStorageMux::new(mux_of(dir.path()))?;
    let served = served(Node::of("mux", mux)).await?;
    let mux = StorageMuxClient::new(served.driver());
    mux.write(Lend::bytes("image"), true).await?;
    mux.dut().await?;
    assert_eq!(std::fs::read(dir.path().join("at-dut"))?, b"image");
    let into = Into_::default();
    assert_eq!(mux.read(Lend::writer(into.clone())).await?, 5);
    assert_eq!(into.bytes(), b"image");
    let (kind, text) = fault(mux.off().await.unwrap_err());
    assert!(kind == FaultKind::Unsupported && text.contains("\"off\""), "{text}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_medium_that_does_not_appear_is_waited_for_and_then_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = CommandStorageMuxConfig { host: words("true"), ..mux_of(dir.path()) };
    let served = served(Node::of("mux", CommandStorageMux::new(config)?)).await?;
    let mux = StorageMuxClient::new(served.driver());
    let (kind, text) = fault(mux.write(Lend::bytes("image"), false).await.unwrap_err());
    assert_eq!(kind, FaultKind::Unreachable);
    assert!(text.contains("at-host") && text.contains("300ms"), "{text}");
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn the_fake_multiplexer_says_who_has_the_medium() -> Result<()> {
    let mux = FakeStorageMux::new(&FakeStorageMuxConfig::default())?;
    let served = served(Node::of("mux", mux)).await?;
    let (mux, fake) =
        (StorageMuxClient::new(served.driver()), FakeStorageMuxClient::new(served.driver()));
    assert_eq!(fake.side().await?, MuxSide::Off);
    mux.write(Lend::bytes("image"), true).await?;
    assert_eq!(fake.side().await?, MuxSide::Host);
    mux.dut().await?;
    assert_eq!(fake.side().await?, MuxSide::Dut);
    let into = Into_::default();
    mux.read(Lend::writer(into.clone())).await?;
    assert_eq!((into.bytes(), fake.side().await?), (b"image".to_vec(), MuxSide::Host));
    mux.off().await?;
    served.shutdown().await?;
    Ok(())
}
