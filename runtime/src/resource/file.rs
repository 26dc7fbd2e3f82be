//! A file in JetStream, as an exporter reads it: blocks ahead of the driver, each checked.

use std::{sync::Arc, time::Duration};

use bus_schema::{
    BlockPart, ClientName, Coding, Manifest, Sha256, codec,
    subject::{Piece, Stored, Streams},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{sync::OnceCell, time::sleep};

use super::{Extent, ResourceError, Sender, Source, cache::BlockCache, post::Post};
use crate::{
    digest::{Hasher, is_zeros, sha256},
    exporter::Core,
};

/// Blocks that are on their way at once: 16 MiB, a quarter of the broker's `max_pending`.
const BLOCKS_AT_ONCE: usize = 4;
/// A piece that was just stored may not be readable yet where the stream has replicas …
const STORED_WITHIN: Duration = Duration::from_millis(200);
/// … so it is looked for again so often before it is gone.
const LOOKS: u32 = 3;

/// The files that an exporter reads.
#[derive(Default)]
pub(crate) struct Files {
    post: OnceCell<Post>,
    blocks: BlockCache,
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
    let list = match manifest.list {
        None => manifest.blocks.clone(),
        Some(list) => reader.block(list, 32 * manifest.count()).await?,
    };
    let digests = manifest.digests(&list).map_err(ResourceError::Damaged)?;
    let bytes = manifest.bytes;
    let stop = source.stop.clone();
    source.core.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tx.closed() => {}
            ended = reader.send(&manifest, digests, &tx) => {
                if let Err(error) = ended {
                    let _ = tx.send(Err(error)).await; // nobody reads any more
                }
            }
        }
    });
    Ok(Some(bytes))
}

/// Whether the manifest is of what the caller says that it lends.
fn check(source: &Source, manifest: &Manifest) -> Result<(), ResourceError> {
    let lent = &source.lent;
    if let Some(bytes) = lent.bytes.filter(|bytes| *bytes != manifest.bytes) {
        let text = format!("it has {} bytes, not {bytes}", manifest.bytes);
        return Err(ResourceError::Mismatch(text));
    }
    match lent.sha256.filter(|digest| *digest != manifest.sha256) {
        Some(digest) => {
            let text = format!("its SHA-256 is {}, not {digest}", manifest.sha256);
            Err(ResourceError::Mismatch(text))
        }
        None => Ok(()),
    }
}

/// Reads the files of one client.
#[derive(Clone)]
struct Reader {
    core: Arc<Core>,
    client: ClientName,
}

impl Reader {
    /// Sends all blocks in their order, and the end only if the whole is right.
    async fn send(
        &self,
        manifest: &Manifest,
        digests: Vec<Sha256>,
        tx: &Sender,
    ) -> Result<(), ResourceError> {
        let blocks = digests.into_iter().enumerate().map(|(at, digest)| {
            let (reader, len) = (self.clone(), manifest.len_of(at as u64));
            // A task of its own, so that it gets on while the blocks before it are hashed.
            let reading = self.core.tasks.spawn(async move { reader.extent(digest, len).await });
            let abort = tokio_util::task::AbortOnDropHandle::new(reading);
            async move { abort.await.unwrap_or(Err(ResourceError::Over)) }
        });
        let mut blocks = stream::iter(blocks).buffered(BLOCKS_AT_ONCE);
        let mut hasher = Hasher::new();
        while let Some(extent) = blocks.try_next().await? {
            let hashed = extent.clone();
            let hashing = tokio::task::spawn_blocking(move || {
                match hashed {
                    Extent::Data(bytes) => hasher.update(&bytes),
                    Extent::Hole(zeros) => hasher.update_zeros(zeros),
                }
                hasher
            });
            hasher = hashing.await.map_err(|_going_down| ResourceError::Over)?;
            if tx.send(Ok(extent)).await.is_err() {
                return Ok(()); // nobody reads any more
            }
        }
        match hasher.finish() {
            digest if digest == manifest.sha256 => Ok(()),
            digest => {
                let text = format!("its SHA-256 is {digest}, not {}", manifest.sha256);
                Err(ResourceError::Damaged(text))
            }
        }
    }

    async fn extent(&self, digest: Sha256, len: u64) -> Result<Extent, ResourceError> {
        match digest {
            Sha256::ZEROS => Ok(Extent::Hole(len)),
            _ => self.block(digest, len).await.map(Extent::Data),
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
    async fn block(&self, digest: Sha256, len: u64) -> Result<Bytes, ResourceError> {
        let key = (self.client.clone(), digest);
        let block = self.core.files.blocks.get(key, self.read_block(digest)).await?;
        match block.len() as u64 == len {
            true => Ok(block),
            false => {
                let text = format!("block {digest} has {} bytes, not {len}", block.len());
                Err(ResourceError::Damaged(text))
            }
        }
    }

    async fn read_block(&self, digest: Sha256) -> Result<Bytes, ResourceError> {
        let damaged = |why: String| ResourceError::Damaged(format!("block {digest}: {why}"));
        let first = self.part(digest, 0).await?;
        first.check().map_err(damaged)?;
        let (bytes, coding) = (first.bytes, first.coding);
        let rest = (1..first.parts).map(|n| self.part(digest, n));
        let rest: Vec<_> = stream::iter(rest).buffered(8).try_collect().await?;
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

/// The bytes of a block, if they are those of its digest.
fn decode(parts: Vec<Bytes>, bytes: u64, coding: Coding, digest: Sha256) -> Result<Bytes, String> {
    let len = usize::try_from(bytes).map_err(|_| "it is too large".to_owned())?;
    let coded = joined(parts);
    let block = match coding {
        Coding::Plain => coded,
        Coding::Lz4 => lz4_flex::block::decompress(&coded, len).map_err(|e| e.to_string())?.into(),
    };
    if block.len() != len {
        return Err(format!("it has {} bytes, not {len}", block.len()));
    }
    match sha256(&block) == digest {
        true if is_zeros(&block) => Err("it is zeros, which are not stored".to_owned()),
        true => Ok(block),
        false => Err("its bytes have another digest".to_owned()),
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}
