//! Files, readers, URLs and writers that are lent to a driver.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bus_schema::{
    BlockPart, Coding, FaultKind, Manifest, Packing, RefusalCode, Sha256, codec,
    subject::{Piece, Stored as StoredAt},
};
use bus_tests::{Lab, Taker, TakerClient, Took};
use runtime::{CallError, Client, DriverRef, Exporter, Lend, LendError, Node, Put};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

pub(crate) const GRACE: Duration = Duration::from_secs(10);
pub(crate) const MIB: u64 = 1 << 20;

/// A lab with one driver that takes what it is lent.
pub(crate) struct Lending {
    pub(crate) lab: Lab,
    pub(crate) taker: Taker,
    pub(crate) exporter: Exporter,
    pub(crate) client: Client,
}

impl Lending {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::on(Lab::new().await?).await
    }

    pub(crate) async fn on(lab: Lab) -> anyhow::Result<Self> {
        let taker = Taker::default();
        let exporter = lab.serve(Node::of("taker", taker.clone())).await?;
        let client = lab.client("alice").await?;
        Ok(Self { lab, taker, exporter, client })
    }

    pub(crate) fn bench(&self) -> TakerClient<DriverRef> {
        TakerClient::new(self.client.driver(&self.lab.address()))
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.lab.dir.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.client.close().await;
        Ok(self.exporter.shutdown(GRACE).await?)
    }
}

/// Bytes that no packer makes smaller.
pub(crate) fn noise(bytes: u64, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(bytes as usize).collect()
}

pub(crate) fn digest(bytes: &[u8]) -> Sha256 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Sha256(digest.as_ref().try_into().expect("32 bytes"))
}

pub(crate) fn is(took: &Took, bytes: &[u8]) -> bool {
    took.bytes == bytes.len() as u64 && took.sha256 == digest(bytes).to_string()
}

pub(crate) fn fault(error: CallError) -> (FaultKind, String) {
    match error {
        CallError::Fault { fault, .. } => (fault.kind, fault.text),
        other => panic!("no fault: {other:?}"),
    }
}

#[tokio::test]
async fn a_file_arrives_whole_under_its_name_and_is_sent_once() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(9 * MIB + 5, 1);
    let path = lending.file("disk.img", &bytes)?;
    let took = lending.bench().take(&*path).await?;
    assert!(is(&took, &bytes), "{took:?}");
    assert_eq!((took.name.as_str(), took.announced), ("disk.img", Some(9 * MIB + 5)));
    let again = lending.client.put(Put::new(&path)).await?;
    assert_eq!(again.sent, 0);
    // A changed megabyte costs one block.
    let mut changed = bytes.clone();
    changed[(5 * MIB) as usize] ^= 1;
    let path = lending.file("disk.img", &changed)?;
    let stored = lending.client.put(Put::new(&path)).await?;
    assert!((4 * MIB..5 * MIB).contains(&stored.sent), "{}", stored.sent);
    assert!(is(&lending.bench().take(stored).await?, &changed));
    lending.stop().await
}

#[tokio::test]
async fn zeros_are_not_sent_and_stay_holes() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let path = lending.lab.dir.path().join("sparse.img");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(&noise(MIB, 2))?;
    file.set_len(600 * MIB)?;
    let stored = lending.client.put(Put::new(&path)).await?;
    assert!(stored.sent < 5 * MIB, "{}", stored.sent);
    let took = lending.bench().take(&stored).await?;
    assert!(is(&took, &std::fs::read(&path)?));
    assert!(took.holes >= 596 * MIB, "{}", took.holes);
    // So many that even the list of them is zeros.
    let bytes = 1025 * 64 * 1024;
    let (blocks, list) = (bytes::Bytes::new(), Some(Sha256::ZEROS));
    let name = "holes".to_owned();
    let holes = Manifest { name, bytes, sha256: None, block_bytes: 64 << 10, blocks, list };
    let message = codec::encode(&holes).to_vec();
    let holes = runtime::Stored { manifest: digest(&message), bytes, ..stored };
    plant(&lending, Piece::Manifest(holes.manifest), message).await?;
    let took = lending.bench().take(&holes).await?;
    assert_eq!((took.bytes, took.holes), (bytes, bytes));
    lending.stop().await
}

#[tokio::test]
async fn an_empty_file_and_a_text_are_files_too() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    for bytes in [&b""[..], b"x", &[b'a'; 70_000], &vec![0; 5 * MIB as usize]] {
        let path = lending.file("a", bytes)?;
        let took = lending.bench().take(&*path).await?;
        assert!(is(&took, bytes), "{took:?}");
    }
    lending.stop().await
}

#[tokio::test]
async fn what_is_packed_is_unpacked_on_the_exporter_unless_told_otherwise() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = [noise(MIB, 3), vec![0; 8 * MIB as usize], noise(7, 4)].concat();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bytes)?;
    let packed = encoder.finish()?;
    let path = lending.file("disk.img.gz", &packed)?;
    let took = lending.bench().take(&*path).await?;
    assert!(is(&took, &bytes), "{took:?}");
    assert_eq!((took.packing.as_str(), took.announced), ("gzip", None));
    assert!(took.holes >= 7 * MIB, "{took:?}");
    let plain = lending.bench().take(Lend::file(&path).packed(Packing::None)).await?;
    assert!(is(&plain, &packed), "{plain:?}");
    // The same by a live reader.
    let reader = std::io::Cursor::new(packed.clone());
    assert!(is(&lending.bench().take(Lend::reader(reader)).await?, &bytes));
    let cut = lending.file("cut.gz", &packed[..packed.len() - 20])?;
    let (kind, text) = fault(lending.bench().take(&*cut).await.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    assert!(text.contains("gzip") && text.contains("ends before its end"), "{text}");
    let mut damaged = packed.clone();
    damaged[packed.len() / 2] ^= 0x10;
    let damaged = lending.file("damaged.gz", &damaged)?;
    assert_eq!(fault(lending.bench().take(&*damaged).await.unwrap_err()).0, FaultKind::Resource);
    let no_xz = Lend::bytes("no archive").packed(Packing::Xz);
    let (_, text) = fault(lending.bench().take(no_xz).await.unwrap_err());
    assert!(text.contains("xz data cannot be unpacked"), "{text}");
    let unknown = Lend::bytes("x").packed(Packing::Other("lz9".to_owned()));
    let text = lending.bench().take(unknown).await.unwrap_err().to_string();
    assert!(text.contains("no packing \"lz9\"") && text.contains("zstd"), "{text}");
    lending.stop().await
}

#[tokio::test]
async fn a_live_reader_goes_to_the_driver_as_it_is_read() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(3 * MIB + 1, 5);
    let (mut tx, rx) = duplex(1000);
    let bench = lending.bench();
    let writing = async {
        tx.write_all(&bytes).await?;
        drop(tx);
        anyhow::Ok(())
    };
    let (took, written) = tokio::join!(bench.take(Lend::reader(rx).named("pipe")), writing);
    written?;
    let took = took?;
    assert!(is(&took, &bytes) && took.name == "pipe" && took.announced.is_none(), "{took:?}");
    let two = bench.take_two(Lend::bytes("first"), Lend::bytes("second")).await?;
    assert!(is(&two[0], b"first") && is(&two[1], b"second"));
    // What the driver does not want is not read, and what it does not look at not even asked for.
    assert_eq!(bench.taste(Lend::reader(tokio::io::repeat(b'y')), 5).await?, "yyyyy");
    assert_eq!(bench.ignore(Lend::reader(tokio::io::repeat(b'y')).named("n")).await?, "n");
    let mut items = bench.follow(Lend::bytes(vec![1; 300_000])).await?;
    let mut last = 0;
    while let Some(item) = items.next().await {
        last = item?;
    }
    assert_eq!(last, 300_000);
    lending.stop().await
}

/// Gives some bytes, then an error.
struct Broken(bool);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match std::mem::replace(&mut self.0, true) {
            true => std::task::Poll::Ready(Err(std::io::Error::other("the tape tore"))),
            false => {
                into.put_slice(b"some bytes");
                std::task::Poll::Ready(Ok(()))
            }
        }
    }
}

#[tokio::test]
async fn a_reader_that_fails_fails_the_call_with_its_reason() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let (kind, text) = fault(lending.bench().take(Lend::reader(Broken(false))).await.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    assert!(text.contains("the tape tore"), "{text}");
    assert_eq!(lending.taker.done.load(Ordering::Relaxed), 0);
    lending.stop().await
}

/// A writer that others can look into.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>, Arc<AtomicU64>);

impl tokio::io::AsyncWrite for Shared {
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
        self.1.fetch_add(1, Ordering::Relaxed);
        std::task::Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_a_driver_hands_back_is_all_there_when_the_call_ends() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    for bytes in [0, 1, 3 * MIB + 17] {
        let into = Shared::default();
        lending.bench().give(Lend::writer(into.clone()), bytes, true).await?;
        let got = into.0.lock().unwrap();
        assert!(got.len() as u64 == bytes && got.iter().all(|byte| *byte == 7), "{}", got.len());
        assert_eq!(into.1.load(Ordering::Relaxed), 1, "it was shut down");
    }
    // The driver dropped it in the middle: that is no end.
    let into = Shared::default();
    let error = lending.bench().give(Lend::writer(into.clone()), MIB, false).await.unwrap_err();
    assert!(matches!(error, CallError::Lending(LendError::Incomplete(_))), "{error:?}");
    assert!(error.may_have_acted());
    lending.stop().await
}

#[tokio::test]
async fn a_resource_lent_the_wrong_way_round_is_refused() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bench = lending.bench();
    let read = bench.take(Lend::writer(Shared::default())).await.unwrap_err();
    let written = bench.give(Lend::bytes("x"), 1, true).await.unwrap_err();
    for (error, said) in [(read, "this is read"), (written, "this is written")] {
        let CallError::Refused { refusal, .. } = error else { panic!("{error:?}") };
        assert_eq!(refusal.code, RefusalCode::BadArguments);
        assert!(refusal.text.contains(said), "{refusal}");
    }
    lending.stop().await
}

#[tokio::test]
async fn a_resource_is_gone_with_its_call() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    lending.bench().keep(Lend::reader(tokio::io::repeat(1))).await?;
    lending.taker.events.happened("kept: Err(Over)").await;
    lending.stop().await
}

#[tokio::test]
async fn a_missing_file_is_named_and_nothing_is_called() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let missing = Path::new("/nonexistent/disk.img");
    let error = lending.bench().take(missing).await.unwrap_err();
    assert!(!error.may_have_acted() && error.to_string().contains("/nonexistent/disk.img"));
    let dir = lending.bench().take(lending.lab.dir.path()).await.unwrap_err();
    assert!(dir.to_string().contains("no plain file"), "{dir}");
    lending.stop().await
}

/// Stores pieces by hand, as a client that lies would.
async fn plant(lending: &Lending, piece: Piece, bytes: Vec<u8>) -> anyhow::Result<()> {
    let peer = lending.lab.peer().await?;
    let stored = StoredAt { client: "alice".parse()?, piece };
    let ack = peer.nats.request(stored.under(&lending.lab.root), bytes.into()).await?;
    anyhow::ensure!(!ack.payload.starts_with(b"{\"error"), "{:?}", ack.payload);
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_what_it_is_stored_as_never_ends_well() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(5 * MIB, 6);
    let good = lending.client.put(Put::new(lending.file("a", &bytes)?)).await?;
    assert!(is(&lending.bench().take(&good).await?, &bytes));

    // A manifest of another digest.
    let manifest = Manifest {
        name: "a".to_owned(),
        bytes: 3,
        sha256: None,
        block_bytes: 4 * MIB,
        blocks: digest(b"abc").0.to_vec().into(),
        list: None,
    };
    let message = codec::encode(&manifest).to_vec();
    let wrong = runtime::Stored { manifest: Sha256([1; 32]), bytes: 3, ..good.clone() };
    plant(&lending, Piece::Manifest(wrong.manifest), message.clone()).await?;
    let (kind, text) = fault(lending.bench().take(&wrong).await.unwrap_err());
    assert!(kind == FaultKind::Resource && text.contains("another digest"), "{text}");

    // A manifest whose block is missing, then of another digest, then too long.
    let stored = runtime::Stored { manifest: digest(&message), bytes: 3, ..good.clone() };
    plant(&lending, Piece::Manifest(stored.manifest), message).await?;
    let (_, text) = fault(lending.bench().take(&stored).await.unwrap_err());
    assert!(text.contains("no longer"), "{text}");
    let block = Piece::Part(digest(b"abc"), 0);
    let part = |data: &'static [u8], bytes| {
        BlockPart { parts: 1, bytes, coding: Coding::Plain, data: data.into() }.encode().to_vec()
    };
    for (bytes, said) in [
        (part(b"abd", 3), "another digest"),
        (part(b"abc", 9), "3 bytes, not 9"),
        (b"\x01\x51\x80".to_vec(), "damaged"),
        (part(b"abc", u64::MAX), "is over"),
        (
            BlockPart { parts: 9, ..BlockPart::decode(&part(b"abc", 3).into())? }.encode().to_vec(),
            "no longer",
        ),
        (
            BlockPart { coding: Coding::Lz4, ..BlockPart::decode(&part(b"abc", 3).into())? }
                .encode()
                .to_vec(),
            "damaged",
        ),
    ] {
        plant(&lending, block, bytes).await?;
        let (kind, text) = fault(lending.bench().take(&stored).await.unwrap_err());
        let wanted = if said == "no longer" { FaultKind::Gone } else { FaultKind::Resource };
        assert!(kind == wanted && text.contains(said), "{said}: {text}");
    }
    plant(&lending, block, part(b"abc", 3)).await?;
    assert!(is(&lending.bench().take(&stored).await?, b"abc"));

    // The blocks are right, and the whole is not what the manifest says.
    let lying = Manifest { sha256: Some(digest(b"abd")), ..manifest.clone() };
    let message = codec::encode(&lying).to_vec();
    let liar = runtime::Stored { manifest: digest(&message), ..stored.clone() };
    plant(&lending, Piece::Manifest(liar.manifest), message).await?;
    let done = lending.taker.done.load(Ordering::Relaxed);
    let (_, text) = fault(lending.bench().take(&liar).await.unwrap_err());
    assert!(text.contains("its SHA-256 is"), "{text}");
    assert_eq!(lending.taker.done.load(Ordering::Relaxed), done, "nobody was told that it is done");

    // It is not what the caller says that it lends.
    let claimed = runtime::Stored { bytes: 4, ..stored.clone() };
    let (_, text) = fault(lending.bench().take(&claimed).await.unwrap_err());
    assert!(text.contains("3 bytes, not 4"), "{text}");
    lending.stop().await
}

#[tokio::test]
async fn nobody_reads_the_files_of_another_client() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(MIB, 7);
    let stored = lending.client.put(Put::new(lending.file("a", &bytes)?)).await?;
    assert!(is(&lending.bench().take(&stored).await?, &bytes));
    let bob = lending.lab.client("bob").await?;
    let theirs = TakerClient::new(bob.driver(&lending.lab.address()));
    let (kind, text) = fault(theirs.take(&stored).await.unwrap_err());
    assert!(kind == FaultKind::Gone && text.contains("no longer"), "{text}");
    bob.close().await;
    lending.stop().await
}

/// Takes a piece away, as age does.
async fn age(lending: &Lending, piece: Piece) -> anyhow::Result<()> {
    let peer = lending.lab.peer().await?;
    let filter = StoredAt { client: "alice".parse()?, piece }.under(&lending.lab.root);
    let purge = format!("$JS.API.STREAM.PURGE.{}_files", lending.lab.root);
    let body = format!("{{\"filter\":\"{filter}\"}}");
    let answer = peer.nats.request(purge, body.into()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    anyhow::ensure!(answer["purged"] == 1, "{filter}: {answer}");
    Ok(())
}

#[tokio::test]
async fn a_file_that_has_gone_since_it_was_put_is_told_apart_and_can_be_put_again()
-> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let (client, bench) = (&lending.client, lending.bench());
    let bytes = noise(6 * MIB, 9);
    let path = lending.file("a", &bytes)?;
    let gone = |error: CallError| {
        assert!(error.lacks_file() && error.may_have_acted(), "{error:?}");
        let (kind, text) = fault(error);
        assert_eq!(kind, FaultKind::Gone);
        assert!(text.contains("has to be stored again"), "{text}");
    };

    // All of it: whoever lends the file and not what was stored once notices before the call.
    let stored = client.put(Put::new(&path)).await?;
    let files = client.files().await?;
    client.remove_file(&files[0], &files).await?;
    gone(bench.take(&stored).await.unwrap_err());
    assert!(is(&bench.take(&*path).await?, &bytes));

    // A part of a block, which nobody notices who asks for its first one only. (The exporter keeps
    // blocks that it has read for a while: another one.)
    let bytes = noise(6 * MIB, 10);
    let path = lending.file("b", &bytes)?;
    let stored = client.put(Put::new(&path)).await?;
    age(&lending, Piece::Part(digest(&bytes[..4 << 20]), 1)).await?;
    assert_eq!(client.put(Put::new(&path)).await?.sent, 0);
    gone(bench.take(&*path).await.unwrap_err());
    // A driver that just copies what it is lent says the same.
    gone(bench.taste(&stored, bytes.len() as u64).await.unwrap_err());
    let again = client.put(Put { again: true, ..Put::new(&path) }).await?;
    assert!(again.manifest == stored.manifest && again.sent >= 6 * MIB, "{again:?}");
    assert!(is(&bench.take(&stored).await?, &bytes), "what was stored before is good again");

    let mut items = bench.follow(&stored).await?;
    while items.next().await.transpose()?.is_some() {}
    age(&lending, Piece::Manifest(stored.manifest)).await?;
    let mut items = bench.follow(&stored).await?;
    gone(items.next().await.context("an end")?.unwrap_err());
    lending.stop().await
}

#[tokio::test]
async fn an_interrupted_upload_goes_on_where_it_was() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(40 * MIB, 8);
    let path = lending.file("disk.img", &bytes)?;
    let far = Arc::new(tokio::sync::Notify::new());
    let tell = far.clone();
    let put = Put {
        on_moved: Some(Arc::new(move |moved: runtime::Moved| {
            if moved.bytes >= 16 * MIB {
                tell.notify_one();
            }
        })),
        ..Put::new(&path)
    };
    let client = lending.lab.client("alice").await?;
    tokio::select! {
        () = far.notified() => {}
        stored = client.put(put) => panic!("it was not interrupted: {stored:?}"),
    }
    drop(client);
    let stored = lending.client.put(Put::new(&path)).await?;
    assert!(stored.sent <= 24 * MIB + MIB, "{} of 40 MiB were sent again", stored.sent);
    assert!(is(&lending.bench().take(&stored).await?, &bytes));
    // Everything once more, without asking.
    let again = lending.client.put(Put { again: true, ..Put::new(&path) }).await?;
    assert!(again.sent >= 40 * MIB && again.manifest == stored.manifest);
    lending.stop().await
}

#[tokio::test]
async fn a_plain_client_lends_a_url_in_json_and_is_told_what_a_resource_is() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let peer = lending.lab.peer().await?;
    let id = lending.client.driver(&lending.lab.address()).id();
    let subject = format!("{}.v1.c.alice.call.bench.{id}.ignore", lending.lab.root);
    let mut said = Vec::new();
    for args in [
        r#"["http://127.0.0.1:1/a"]"#,
        r#"[{"from": {"url": {"url": "http://127.0.0.1:1/a"}}, "name": "n"}]"#,
        r#"["a file"]"#,
        r#"[{"from": "x"}]"#,
        "[7]",
    ] {
        let body = format!("{{\"args\": {args}}}");
        let answer = peer.request("alice", &subject, body).await?;
        said.push(String::from_utf8(answer.payload.to_vec()).context("text")?);
    }
    assert!(said[0].contains("\"result\":\"\""), "{}", said[0]);
    assert!(said[1].contains("\"result\":\"n\""), "{}", said[1]);
    assert!(said[2].contains("no http:// or https:// URL: a resource is a URL"), "{}", said[2]);
    assert!(said[3].contains("expected a resource"), "{}", said[3]);
    assert!(said[4].contains("bad-arguments"), "{}", said[4]);
    lending.stop().await
}

#[tokio::test]
async fn lies_about_the_length_or_digest_of_what_is_lent_are_errors() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let driver = lending.client.driver(&lending.lab.address());
    let file = lending.file("abc", b"abc")?;
    let claims = [
        (Some(4), None, "3 bytes, not 4"),
        (None, Some(digest(b"abd")), "its SHA-256 is"),
        (Some(3), Some(digest(b"abc")), ""),
    ];
    let lent = |n: usize| [Lend::bytes("abc"), Lend::file(&file)].into_iter().nth(n % 2);
    for (n, (bytes, sha256, said)) in claims.into_iter().flat_map(|one| [one, one]).enumerate() {
        let mut loan = bus_schema::Invoke::lend(&driver, lent(n).context("two")?).await?;
        loan.lent = bus_schema::Lent { bytes, sha256, ..loan.lent };
        let word = bus_schema::Value::of(&loan.lent).context("a value")?;
        let result = driver.call_words_with("take", &[word], vec![loan]).await;
        match (said, result) {
            ("", Ok(_)) => {}
            (said, Err(error)) => {
                assert!(!said.is_empty() && fault(error.clone()).1.contains(said), "{error}");
            }
            (said, Ok(_)) => panic!("{said}: it was taken"),
        }
    }
    lending.stop().await
}

#[test]
fn the_blocking_client_lends_and_takes_back() -> anyhow::Result<()> {
    let served = runtime::blocking::serve(Node::of("taker", Taker::default()))
        .map_err(anyhow::Error::from_boxed)?;
    let bench = bus_tests::TakerBlocking::new(served.driver());
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), b"hello")?;
    assert!(is(&bench.take(file.path())?, b"hello"));
    let into = Shared::default();
    bench.give(Lend::writer(into.clone()), 1000, true)?;
    assert_eq!(into.0.lock().unwrap().len(), 1000);
    served.shutdown()?;
    Ok(())
}

#[tokio::test]
async fn a_url_is_not_fetched_by_the_client() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://u:s3cret@{}/a/disk.img?sig=s3cret", server.local_addr()?);
    let serving = async {
        let (mut tcp, _) = server.accept().await?;
        let mut asked = vec![0; 4096];
        let len = tcp.read(&mut asked).await?;
        tcp.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
        anyhow::Ok(String::from_utf8_lossy(&asked[..len]).into_owned())
    };
    let bench = lending.bench();
    let lend = Lend::url(url, [("X-Token", "s3cret-token")]);
    let (asked, result) = tokio::join!(serving, bench.take(lend));
    let asked = asked?.to_ascii_lowercase();
    assert!(asked.contains("x-token: s3cret-token") && asked.contains("sig=s3cret"), "{asked}");
    let (kind, text) = fault(result.unwrap_err());
    assert_eq!(kind, FaultKind::Resource);
    assert!(text.contains("404") && !text.contains("s3cret"), "{text}");
    lending.stop().await
}
