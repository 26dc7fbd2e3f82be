//! A file in JetStream, as an exporter reads it: blocks ahead of the driver, each checked.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    BlockPart, ClientName, Coding, Manifest, Sha256, StreamId, codec,
    limits::{BLOCK_BYTES_MAX, BLOCK_PART_BYTES_MAX, BLOCK_PARTS_MAX},
    subject::{Piece, Stored, StoredTo, Streams},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Extent, ResourceError, Sender, Source,
    cache::{Block, BlockCache},
    post::Post,
    progress::Progress,
    stream::LentStream,
};
use crate::{
    digest::{Hasher, is_zeros, sha256},
    exporter::Core,
};

/// Blocks of a file that are read at once: one is digested, one written, and some are on their way,
/// or listened for.
const BLOCKS_AT_ONCE: usize = 8;
/// Parts that are on their way to an exporter at once: 12 MiB, a fifth of the broker's
/// `max_pending`.
const PARTS_AT_ONCE: usize = 24;
/// Blocks that an exporter listens for at once, over all files: 32 MiB, half of `max_pending`, if
/// they all came at once.
const OVERHEARD_AT_ONCE: usize = 8;
/// Messages that are heard for one block: twice what it has at most, for it may be sent again.
const OVERHEARD_MAX: u32 = 2 * BLOCK_PARTS_MAX;
/// A piece that was just stored may not be readable yet where the stream has replicas …
const STORED_WITHIN: Duration = Duration::from_millis(200);
/// … so it is looked for again so often before it is gone.
const LOOKS: u32 = 3;

/// Some parts of a block, by their number.
type Parts = HashMap<u32, BlockPart>;

/// The files that an exporter reads.
pub(crate) struct Files {
    post: OnceCell<Post>,
    blocks: BlockCache,
    /// Who comes first is served first, so the parts of earlier blocks come before those of later.
    parts: Semaphore,
    overheard: Semaphore,
    /// The broker does not let us listen: its permissions were made before there was that.
    is_deaf: AtomicBool,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            post: OnceCell::default(),
            blocks: BlockCache::default(),
            parts: Semaphore::new(PARTS_AT_ONCE),
            overheard: Semaphore::new(OVERHEARD_AT_ONCE),
            is_deaf: AtomicBool::new(false),
        }
    }
}

/// Starts reading a file. Gives its length.
pub(super) async fn start(
    source: Source,
    digest: Sha256,
    tx: Sender,
) -> Result<Option<u64>, ResourceError> {
    let reader = Reader { core: source.core.clone(), client: source.caller.clone() };
    let manifest = reader.manifest(digest).await?;
    check(&source, &manifest)?;
    let list = reader.list(&manifest).await?;
    let digests = manifest.digests(&list).map_err(ResourceError::Damaged)?;
    let bytes = manifest.bytes;
    let blocks = digests.into_iter().map(|digest| Ok((digest, None)));
    reader.start(source, manifest, stream::iter(blocks), tx);
    Ok(Some(bytes))
}

/// Starts reading a file that is still being stored. Gives its length.
pub(super) fn start_early(
    source: Source,
    id: StreamId,
    tx: Sender,
) -> Result<Option<u64>, ResourceError> {
    let reader = Reader { core: source.core.clone(), client: source.caller.clone() };
    let bytes = source.lent.bytes.unwrap_or_default();
    // As it will be, but for the list of its blocks.
    let manifest = Manifest {
        name: String::new(),
        bytes,
        sha256: None,
        block_bytes: BLOCK_BYTES_MAX,
        blocks: Bytes::new(),
        list: None,
    };
    let count = manifest.count();
    let progress = Progress::listen(&source, LentStream::open(&source, id)?, count);
    let blocks = stream::try_unfold((progress, 0), move |(mut progress, n)| async move {
        if n == count {
            return progress.ended().await.map(|()| None);
        }
        let digest = progress.digest(n).await?;
        let coming = Coming { n, progress: progress.clone() };
        Ok(Some(((digest, Some(coming)), (progress, n + 1))))
    });
    reader.start(source, manifest, blocks, tx);
    Ok(Some(bytes))
}

/// Whether the manifest is of what the caller says that it lends.
fn check(source: &Source, manifest: &Manifest) -> Result<(), ResourceError> {
    let lent = &source.lent;
    if let Some(bytes) = lent.bytes.filter(|bytes| *bytes != manifest.bytes) {
        let text = format!("it has {} bytes, not {bytes}", manifest.bytes);
        return Err(ResourceError::Mismatch(text));
    }
    match (lent.sha256, manifest.sha256) {
        (Some(wanted), Some(digest)) if wanted != digest => {
            Err(ResourceError::Mismatch(format!("its SHA-256 is {digest}, not {wanted}")))
        }
        _ => Ok(()),
    }
}

/// A block that its owner may not have stored yet.
struct Coming {
    n: u64,
    progress: Progress,
}

impl Coming {
    /// Waits until it is stored. Cancel safe.
    async fn stored(&mut self) -> Result<(), ResourceError> {
        self.progress.stored(self.n).await
    }
}

/// A block of a file: its digest, and how far it is if the file is still being stored.
type Next = (Sha256, Option<Coming>);

/// Reads the files of one client.
#[derive(Clone)]
struct Reader {
    core: Arc<Core>,
    client: ClientName,
}

impl Reader {
    /// Reads a file for as long as somebody wants it.
    fn start(
        self,
        source: Source,
        manifest: Manifest,
        blocks: impl Stream<Item = Result<Next, ResourceError>> + Send + 'static,
        tx: Sender,
    ) {
        let Source { core, stop, lent, .. } = source;
        let whole = lent.sha256.or(manifest.sha256);
        core.tasks.spawn(async move {
            let _reading = self.core.files.blocks.reading();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tx.closed() => {}
                ended = self.send(&manifest, blocks, whole, &tx) => {
                    if let Err(error) = ended {
                        let _ = tx.send(Err(error)).await; // nobody reads any more
                    }
                }
            }
        });
    }

    /// Sends all blocks in their order, and the end only if the whole has the digest that it was
    /// said to have, if one was said.
    async fn send(
        &self,
        manifest: &Manifest,
        blocks: impl Stream<Item = Result<Next, ResourceError>> + Send,
        whole: Option<Sha256>,
        tx: &Sender,
    ) -> Result<(), ResourceError> {
        let blocks = blocks.enumerate().map(|(at, block)| {
            let (reader, len) = (self.clone(), manifest.len_of(at as u64));
            // A task of its own, so that it gets on while those before it are taken.
            let reading = block.map(|(digest, coming)| {
                let reading = async move { reader.extents(digest, len, coming).await };
                AbortOnDropHandle::new(self.core.tasks.spawn(reading))
            });
            async move { reading?.await.unwrap_or(Err(ResourceError::Over)) }
        });
        let mut blocks = pin!(blocks.buffered(BLOCKS_AT_ONCE));
        let mut hasher = whole.map(|_| Hasher::new());
        while let Some(extents) = blocks.try_next().await? {
            if let Some(before) = hasher {
                hasher = Some(hashed(before, extents.clone()).await?);
            }
            for extent in extents {
                if tx.send(Ok(extent)).await.is_err() {
                    return Ok(()); // nobody reads any more
                }
            }
        }
        match (whole, hasher.map(Hasher::finish)) {
            (Some(wanted), Some(digest)) if wanted != digest => {
                Err(ResourceError::Damaged(format!("its SHA-256 is {digest}, not {wanted}")))
            }
            _ => Ok(()),
        }
    }

    /// A block as the driver gets it.
    async fn extents(
        &self,
        digest: Sha256,
        len: u64,
        coming: Option<Coming>,
    ) -> Result<Vec<Extent>, ResourceError> {
        match digest {
            Sha256::ZEROS => Ok(vec![Extent::Hole(len)]),
            _ => {
                let block = self.block(digest, len, coming).await?;
                Ok(block.iter().cloned().map(Extent::Data).collect())
            }
        }
    }

    /// The digests of the blocks of a file.
    async fn list(&self, manifest: &Manifest) -> Result<Bytes, ResourceError> {
        let len = 32 * manifest.count();
        match manifest.list {
            None => Ok(manifest.blocks.clone()),
            Some(Sha256::ZEROS) => {
                Ok(vec![0; usize::try_from(len).expect("a list is no longer than a block")].into())
            }
            Some(list) => Ok(self.block(list, len, None).await?.concat().into()),
        }
    }

    async fn manifest(&self, digest: Sha256) -> Result<Manifest, ResourceError> {
        let bytes = self.piece(Piece::Manifest(digest)).await?;
        if sha256(&bytes) != digest {
            return Err(ResourceError::Damaged(format!("manifest {digest} has another digest")));
        }
        let manifest: Manifest = codec::decode(&bytes)
            .map_err(|error| ResourceError::Damaged(format!("manifest {digest}: {error}")))?;
        manifest.check().map_err(ResourceError::Damaged)?;
        Ok(manifest)
    }

    /// A block of this length, from the cache or from JetStream.
    async fn block(
        &self,
        digest: Sha256,
        len: u64,
        coming: Option<Coming>,
    ) -> Result<Block, ResourceError> {
        let key = (self.client.clone(), digest);
        let block = self.core.files.blocks.get(key, self.read_block(digest, coming)).await?;
        match block.iter().map(Bytes::len).sum::<usize>() as u64 {
            bytes if bytes == len => Ok(block),
            bytes => {
                let text = format!("block {digest} has {bytes} bytes, not {len}");
                Err(ResourceError::Damaged(text))
            }
        }
    }

    async fn read_block(
        &self,
        digest: Sha256,
        coming: Option<Coming>,
    ) -> Result<Block, ResourceError> {
        let Some(mut coming) = coming else { return self.assemble(digest, Parts::new()).await };
        let heard = self.overhear(digest, &mut coming).await?;
        if !heard.is_empty() {
            match self.assemble(digest, heard).await {
                // Whatever it was that came by: what counts is what is stored.
                Err(ResourceError::Damaged(_) | ResourceError::Gone { .. }) => {
                    coming.stored().await?;
                }
                read => return read,
            }
        }
        self.assemble(digest, Parts::new()).await
    }

    /// The parts of a block that come by while it is stored: all, or those until it is stored.
    async fn overhear(&self, digest: Sha256, coming: &mut Coming) -> Result<Parts, ResourceError> {
        let (core, mut heard) = (&self.core, Parts::new());
        let files = &core.files;
        if files.is_deaf.load(Ordering::Relaxed) {
            return coming.stored().await.map(|()| heard);
        }
        let _turn = tokio::select! {
            biased;
            stored = coming.stored() => return stored.map(|()| heard),
            turn = files.overheard.acquire() => turn.map_err(|_closed| ResourceError::Over)?,
        };
        let subject = StoredTo::parts_of(&core.root, &self.client, &core.name, digest);
        let passing = core.bulk.subscribe(subject.clone()).await;
        let mut passing = passing.map_err(|error| ResourceError::Broker(error.to_string()))?;
        for _ in 0..OVERHEARD_MAX {
            let message = tokio::select! {
                message = passing.next() => message,
                stored = coming.stored() => {
                    if core.bulk.denials.was_denied(&subject) {
                        files.is_deaf.store(true, Ordering::Relaxed);
                    }
                    return stored.map(|()| heard);
                }
            };
            let Some(message) = message else { break };
            let Ok(StoredTo { part: n, .. }) = StoredTo::read(&core.root, message.subject()) else {
                continue;
            };
            // Whoever can have JetStream publish anything should not have it read here.
            if !message.reply().is_some_and(|reply| core.may_answer(&self.client, reply)) {
                core.drop_message(&message, "its reply subject is not the client's");
                continue;
            }
            let Ok(part) = BlockPart::decode(message.payload()) else { continue };
            if part.check().is_ok() && n < part.parts {
                let parts = part.parts as usize;
                heard.insert(n, part);
                if heard.len() == parts {
                    return Ok(heard);
                }
            }
        }
        coming.stored().await.map(|()| heard)
    }

    /// A block from these parts and what else is stored of it.
    async fn assemble(&self, digest: Sha256, mut heard: Parts) -> Result<Block, ResourceError> {
        let damaged = |why: String| ResourceError::Damaged(format!("block {digest}: {why}"));
        let mut part = |n| {
            let heard = heard.remove(&n);
            async move {
                match heard {
                    Some(part) => Ok(part),
                    None => self.part(digest, n).await,
                }
            }
        };
        let first = part(0).await?;
        first.check().map_err(damaged)?;
        let (bytes, coding) = (first.bytes, first.coding);
        let rest = (1..first.parts).map(part);
        let rest: Vec<_> = stream::iter(rest).buffered(PARTS_AT_ONCE).try_collect().await?;
        let parts = [first].into_iter().chain(rest).map(|part| part.data).collect();
        let decoded = tokio::task::spawn_blocking(move || decode(parts, bytes, coding, digest));
        decoded.await.map_err(|_going_down| ResourceError::Over)?.map_err(damaged)
    }

    async fn part(&self, digest: Sha256, n: u32) -> Result<BlockPart, ResourceError> {
        let bytes = self.piece(Piece::Part(digest, n)).await?;
        BlockPart::decode(&bytes)
            .map_err(|error| ResourceError::Damaged(format!("block {digest}: {error}")))
    }

    async fn piece(&self, piece: Piece) -> Result<Bytes, ResourceError> {
        let core = &self.core;
        let post = core.files.post.get_or_try_init(|| Post::open(core)).await;
        let post = post.map_err(|error| ResourceError::Broker(error.to_string()))?;
        let stored = Stored { client: self.client.clone(), piece };
        let get = Streams::direct_get(&Streams::of(&core.root).files, &stored.under(&core.root));
        let _turn = core.files.parts.acquire().await.map_err(|_closed| ResourceError::Over)?;
        for look in 0..LOOKS {
            let answer = post.ask(&get).await?;
            match answer.status() {
                None => return Ok(answer.into_payload()),
                Some(503) => {
                    let text =
                        "the broker has no stream for files: `jmp-bus doctor --make-streams`";
                    return Err(ResourceError::Broker(text.to_owned()));
                }
                Some(_) if look + 1 < LOOKS => sleep(STORED_WITHIN).await,
                Some(_) => {}
            }
        }
        let what = match piece {
            Piece::Manifest(digest) => format!("manifest {digest}"),
            Piece::Part(digest, n) => format!("part {n} of block {digest}"),
        };
        Err(ResourceError::Gone { what })
    }
}

async fn hashed(mut hasher: Hasher, extents: Vec<Extent>) -> Result<Hasher, ResourceError> {
    let hashing = tokio::task::spawn_blocking(move || {
        for extent in &extents {
            match extent {
                Extent::Data(bytes) => hasher.update(bytes),
                Extent::Hole(zeros) => hasher.update_zeros(*zeros),
            }
        }
        hasher
    });
    hashing.await.map_err(|_going_down| ResourceError::Over)
}

/// The bytes of a block, if they are those of its digest.
fn decode(parts: Vec<Bytes>, bytes: u64, coding: Coding, digest: Sha256) -> Result<Block, String> {
    let pieces = match coding {
        Coding::Plain => parts,
        Coding::Lz4 => {
            let len = usize::try_from(bytes).map_err(|_| "it is too large".to_owned())?;
            let block = lz4_flex::block::decompress(&parts.concat(), len);
            let block = Bytes::from(block.map_err(|error| error.to_string())?);
            let piece = |at| block.slice(at..block.len().min(at + BLOCK_PART_BYTES_MAX));
            (0..block.len()).step_by(BLOCK_PART_BYTES_MAX).map(piece).collect()
        }
    };
    let len = pieces.iter().map(Bytes::len).sum::<usize>();
    if len as u64 != bytes {
        return Err(format!("it has {len} bytes, not {bytes}"));
    }
    let mut hasher = Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    match hasher.finish() == digest {
        true if pieces.iter().all(|piece| is_zeros(piece)) => {
            Err("it is zeros, which are not stored".to_owned())
        }
        true => Ok(pieces.into()),
        false => Err("its bytes have another digest".to_owned()),
    }
}
