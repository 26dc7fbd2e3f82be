//! A file in JetStream, as an exporter reads it: blocks ahead of the driver, each checked.

use std::{pin::pin, sync::Arc, time::Duration};

use bus_schema::{
    BlockPart, ClientName, Coding, Manifest, Sha256, StreamId, codec,
    limits::{BLOCK_BYTES_MAX, BLOCK_PART_BYTES_MAX},
    subject::{Piece, Stored, Streams},
};
use bytes::{Bytes, BytesMut};
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
    stream::LentStream,
};
use crate::{
    digest::{Hasher, is_zeros, sha256},
    exporter::Core,
};

/// Blocks of a file that are read at once: one is digested, one written, and some are on their way.
const BLOCKS_AT_ONCE: usize = 6;
/// Parts that are on their way to an exporter at once: 12 MiB, a fifth of the broker's
/// `max_pending`.
const PARTS_AT_ONCE: usize = 24;
/// A piece that was just stored may not be readable yet where the stream has replicas …
const STORED_WITHIN: Duration = Duration::from_millis(200);
/// … so it is looked for again so often before it is gone.
const LOOKS: u32 = 3;

/// The files that an exporter reads.
pub(crate) struct Files {
    post: OnceCell<Post>,
    blocks: BlockCache,
    /// Who comes first is served first, so the parts of earlier blocks come before those of later.
    parts: Semaphore,
}

impl Default for Files {
    fn default() -> Self {
        let parts = Semaphore::new(PARTS_AT_ONCE);
        Self { post: OnceCell::default(), blocks: BlockCache::default(), parts }
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
    reader.start(source, manifest, stream::iter(digests.into_iter().map(Ok)), tx);
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
    let digests = told(LentStream::open(&source, id)?, manifest.count());
    reader.start(source, manifest, digests, tx);
    Ok(Some(bytes))
}

/// The digests of `count` blocks, as the caller tells them.
fn told(from: LentStream, count: u64) -> impl Stream<Item = Result<Sha256, ResourceError>> + Send {
    stream::try_unfold((from, BytesMut::new(), 0), move |(from, mut rest, mut n)| async move {
        let damaged = |text: String| Err(ResourceError::Damaged(text));
        while rest.len() < size_of::<Sha256>() || n == count {
            if n == count && !rest.is_empty() {
                return damaged(format!("the list of its blocks goes on after {count}"));
            }
            match from.next().await? {
                Some(more) => rest.extend_from_slice(&more),
                None if n == count => return Ok(None),
                None => {
                    return damaged(format!("the list of its blocks ends after {n} of {count}"));
                }
            }
        }
        n += 1;
        let digest = rest.split_to(size_of::<Sha256>());
        let digest = Sha256(digest[..].try_into().expect("as long as a digest"));
        Ok(Some((digest, (from, rest, n))))
    })
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
        digests: impl Stream<Item = Result<Sha256, ResourceError>> + Send + 'static,
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
                ended = self.send(&manifest, digests, whole, &tx) => {
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
        digests: impl Stream<Item = Result<Sha256, ResourceError>> + Send,
        whole: Option<Sha256>,
        tx: &Sender,
    ) -> Result<(), ResourceError> {
        let blocks = digests.enumerate().map(|(at, digest)| {
            let (reader, len) = (self.clone(), manifest.len_of(at as u64));
            // A task of its own, so that it gets on while those before it are taken.
            let reading = digest.map(|digest| {
                let reading = async move { reader.extents(digest, len).await };
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
    async fn extents(&self, digest: Sha256, len: u64) -> Result<Vec<Extent>, ResourceError> {
        match digest {
            Sha256::ZEROS => Ok(vec![Extent::Hole(len)]),
            _ => {
                let block = self.block(digest, len).await?;
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
            Some(list) => Ok(self.block(list, len).await?.concat().into()),
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
    async fn block(&self, digest: Sha256, len: u64) -> Result<Block, ResourceError> {
        let key = (self.client.clone(), digest);
        let block = self.core.files.blocks.get(key, self.read_block(digest)).await?;
        match block.iter().map(Bytes::len).sum::<usize>() as u64 {
            bytes if bytes == len => Ok(block),
            bytes => {
                let text = format!("block {digest} has {bytes} bytes, not {len}");
                Err(ResourceError::Damaged(text))
            }
        }
    }

    async fn read_block(&self, digest: Sha256) -> Result<Block, ResourceError> {
        let damaged = |why: String| ResourceError::Damaged(format!("block {digest}: {why}"));
        let first = self.part(digest, 0).await?;
        first.check().map_err(damaged)?;
        let (bytes, coding) = (first.bytes, first.coding);
        let rest = (1..first.parts).map(|n| self.part(digest, n));
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
