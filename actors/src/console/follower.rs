//! Reading along what a console says, at one's own speed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus_schema::Fault;
use runtime::{ByteStream, Items};
use tokio::{io::AsyncWriteExt as _, sync::watch};

use super::{
    Captured,
    ring::{Cursor, Next, Ring},
};

/// The ring, and word of what comes into it. The port never waits for those who read.
#[derive(Debug)]
pub(super) struct Record {
    ring: Mutex<Ring>,
    changed: watch::Sender<()>,
}

/// One reader of the record, who is told of bytes that it came too late for.
pub(super) struct Follower {
    record: Arc<Record>,
    cursor: Cursor,
    changed: watch::Receiver<()>,
}

impl Record {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { ring: Mutex::new(Ring::new(bytes_max)), changed: watch::Sender::new(()) })
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ring and tells those who follow.
    pub(super) fn add(&self, change: impl FnOnce(&mut Ring)) {
        change(&mut self.ring());
        self.changed.send_replace(());
    }

    /// Follows from a place, or from now on.
    pub(super) fn follow(self: &Arc<Self>, from: Option<u64>) -> Follower {
        let changed = self.changed.subscribe();
        let ring = self.ring();
        let cursor = from.map_or_else(|| ring.live(), |from| ring.cursor(from));
        drop(ring);
        Follower { record: self.clone(), cursor, changed }
    }
}

impl Follower {
    /// What comes next, which is never [`Next::Nothing`]. Cancel safe.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            self.changed.borrow_and_update();
            match self.now() {
                // The sender is in the record, and that is here.
                Next::Nothing => drop(self.changed.changed().await),
                next => return next,
            }
        }
    }

    /// What is there already.
    fn now(&mut self) -> Next {
        self.record.ring().next(&mut self.cursor)
    }

    /// The next bytes as people see them, with what happened between them in brackets.
    pub(super) async fn next_for_people(&mut self) -> bytes::Bytes {
        match self.next().await {
            Next::Lost(lost) => format!("[{lost} bytes lost]").into(),
            Next::Note(text) => format!("\r\n[{text}]\r\n").into(),
            Next::Bytes { data, .. } => data,
            Next::Nothing => bytes::Bytes::new(),
        }
    }

    /// Until nobody watches any more.
    pub(super) async fn watch(mut self, mut stream: ByteStream) -> Result<(), Fault> {
        loop {
            let bytes = self.next_for_people().await;
            if stream.write_all(&bytes).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Up to what is there now, or on and on.
    pub(super) async fn capture(
        mut self,
        follow: bool,
        items: Items<Captured>,
    ) -> Result<(), Fault> {
        let end = self.record.ring().end();
        while follow || self.cursor.at < end {
            if let Next::Bytes { at, time, data } = self.next().await {
                items.send(Captured { at, time, data }).await?;
            }
        }
        Ok(())
    }
}
