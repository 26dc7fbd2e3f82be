//! Blocks that were read not long ago: boards that are flashed with one image share them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{ClientName, Sha256};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::ResourceError;

/// What is kept: some seconds of a flash, so that boards of one exporter that are flashed together
/// read each block once though they are not equally fast.
const BYTES_MAX: usize = 96 << 20;

/// Blocks belong to the client that stored them: knowing a digest gives nobody another's data.
type Key = (ClientName, Sha256);

#[derive(Default)]
pub(super) struct BlockCache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    blocks: HashMap<Key, Arc<OnceCell<Bytes>>>,
    /// Those that are there, oldest first.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

impl BlockCache {
    /// The block, by `read` unless it is here. Who asks for a block that is being read waits for it.
    pub(super) async fn get<F>(&self, key: Key, read: F) -> Result<Bytes, ResourceError>
    where
        F: Future<Output = Result<Bytes, ResourceError>>,
    {
        let cell = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.blocks.entry(key.clone()).or_default().clone()
        };
        let mut is_new = false;
        let block = cell
            .get_or_try_init(|| async {
                let block = read.await?;
                is_new = true;
                Ok(block)
            })
            .await;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &block {
            Ok(block) if is_new => kept.add(key, block.len()),
            Ok(_) => {}
            // Not the cell of somebody who has tried again meanwhile, and has it.
            Err(_) => kept.blocks.retain(|other, cell| *other != key || cell.initialized()),
        }
        block.cloned()
    }
}

impl Kept {
    fn add(&mut self, key: Key, bytes: usize) {
        self.bytes += bytes;
        self.order.push_back((key, bytes));
        while self.bytes > BYTES_MAX {
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

    fn key(n: u8) -> Key {
        ("alice".parse().unwrap(), Sha256([n; 32]))
    }

    #[tokio::test]
    async fn a_block_is_read_once_for_all_who_ask_and_again_after_a_failure() {
        let (cache, reads) = (BlockCache::default(), AtomicUsize::new(0));
        let read = async || {
            reads.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Bytes::from_static(b"block"))
        };
        let asks = (0..8).map(|_| cache.get(key(1), read()));
        let got = futures_util::future::join_all(asks).await;
        assert!(got.iter().all(|block| block.as_deref() == Ok(b"block")));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        let failed = cache.get(key(2), async { Err(ResourceError::Over) }).await;
        assert_eq!(failed, Err(ResourceError::Over));
        assert!(cache.get(key(2), read()).await.is_ok());
    }

    #[tokio::test]
    async fn it_keeps_no_more_than_it_may() {
        let cache = BlockCache::default();
        for n in 0..60 {
            let block = Bytes::from(vec![n; 4 << 20]);
            cache.get(key(n), async { Ok(block) }).await.unwrap();
        }
        let kept = cache.0.lock().unwrap();
        assert!(kept.bytes <= BYTES_MAX && kept.blocks.len() == kept.order.len());
        assert!(kept.blocks.contains_key(&key(59)) && !kept.blocks.contains_key(&key(0)));
    }
}
