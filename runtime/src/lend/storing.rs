//! A file that is being stored, which may be lent before all of it is there.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, OnceLock},
};

use bus_schema::{BlockNews, ExporterName, Sha256};
use tokio::{io::AsyncWriteExt as _, sync::watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{LendError, Stored};
use crate::stream::ByteStream;

/// A file that is being stored ([`Client::store`](crate::Client::store)). Lend it to any number of
/// calls: each gets the blocks that are there, and the others as they come. Cheap to clone; to drop
/// the last clone gives it up.
#[derive(Clone, Debug)]
pub struct Storing {
    pub(super) name: String,
    pub(super) bytes: u64,
    state: watch::Receiver<State>,
    first_reader: FirstReader,
    _task: Arc<AbortOnDropHandle<()>>,
}

/// The exporter that it was lent to first: blocks go there while they are stored.
pub(super) type FirstReader = Arc<OnceLock<ExporterName>>;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Of the blocks that were read.
    digests: Vec<Sha256>,
    /// So many of them are stored …
    stored: u64,
    /// … and these, behind others that are not.
    early: BTreeSet<u64>,
    ended: Option<Result<Stored, LendError>>,
}

impl Storing {
    /// Stores as `storing` does, which tells how far it is.
    pub(super) fn begin<F>(
        tasks: &TaskTracker,
        name: String,
        bytes: u64,
        storing: impl FnOnce(watch::Sender<State>, FirstReader) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tx, state) = watch::channel(State::default());
        let first_reader = FirstReader::default();
        let task = tasks.spawn(storing(tx, first_reader.clone()));
        Self { name, bytes, state, first_reader, _task: Arc::new(AbortOnDropHandle::new(task)) }
    }

    /// The file, when all of it is stored.
    ///
    /// # Errors
    ///
    /// [`LendError`]; what was stored until then is found by the next attempt.
    pub async fn stored(&self) -> Result<Stored, LendError> {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.ended.is_some()).await;
        let ended = ended.ok().and_then(|state| state.ended.clone());
        ended.unwrap_or_else(|| Err(LendError::Bus("this client was closed".to_owned())))
    }

    /// Why it could not be stored, if that is known by now.
    pub fn trouble(&self) -> Option<LendError> {
        self.state.borrow().ended.clone()?.err()
    }

    /// The file, if all of it is stored.
    pub(super) fn is_stored(&self) -> Option<Stored> {
        self.state.borrow().ended.clone()?.ok()
    }

    /// Tells an exporter of `count` blocks: of each that it was read, and that it is stored.
    pub(super) async fn tell(
        &self,
        to: ExporterName,
        count: u64,
        pipe: &mut ByteStream,
    ) -> io::Result<()> {
        let _is_first = self.first_reader.set(to);
        let (mut state, mut read, mut stored) = (self.state.clone(), 0, 0);
        while stored != count {
            let mut more = Vec::new();
            {
                let ready = |state: &State| {
                    state.digests.len() > read || state.stored > stored || state.ended.is_some()
                };
                let state = state.wait_for(ready).await;
                let state = state.map_err(|_| io::Error::other("this client was closed"))?;
                if let Some(Err(error)) = &state.ended {
                    return Err(io::Error::other(error.to_string()));
                }
                let digests = state.digests[read..].iter().map(|digest| BlockNews::Digest(*digest));
                let are_stored = (stored..state.stored).map(|_| BlockNews::Stored);
                digests.chain(are_stored).for_each(|news| news.write(&mut more));
                (read, stored) = (state.digests.len(), state.stored);
            }
            pipe.write_all(&more).await?;
        }
        pipe.shutdown().await
    }
}

impl State {
    /// The next block was read.
    pub(super) fn read(&mut self, digest: Sha256) {
        self.digests.push(digest);
    }

    /// Block `n` is stored.
    pub(super) fn stored(&mut self, n: u64) {
        self.early.insert(n);
        while self.early.remove(&self.stored) {
            self.stored += 1;
        }
    }

    /// The digests of all blocks, as a manifest has them.
    pub(super) fn list(&self) -> Vec<u8> {
        self.digests.iter().flat_map(|digest| digest.0).collect()
    }

    pub(super) fn end(&mut self, ended: Result<Stored, LendError>) {
        self.ended = Some(ended);
    }
}
