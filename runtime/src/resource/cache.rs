//! Blocks that were read not long ago: boards that are flashed with one image share them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus_schema::{ClientName, Sha256};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::ResourceError;

/// A block, in the pieces that it came in.
pub(super) type Block = Arc<[Bytes]>;

/// What is kept: some seconds of a flash, so that boards of one exporter that are flashed together
/// read each block once though they are not equally fast.
const BYTES_MAX: usize = 96 << 20;

/// Blocks belong to the client that stored them: knowing a digest gives nobody another's data.
type Key = (ClientName, Sha256);

/// Nothing is kept for one reader alone: its memory is used again for the next blocks, and does not
/// cost a page fault for every 4 KiB of all of them.
#[derive(Default)]
pub(super) struct BlockCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    readers: usize,
    /// Those that are kept, and those that are being read.
    blocks: HashMap<Key, Arc<OnceCell<Block>>>,
    /// Those that are kept, oldest first.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

/// Somebody reads a file.
pub(super) struct Reading<'a>(&'a BlockCache);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.lock();
        kept.readers -= 1;
        match kept.readers {
            0 => *kept = Kept::default(), // with what was given up while it was read
            1 => kept.keep_at_most(0),
            _ => {}
        }
    }
}

impl BlockCache {
    /// Counts a reader of a file, until what this gives is dropped.
    pub(super) fn reading(&self) -> Reading<'_> {
        self.lock().readers += 1;
        Reading(self)
    }

    /// The block, by `read` unless it is here. Who asks for a block that is being read waits for it.
    pub(super) async fn get<F>(&self, key: Key, read: F) -> Result<Block, ResourceError>
    where
        F: Future<Output = Result<Block, ResourceError>>,
    {
        let cell = self.lock().blocks.entry(key.clone()).or_default().clone();
        let mut is_new = false;
        let block = cell
            .get_or_try_init(|| async {
                let block = read.await?;
                is_new = true;
                Ok(block)
            })
            .await;
        let mut kept = self.lock();
        match &block {
            Ok(block) if is_new => kept.add(key, block.iter().map(Bytes::len).sum()),
            Ok(_) => {}
            // Not the cell of somebody who has tried again meanwhile, and has it.
            Err(_) => kept.blocks.retain(|other, cell| *other != key || cell.initialized()),
        }
        block.cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, key: Key, bytes: usize) {
        self.bytes += bytes;
        self.order.push_back((key, bytes));
        self.keep_at_most(if self.readers < 2 { 0 } else { BYTES_MAX });
    }

    fn keep_at_most(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some((key, bytes)) = self.order.pop_front() else { return };
            self.blocks.remove(&key);
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn block(bytes: Vec<u8>) -> Block {
        [Bytes::from(bytes)].into()
    }

    fn key(n: u8) -> Key {
        ("alice".parse().unwrap(), Sha256([n; 32]))
    }

    #[tokio::test]
    async fn a_block_is_read_once_for_all_who_ask_and_again_after_a_failure() {
        let (cache, reads) = (BlockCache::default(), AtomicUsize::new(0));
        let _both = (cache.reading(), cache.reading());
        let read = async || {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(block(b"block".to_vec()))
        };
        let asks = (0..8).map(|_| cache.get(key(1), read()));
        let got = futures_util::future::join_all(asks).await;
        assert!(got.iter().all(|got| *got == Ok(block(b"block".to_vec()))));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        let failed = cache.get(key(2), async { Err(ResourceError::Over) }).await;
        assert_eq!(failed, Err(ResourceError::Over));
        assert!(cache.get(key(2), read()).await.is_ok());
    }

    #[tokio::test]
    async fn it_keeps_no_more_than_it_may_and_nothing_for_one_reader() {
        let cache = BlockCache::default();
        let fill = async || {
            for n in 0..60 {
                cache.get(key(n), async { Ok(block(vec![n; 4 << 20])) }).await.unwrap();
            }
        };
        let one = cache.reading();
        fill().await;
        assert!(cache.lock().blocks.is_empty());
        let two = cache.reading();
        fill().await;
        {
            let kept = cache.lock();
            assert!((BYTES_MAX - (4 << 20)..=BYTES_MAX).contains(&kept.bytes));
            assert_eq!(kept.blocks.len(), kept.order.len());
            assert!(kept.blocks.contains_key(&key(59)) && !kept.blocks.contains_key(&key(0)));
        }
        drop(one);
        assert!(cache.lock().blocks.is_empty());
        // What is given up while it is read goes with the last reader.
        let given_up = cache.get(key(1), std::future::pending());
        assert!(futures_util::FutureExt::now_or_never(given_up).is_none());
        drop(two);
        assert!(cache.lock().blocks.is_empty());
    }
}
