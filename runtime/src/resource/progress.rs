//! How far a file is that its owner is still storing, as he tells it.

use bus_schema::{BlockNews, Sha256};
use bytes::BytesMut;
use tokio::sync::watch;

use super::{ResourceError, Source, stream::LentStream};

/// How far a file is. Cheap to clone; when the last clone is dropped, the rest is not wanted.
#[derive(Clone)]
pub(super) struct Progress(watch::Receiver<Told>);

/// What was told.
#[derive(Default)]
struct Told {
    /// Of the blocks that were read.
    digests: Vec<Sha256>,
    /// So many of them are stored.
    stored: usize,
    /// How the telling ended.
    ended: Option<Result<(), ResourceError>>,
}

impl Progress {
    /// Listens to what is told of a file of `count` blocks.
    pub(super) fn listen(source: &Source, from: LentStream, count: u64) -> Self {
        let (tx, rx) = watch::channel(Told::default());
        let stop = source.stop.clone();
        source.core.tasks.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Err(ResourceError::Over),
                () = tx.closed() => Err(ResourceError::Over),
                ended = hear(&from, count, &tx) => ended,
            };
            drop(from);
            tx.send_modify(|told| told.ended = Some(ended));
        });
        Self(rx)
    }

    /// The digest of block `n`, as soon as it is known.
    pub(super) async fn digest(&mut self, n: u64) -> Result<Sha256, ResourceError> {
        let n = index(n);
        let ready = |told: &Told| told.digests.len() > n || told.ended.is_some();
        let told = self.0.wait_for(ready).await.map_err(|_| ResourceError::Over)?;
        told.digests.get(n).copied().ok_or_else(|| told.why_it_ended())
    }

    /// Waits until block `n` is stored. Cancel safe.
    pub(super) async fn stored(&mut self, n: u64) -> Result<(), ResourceError> {
        let n = index(n);
        let ready = |told: &Told| told.stored > n || told.ended.is_some();
        let told = self.0.wait_for(ready).await.map_err(|_| ResourceError::Over)?;
        if told.stored > n { Ok(()) } else { Err(told.why_it_ended()) }
    }

    /// Waits until there is no more to tell.
    pub(super) async fn ended(&mut self) -> Result<(), ResourceError> {
        let told = self.0.wait_for(|told| told.ended.is_some()).await;
        told.map_err(|_| ResourceError::Over)?.ended.clone().unwrap_or(Err(ResourceError::Over))
    }
}

impl Told {
    fn why_it_ended(&self) -> ResourceError {
        let error = self.ended.clone().and_then(Result::err);
        error.unwrap_or(ResourceError::Over)
    }

    fn add(&mut self, news: BlockNews, count: u64) -> Result<(), ResourceError> {
        let known = self.digests.len();
        match news {
            BlockNews::Digest(_) if known as u64 == count => Err(too_many(count)),
            BlockNews::Digest(digest) => {
                self.digests.push(digest);
                Ok(())
            }
            BlockNews::Stored if self.stored == known => {
                let text = format!("block {known} is said to be stored, and not which it is");
                Err(ResourceError::Damaged(text))
            }
            BlockNews::Stored => {
                self.stored += 1;
                Ok(())
            }
        }
    }
}

async fn hear(
    from: &LentStream,
    count: u64,
    tx: &watch::Sender<Told>,
) -> Result<(), ResourceError> {
    let mut rest = BytesMut::new();
    while let Some(more) = from.next().await? {
        rest.extend_from_slice(&more);
        let mut added = Ok(());
        tx.send_modify(|told| added = add_all(&mut rest, told, count));
        added?;
    }
    match tx.borrow().stored as u64 {
        stored if stored == count && rest.is_empty() => Ok(()),
        stored if stored == count => Err(too_many(count)),
        stored => {
            let text = format!("the list of its blocks ends after {stored} of {count}");
            Err(ResourceError::Damaged(text))
        }
    }
}

fn add_all(from: &mut BytesMut, told: &mut Told, count: u64) -> Result<(), ResourceError> {
    let damaged = |error: bus_schema::BlockNewsError| ResourceError::Damaged(error.to_string());
    while let Some(news) = BlockNews::take(from).map_err(damaged)? {
        told.add(news, count)?;
    }
    Ok(())
}

fn too_many(count: u64) -> ResourceError {
    ResourceError::Damaged(format!("the list of its blocks goes on after {count}"))
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("the number of a block, of which there are 2^17")
}
