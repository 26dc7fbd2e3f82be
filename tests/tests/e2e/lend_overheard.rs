//! Blocks of files that an exporter hears while they are stored.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bus_schema::{
    BlockNews, BlockPart, Coding, FaultKind, Lent, LentFrom, Sha256, Value,
    subject::{Piece, Stored as StoredAt, StoredTo},
};
use bus_tests::{Brake, Peer, Took};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::{CallError, Lend, Put, Storing};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use crate::lend::{GRACE, Lending, MIB, digest, fault, is, noise};

/// A client that tells of blocks by hand, and stores them by hand or not at all.
struct Teller {
    lending: Arc<Lending>,
    peer: Peer,
    news: DuplexStream,
    took: tokio::task::JoinHandle<Result<Bytes, CallError>>,
}

impl Teller {
    /// Lends a file of so many bytes.
    async fn lends(bytes: u64) -> anyhow::Result<Self> {
        let lending = Arc::new(Lending::start().await?);
        let peer = lending.lab.peer().await?;
        let driver = lending.client.driver(&lending.lab.address());
        let (news, read) = duplex(1 << 20);
        let mut loan = bus_schema::Invoke::lend(&driver, Lend::reader(read)).await?;
        let LentFrom::Stream(id) = loan.lent.from else { panic!("{:?}", loan.lent) };
        loan.lent = Lent { bytes: Some(bytes), ..Lent::new(LentFrom::Storing(id)) };
        let word = Value::of(&loan.lent).context("a value")?;
        let taking = async move { driver.call_words_with("take", &[word], vec![loan]).await };
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let took = tokio::spawn(taking);
        Ok(Self { lending, peer, news, took })
    }

    async fn tell(&mut self, news: &[BlockNews]) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        news.iter().for_each(|news| news.write(&mut bytes));
        Ok(self.news.write_all(&bytes).await?)
    }

    /// Says a message as part `n` of the block to the exporter, whatever becomes of it.
    async fn say(&self, block: Sha256, n: u32, message: impl Into<Bytes>) -> anyhow::Result<()> {
        self.say_as("alice", block, n, message).await
    }

    /// The same, with the reply subject of somebody.
    async fn say_as(
        &self,
        who: &str,
        block: Sha256,
        n: u32,
        message: impl Into<Bytes>,
    ) -> anyhow::Result<()> {
        let (client, exporter) = ("alice".parse()?, "bench".parse()?);
        let to = StoredTo { client, exporter, block, part: n }.under(&self.lending.lab.root);
        self.peer.send(&to, Some(&self.peer.inbox(who)), None, message).await
    }

    /// Says the parts until the driver has something of them: the exporter may not listen yet.
    /// Before them somebody else says `lies` in their place.
    async fn say_until_begun(
        &self,
        block: Sha256,
        parts: &[Bytes],
        lies: &[Bytes],
    ) -> anyhow::Result<()> {
        let begun = self.lending.taker.events.happened("begun");
        let mut begun = std::pin::pin!(begun);
        for _ in 0..60 {
            for (n, lie) in (0..).zip(lies) {
                self.say_as("mallory", block, n, lie.clone()).await?;
            }
            for (n, part) in (0..).zip(parts) {
                self.say(block, n, part.clone()).await?;
            }
            if tokio::time::timeout(Duration::from_millis(200), &mut begun).await.is_ok() {
                return Ok(());
            }
        }
        anyhow::bail!("the driver has not begun")
    }

    /// What the driver took, when no more is told.
    async fn ends(mut self) -> anyhow::Result<Result<Took, CallError>> {
        self.news.shutdown().await?;
        let took = tokio::time::timeout(GRACE, self.took).await??;
        let took = match took {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(error) => Err(error),
        };
        let lending = Arc::into_inner(self.lending).context("nobody else has it")?;
        lending.stop().await?;
        Ok(took)
    }
}

/// A block in two parts.
fn parts(block: &[u8]) -> Vec<Bytes> {
    let (parts, bytes) = (2, block.len() as u64);
    let part = |data: &[u8]| {
        let data = Bytes::copy_from_slice(data);
        BlockPart { parts, bytes, coding: Coding::Plain, data }.encode()
    };
    block.chunks(block.len().div_ceil(2)).map(part).collect()
}

#[tokio::test]
async fn what_goes_by_is_a_file_before_it_is_stored() -> anyhow::Result<()> {
    let block = noise(MIB, 20);
    let is_block = digest(&block);
    let mut teller = Teller::lends(MIB).await?;
    // It cannot be had from JetStream.
    let stream = format!("$JS.API.STREAM.DELETE.{}_files", teller.lending.lab.root);
    teller.peer.nats.request(stream, "".into()).await?;
    teller.tell(&[BlockNews::Digest(is_block)]).await?;
    // Nothing that is no part of it does harm.
    let good = parts(&block);
    let mut garbage = vec![Bytes::new(), "garbage".into()];
    garbage.extend((0..good[0].len()).step_by(100_000).map(|cut| good[0].slice(..cut)));
    for message in garbage {
        teller.say(is_block, 0, message).await?;
    }
    teller.say(is_block, 7, good[0].clone()).await?;
    teller.say_until_begun(is_block, &good, &parts(&noise(MIB, 25))).await?;
    teller.tell(&[BlockNews::Stored]).await?;
    let took = teller.ends().await??;
    assert!(is(&took, &block), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn what_goes_by_and_is_another_is_read_where_it_is_stored() -> anyhow::Result<()> {
    let block = noise(MIB, 21);
    let is_block = digest(&block);
    let wrong = parts(&noise(MIB, 22));
    let lacks_one = BlockPart { parts: 3, ..BlockPart::decode(&wrong[0])? }.encode();
    for first in [&wrong[0], &lacks_one] {
        let mut teller = Teller::lends(MIB).await?;
        teller.tell(&[BlockNews::Digest(is_block)]).await?;
        let begun = teller.say_until_begun(is_block, std::slice::from_ref(first), &[]);
        let waits = tokio::time::timeout(Duration::from_secs(1), begun).await;
        assert!(waits.is_err(), "half of a wrong block is no beginning");
        // The other half of the wrong one; the right one is what is stored.
        teller.say(is_block, 1, wrong[1].clone()).await?;
        for (n, part) in (0..).zip(parts(&block)) {
            let piece = Piece::Part(is_block, n);
            let at = StoredAt { client: "alice".parse()?, piece }.under(&teller.lending.lab.root);
            teller.peer.nats.request(at, part).await?;
        }
        teller.tell(&[BlockNews::Stored]).await?;
        let took = teller.ends().await??;
        assert!(is(&took, &block), "{took:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_block_that_is_only_told_of_is_no_block() -> anyhow::Result<()> {
    for (news, said) in [
        (vec![BlockNews::Digest(Sha256([1; 32]))], "ends after 0 of 1"),
        (vec![BlockNews::Digest(Sha256([1; 32])), BlockNews::Stored], "not stored"),
        (vec![BlockNews::Stored], "block 0 is said to be stored, and not which it is"),
        (vec![BlockNews::Digest(Sha256::ZEROS); 2], "goes on after 1"),
    ] {
        let mut teller = Teller::lends(MIB).await?;
        teller.tell(&news).await?;
        let (kind, text) = fault(teller.ends().await?.unwrap_err());
        assert!(matches!(kind, FaultKind::Resource | FaultKind::Gone), "{kind:?}");
        assert!(text.contains(said), "{said}: {text}");
    }
    let mut teller = Teller::lends(MIB).await?;
    teller.news.write_all(b"\x2a").await?;
    let (_, text) = fault(teller.ends().await?.unwrap_err());
    assert!(text.contains("begin with 00 or 01, not 2a"), "{text}");
    Ok(())
}

/// Takes a file of which the rest is stored when the driver has begun with it.
async fn take_from(lending: &Lending, brake: Brake, from: &Storing) -> anyhow::Result<Took> {
    let bench = lending.bench();
    let mut taking = std::pin::pin!(bench.take(from));
    tokio::select! {
        took = &mut taking => return Ok(took?),
        () = lending.taker.events.happened("begun") => drop(brake),
    }
    Ok(taking.await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_while_it_is_stored_goes_to_its_reader_and_is_stored() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let bytes = noise(80 * MIB + 3, 23);
    let path = lending.file("disk.img", &bytes)?;
    let peer = lending.lab.peer().await?;
    let mut passing = peer.listen(&format!("{}.v1.f.alice.to.bench.>", lending.lab.root)).await?;
    let (brake, put) = Brake::at(4 * MIB, &path);
    let storing = lending.client.store(put).await?;
    let took = take_from(&lending, brake, &storing).await?;
    assert!(is(&took, &bytes), "{took:?}");
    // All but the blocks that were on their way before there was a reader.
    let mut parts = 0;
    while parts < 8 * 15 {
        let next = tokio::time::timeout(GRACE, passing.next()).await;
        assert!(next.is_ok_and(|next| next.is_some()), "{parts} parts went to the exporter");
        parts += 1;
    }
    let stored = storing.stored().await?;
    assert_eq!(lending.client.put(Put::new(&path)).await?, runtime::Stored { sent: 0, ..stored });
    assert!(is(&lending.bench().take(&storing).await?, &bytes));
    lending.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_stream_has_all_of_it_where_it_is_looked_for() -> anyhow::Result<()> {
    let lending = Lending::start().await?;
    let peer = lending.lab.peer().await?;
    let stream = format!("{}_files", lending.lab.root);
    let info = peer.nats.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await?;
    let info: serde_json::Value = serde_json::from_slice(&info.payload)?;
    let mut config = info["config"].clone();
    let transform = config["subject_transform"].take();
    assert!(transform.is_object(), "{info}");
    let update = format!("$JS.API.STREAM.UPDATE.{stream}");
    let updated = peer.nats.request(update, config.to_string().into()).await?;
    let updated: serde_json::Value = serde_json::from_slice(&updated.payload)?;
    assert!(updated["error"].is_null() && updated["config"]["subject_transform"].is_null());
    let problems = lending.lab.settings.check_streams(&lending.lab.root).await?;
    assert!(problems.iter().any(|line| line.contains("subject_transform")), "{problems:?}");

    let bytes = noise(40 * MIB, 24);
    let path = lending.file("disk.img", &bytes)?;
    let (brake, put) = Brake::at(4 * MIB, &path);
    let storing = lending.client.store(put).await?;
    let took = take_from(&lending, brake, &storing).await?;
    assert!(is(&took, &bytes), "{took:?}");
    let stored = storing.stored().await?;
    assert_eq!(lending.client.put(Put::new(&path)).await?, runtime::Stored { sent: 0, ..stored });
    assert!(is(&lending.bench().take(&storing).await?, &bytes));
    // It becomes a new one by itself, and loses nothing.
    lending.lab.settings.make_streams(&lending.lab.root).await?;
    let problems = lending.lab.settings.check_streams(&lending.lab.root).await?;
    assert!(problems.is_empty(), "{problems:?}");
    assert!(is(&lending.bench().take(&storing).await?, &bytes));
    lending.stop().await
}
