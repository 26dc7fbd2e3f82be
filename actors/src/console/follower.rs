//! Reading along what a console says, at one's own speed.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bus_schema::Fault;
use runtime::{ByteStream, Items};
use tokio::{io::AsyncWriteExt as _, sync::watch, task::spawn_blocking};
use tracing::warn;

use super::{
    CaptureInfo, Captured,
    archive::Place,
    log::Log,
    ring::{Cursor, Next, Ring},
};

/// The ring, what is on the disk, and word of what comes. The port never waits for those who read.
#[derive(Debug)]
pub(super) struct Record {
    ring: Mutex<Ring>,
    log: Option<Arc<Log>>,
    changed: watch::Sender<()>,
}

/// One reader of the record, who is told of bytes that it came too late for.
pub(super) struct Follower {
    record: Arc<Record>,
    cursor: Cursor,
    /// Whether what has left memory is read from the disk.
    disk: Disk,
    changed: watch::Receiver<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// It is not: this is who writes to the disk.
    Ignored,
    /// When it has to be.
    Unread,
    /// It is being read, at this place.
    At(Option<Place>),
}

impl Record {
    /// A record that goes on where the one on the disk ends.
    pub(super) fn new(bytes_max: usize, log: Option<Arc<Log>>) -> Arc<Self> {
        let start = log.as_ref().map_or(0, |log| log.archive.reach().1);
        let mut ring = Ring::new(bytes_max, start);
        if start > 0 {
            ring.note(SystemTime::now(), "the exporter was restarted".to_owned());
        }
        Arc::new(Self { ring: Mutex::new(ring), log, changed: watch::Sender::new(()) })
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
        Follower { record: self.clone(), cursor, disk: Disk::Unread, changed }
    }

    /// Has its files written, if it has any, until that is dropped.
    pub(super) fn keep(self: &Arc<Self>) -> Option<impl Future<Output = ()> + use<>> {
        let log = self.log.clone()?;
        let ring = self.ring();
        let cursor = ring.cursor(ring.start());
        drop(ring);
        let changed = self.changed.subscribe();
        let follower = Follower { record: self.clone(), cursor, disk: Disk::Ignored, changed };
        Some(log.keep(follower))
    }

    pub(super) fn info(&self) -> CaptureInfo {
        let ring = self.ring();
        let (start, end) = (ring.start(), ring.end());
        drop(ring);
        let log = self.log.as_ref();
        let kept = log.and_then(|log| log.archive.reach().0);
        let start = kept.map_or(start, |kept| kept.min(start));
        CaptureInfo {
            start,
            end,
            bytes: end - start,
            file: log.map(|log| log.path.clone()),
            file_error: log.and_then(|log| log.error()),
        }
    }
}

impl Follower {
    /// What comes next, which is never [`Next::Nothing`]. Cancel safe.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            self.changed.borrow_and_update();
            if let Some(next) = self.next_on_disk().await {
                return next;
            }
            match self.now() {
                // The sender is in the record, and that is here.
                Next::Nothing => drop(self.changed.changed().await),
                next => return next,
            }
        }
    }

    /// What is in memory already.
    pub(super) fn now(&mut self) -> Next {
        self.record.ring().next(&mut self.cursor)
    }

    /// What has left memory and is on the disk.
    async fn next_on_disk(&mut self) -> Option<Next> {
        let next = self.read_disk().await;
        if let (None, Disk::At(_)) = (&next, self.disk) {
            self.cursor = self.record.ring().cursor(self.cursor.at);
            self.disk = Disk::Unread;
        }
        next
    }

    /// Reads on, if that is needed. Cancel safe: only what was read is remembered.
    async fn read_disk(&mut self) -> Option<Next> {
        let log = self.record.log.clone()?;
        let (at, limit) = (self.cursor.at, self.record.ring().start());
        let place = match self.disk {
            Disk::Ignored => return None,
            Disk::Unread | Disk::At(_) if at >= limit => return None,
            Disk::Unread => None,
            Disk::At(place) => place,
        };
        log.settled(at).await;
        let reader = log.clone();
        let read = spawn_blocking(move || reader.archive.read(place, at, limit)).await;
        let (next, place) = read
            .map_err(io::Error::other)
            .and_then(|read| read)
            .inspect_err(|error| warn!(file = %log.path, %error, "capture file not read"))
            .ok()?;
        self.cursor.at += match &next {
            Next::Nothing => return None,
            Next::Bytes { data, .. } => data.len() as u64,
            Next::Lost(lost) => *lost,
            Next::Note { .. } => 0,
        };
        self.disk = Disk::At(place);
        Some(next)
    }

    /// The next bytes as people see them, with what happened between them in brackets.
    async fn next_for_people(&mut self) -> bytes::Bytes {
        match self.next().await {
            Next::Lost(lost) => format!("[{lost} bytes lost]").into(),
            Next::Note { text, .. } => format!("\r\n[{text}]\r\n").into(),
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
            let next = self.next().await;
            show(next, &items).await?;
        }
        // What happened to the device since the last byte.
        while let next @ Next::Note { .. } = self.now() {
            show(next, &items).await?;
        }
        Ok(())
    }
}

async fn show(next: Next, items: &Items<Captured>) -> Result<(), Fault> {
    let item = match next {
        Next::Bytes { at, time, data } => Captured { at, time, data, note: None },
        Next::Note { at, time, text } => {
            Captured { at, time, data: bytes::Bytes::new(), note: Some(text) }
        }
        Next::Lost(_) | Next::Nothing => return Ok(()), // the next place says so
    };
    items.send(item).await?;
    Ok(())
}
