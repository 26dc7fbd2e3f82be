//! A file that is being stored, which may be lent before all of it is there.

use std::{collections::BTreeMap, io, sync::Arc};

use bus_schema::Sha256;
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
    _task: Arc<AbortOnDropHandle<()>>,
}

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Of blocks before which others are missing.
    early: BTreeMap<u64, Sha256>,
    /// Of the others, in their order: 32 bytes each.
    list: Vec<u8>,
    ended: Option<Result<Stored, LendError>>,
}

impl Storing {
    /// Stores as `storing` does, which tells how far it is.
    pub(super) fn begin<F>(
        tasks: &TaskTracker,
        name: String,
        bytes: u64,
        storing: impl FnOnce(watch::Sender<State>) -> F,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tx, state) = watch::channel(State::default());
        let task = tasks.spawn(storing(tx));
        Self { name, bytes, state, _task: Arc::new(AbortOnDropHandle::new(task)) }
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

    /// Tells an exporter the digests of `count` blocks, each when its block is there.
    pub(super) async fn tell(&self, count: u64, pipe: &mut ByteStream) -> io::Result<()> {
        let (mut state, mut told) = (self.state.clone(), 0);
        while told as u64 != 32 * count {
            let more = {
                let ready = |state: &State| state.list.len() > told || state.ended.is_some();
                let state = state.wait_for(ready).await;
                let state = state.map_err(|_| io::Error::other("this client was closed"))?;
                match &state.ended {
                    Some(Err(error)) => return Err(io::Error::other(error.to_string())),
                    _ => state.list[told..].to_vec(),
                }
            };
            pipe.write_all(&more).await?;
            told += more.len();
        }
        pipe.shutdown().await
    }
}

impl State {
    /// Block `n` is stored.
    pub(super) fn add(&mut self, n: u64, digest: Sha256) {
        self.early.insert(n, digest);
        while let Some(next) = self.early.remove(&(self.list.len() as u64 / 32)) {
            self.list.extend_from_slice(&next.0);
        }
    }

    pub(super) fn list(&self) -> Vec<u8> {
        self.list.clone()
    }

    pub(super) fn end(&mut self, ended: Result<Stored, LendError>) {
        self.ended = Some(ended);
    }
}
