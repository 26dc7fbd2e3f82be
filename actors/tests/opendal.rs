//! A storage tree: what can be done in it, what cannot, and what is left behind.

#![cfg(feature = "opendal")]

use std::path::PathBuf;

use actors::{
    HashAlgorithm, OpenMode, OpendalAdapter, OpendalClient, StorageClient, kinds, open_operator,
};
use bus_schema::FaultKind;
use runtime::{CallError, Config, DriverRef, ItemStream, Lend, Served, serve};
use tempfile::TempDir;

type Store = OpendalClient<DriverRef>;

struct Lab {
    dir: TempDir,
    served: Served,
    store: Store,
}

impl Lab {
    async fn start(removes: bool) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name).display().to_string();
        let yaml = format!(
            "name: lab\nexport:\n  \
             store: {{type: opendal, config: {{scheme: fs, kwargs: {{root: {}}}, \
             remove_created_on_close: {removes}}}}}\n  \
             memory: {{type: opendal, config: {{scheme: memory}}}}\n  \
             disk: {{type: storage, config: {{path: {}, size: 1M}}}}\n",
            at("tree"),
            at("disk"),
        );
        let config = Config::parse(&yaml, "lab.yaml", &kinds(), dir.path())?;
        let served = serve(config.root).await.map_err(anyhow::Error::from_boxed)?;
        let store = OpendalClient::new(served.child("store"));
        Ok(Self { dir, served, store })
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }
}

fn fault(error: CallError) -> (FaultKind, String) {
    match error {
        CallError::Fault { fault, .. } => (fault.kind, fault.text),
        other => panic!("no fault: {other:?}"),
    }
}

async fn all(mut items: ItemStream<String>) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    while let Some(item) = items.next().await {
        all.push(item?);
    }
    all.sort();
    Ok(all)
}

/// A writer whose bytes can be looked at afterwards.
async fn bytes_of(store: &Store, path: &str) -> anyhow::Result<Vec<u8>> {
    let file = tempfile::NamedTempFile::new()?;
    let to = tokio::fs::File::from_std(file.reopen()?);
    store.read(path.to_owned(), Lend::writer(to)).await?;
    Ok(std::fs::read(file.path())?)
}

#[tokio::test]
async fn a_file_is_opened_written_closed_and_read_as_in_jumpstarter() -> anyhow::Result<()> {
    let lab = Lab::start(false).await?;
    for store in [&lab.store, &OpendalClient::new(lab.served.child("memory"))] {
        let path = || "boot/hello".to_owned();
        let fd = store.open(path(), OpenMode::Write).await?;
        assert_eq!(store.file_write(fd.clone(), Lend::bytes("hello ")).await?, 6);
        assert_eq!(store.file_write(fd.clone(), Lend::bytes("world")).await?, 5);
        assert_eq!(store.file_tell(fd.clone()).await?, 11);
        assert!(store.file_writable(fd.clone()).await? && !store.file_seekable(fd.clone()).await?);
        assert!(!store.exists(path()).await?, "it is there before it is whole");
        store.file_close(fd.clone()).await?;
        assert!(store.file_closed(fd.clone()).await? && store.exists(path()).await?);
        let (kind, text) = fault(store.file_close(fd).await.unwrap_err());
        assert!(kind == FaultKind::Argument && text.contains("no file"), "{text}");

        let fd = store.open(path(), OpenMode::Read).await?;
        assert!(store.file_readable(fd.clone()).await?);
        assert_eq!(store.file_seek(fd.clone(), -5, 2).await?, 6);
        let file = tempfile::NamedTempFile::new()?;
        let to = Lend::writer(tokio::fs::File::from_std(file.reopen()?));
        assert_eq!(store.file_read(fd.clone(), to).await?, 5);
        assert_eq!(std::fs::read(file.path())?, b"world");
        assert_eq!(store.file_tell(fd.clone()).await?, 11);
        let (kind, text) = fault(store.file_seek(fd.clone(), 1, 2).await.unwrap_err());
        assert!(kind == FaultKind::Argument && text.contains("11 bytes"), "{text}");
        let (_, text) = fault(store.file_write(fd.clone(), Lend::bytes("x")).await.unwrap_err());
        assert!(text.contains("open it as wb"), "{text}");
        store.file_close(fd).await?;

        let known = store.stat(path()).await?;
        assert!(known.mode.is_file && known.content_length == 11);
        let md5 = store.hash(path(), HashAlgorithm::Md5).await?;
        assert_eq!(md5, "5eb63bbbe01eeed093cb22bb8f5acdc3");
        let sha256 = store.hash(path(), HashAlgorithm::Sha256).await?;
        assert_eq!(sha256, "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
        assert_eq!(bytes_of(store, "boot/hello").await?, b"hello world");
    }
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_tree_is_listed_copied_renamed_and_removed() -> anyhow::Result<()> {
    let lab = Lab::start(false).await?;
    let store = &lab.store;
    store.write("a/one".to_owned(), Lend::bytes("1")).await?;
    store.create_dir("a/deep/er".to_owned()).await?;
    store.copy("a/one".to_owned(), "a/deep/two".to_owned()).await?;
    store.rename("a/one".to_owned(), "top".to_owned()).await?;
    assert_eq!(all(store.list("/".to_owned()).await?).await?, ["a/", "top"]);
    let deep = all(store.scan("/".to_owned()).await?).await?;
    assert_eq!(deep, ["a/", "a/deep/", "a/deep/er/", "a/deep/two", "top"]);
    let made = ["a/deep/er/", "a/deep/two", "top"];
    assert_eq!(store.get_created_resources().await?, made);
    store.remove_all("a".to_owned()).await?;
    store.delete("nothing".to_owned()).await?;
    assert_eq!(all(store.scan("/".to_owned()).await?).await?, ["top"]);
    assert_eq!(store.get_created_resources().await?, ["top"]);
    let (kind, text) = fault(store.stat("a/deep/two".to_owned()).await.unwrap_err());
    assert!(kind == FaultKind::Argument && text.contains("no such file"), "{text}");
    let (kind, text) = fault(store.presign_read("top".to_owned(), 60).await.unwrap_err());
    assert!(kind == FaultKind::Unsupported, "{text}");
    let can = store.capability().await?;
    assert!(can.read && can.rename && !can.presign_read);
    let tree = lab.tree();
    lab.served.shutdown().await?;
    assert!(tree.join("top").exists(), "what was made stays unless told");
    Ok(())
}

#[tokio::test]
async fn nothing_leads_out_of_the_root_and_nothing_half_is_left() -> anyhow::Result<()> {
    let lab = Lab::start(true).await?;
    let store = &lab.store;
    std::fs::write(lab.tree().join("mine"), "stays")?;
    std::os::unix::fs::symlink("/etc", lab.tree().join("etc"))?;
    for bad in ["../x", "a/../../x", "etc/passwd", "etc/new", "/../x"] {
        let (kind, text) = fault(store.exists(bad.to_owned()).await.unwrap_err());
        assert!(kind == FaultKind::Argument && text.contains("storage's root"), "{bad}: {text}");
        let written = store.write(bad.to_owned(), Lend::bytes("x")).await;
        assert_eq!(fault(written.unwrap_err()).0, FaultKind::Argument, "{bad}");
    }
    // What was lent breaks off: neither the file nor a part of it is there.
    let broken = Lend::bytes("short").of_length(10);
    let (kind, text) = fault(store.write("mine".to_owned(), broken).await.unwrap_err());
    assert!(kind == FaultKind::Resource, "{text}");
    assert_eq!(std::fs::read(lab.tree().join("mine"))?, b"stays", "the old file was lost");
    let fd = store.open("half".to_owned(), OpenMode::Write).await?;
    let broken = Lend::bytes("short").of_length(10);
    let (_, text) = fault(store.file_write(fd.clone(), broken).await.unwrap_err());
    assert!(text.contains("open it again"), "{text}");
    assert!(store.file_closed(fd).await? && !store.exists("half".to_owned()).await?);
    // A file that nobody closed, and one that was made here, go with the driver.
    let fd = store.open("open".to_owned(), OpenMode::Write).await?;
    store.file_write(fd, Lend::bytes("x")).await?;
    store.write("deep/made".to_owned(), Lend::bytes("x")).await?;
    store.write("mine".to_owned(), Lend::bytes("stays, too")).await?;
    std::fs::write(lab.tree().join("registered"), "x")?;
    store.register_path("registered".to_owned()).await?;
    let tree = lab.tree();
    lab.served.shutdown().await?;
    let left = |dir: &str| -> anyhow::Result<Vec<String>> {
        let names = std::fs::read_dir(tree.join(dir))?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    };
    assert_eq!(left("")?, [".jmp-bus-parts", "deep", "etc", "mine"]);
    assert!(left("deep")?.is_empty() && left(".jmp-bus-parts")?.is_empty());
    Ok(())
}

#[tokio::test]
async fn files_of_clients_that_are_gone_are_bounded() -> anyhow::Result<()> {
    let lab = Lab::start(false).await?;
    let mut open = Vec::new();
    let refused = loop {
        match lab.store.open(format!("f{}", open.len()), OpenMode::Write).await {
            Ok(fd) => open.push(fd),
            Err(error) => break fault(error),
        }
    };
    assert_eq!(open.len(), 256);
    assert!(refused.0 == FaultKind::Busy && refused.1.contains("close one"), "{refused:?}");
    lab.store.file_close(open.remove(0)).await?;
    lab.store.open("another".to_owned(), OpenMode::Write).await?;
    lab.served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn any_storage_is_the_source_and_the_sink_of_a_resource() -> anyhow::Result<()> {
    let lab = Lab::start(false).await?;
    let disk: StorageClient<DriverRef> = StorageClient::new(lab.served.child("disk"));
    let image: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let root = lab.dir.path().display().to_string();
    let here = open_operator("fs", [("root".to_owned(), root)].into())?;
    let memory = open_operator("memory", [].into())?;
    for operator in [here, memory] {
        operator.write("images/disk.img", image.clone()).await?;
        let source = OpendalAdapter::new(operator.clone(), "images/disk.img").source().await?;
        let written = disk.write(source, 0, false).await?;
        assert_eq!(written.bytes, 300_000);
        let sink = OpendalAdapter::new(operator.clone(), "back/disk.img").sink()?;
        disk.read(sink, 1000, Some(5000)).await?;
        assert_eq!(operator.read("back/disk.img").await?.to_vec(), image[1000..6000]);
        // Nothing is left of what does not come: the driver refuses before, or breaks off.
        let sink = OpendalAdapter::new(operator.clone(), "back/none.img").sink()?;
        fault(disk.read(sink, 2 << 20, Some(5000)).await.unwrap_err());
        assert!(!operator.exists("back/none.img").await?);
        let missing = OpendalAdapter::new(operator, "images/none.img").source().await;
        match missing {
            Err(error) => assert!(error.to_string().contains("no such file"), "{error}"),
            // A file of this host is looked at when it is lent.
            Ok(lend) => drop(disk.write(lend, 0, false).await.unwrap_err()),
        }
    }
    lab.served.shutdown().await?;
    Ok(())
}
