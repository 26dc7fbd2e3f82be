//! The task that writes what a console says to its files.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bus_schema::{Fault, FaultKind};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{info, warn};

use super::{CaptureConfig, archive::Archive, follower::Follower, ring::Next};

/// How long after an error writing is tried again: a full disk is emptied by people.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long the files of a driver that is started again may still be held by the one before.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);
/// Pieces that are written at once, of at most 4 KiB each.
const BATCH_MAX: usize = 256;

/// The files, and how far they are behind.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) archive: Archive,
    pub(super) path: String,
    /// What is being written: up to this place, and why it is not written yet.
    doing: watch::Sender<Doing>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Doing {
    taken: u64,
    written: u64,
    error: Option<String>,
}

impl Log {
    /// Opens the files of a configuration, if it names one.
    pub(super) async fn open(config: &CaptureConfig) -> Result<Option<Arc<Self>>, Fault> {
        let Some(path) = config.file.clone() else { return Ok(None) };
        let opened = open(&path, config.file_max).await;
        let archive = opened.map_err(|error| {
            Fault::new(FaultKind::Io, format_args!("the capture file {path}: {error}"))
        })?;
        let end = archive.reach().1;
        let doing = watch::Sender::new(Doing { taken: end, written: end, error: None });
        Ok(Some(Arc::new(Self { archive, path, doing })))
    }

    /// Why nothing is written, if that is so.
    pub(super) fn error(&self) -> Option<String> {
        self.doing.borrow().error.clone()
    }

    /// Waits while what follows on `at` is on its way to the disk. Not for a disk that is full.
    pub(super) async fn settled(&self, at: u64) {
        let mut doing = self.doing.subscribe();
        let settled =
            |doing: &Doing| doing.taken <= at || doing.written > at || doing.error.is_some();
        let _ = doing.wait_for(settled).await; // the sender is in here
    }

    /// Writes what `follower` sees. While the disk is full the console goes on, and what memory
    /// does not hold until it is emptied is lost: the places show it.
    pub(super) async fn keep(self: Arc<Self>, follower: Follower) {
        let mut keeper = Keeper { log: self.clone(), follower, batch: Vec::new() };
        let mut retry = interval(RETRY_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut next = keeper.follower.next().await;
            let mut end = self.doing.borrow().taken;
            // All that is there, so that a write for each piece cannot fall behind a fast device.
            while next != Next::Nothing && keeper.batch.len() < BATCH_MAX {
                if let Next::Bytes { at, data, .. } = &next {
                    end = at + data.len() as u64;
                }
                keeper.batch.push(next);
                next = keeper.follower.now();
            }
            keeper.batch.push(next);
            self.doing.send_modify(|doing| doing.taken = end);
            while let Err(error) = self.write(keeper.batch.clone()).await {
                if self.error().is_none() {
                    warn!(file = %self.path, %error, "capture file not written");
                }
                self.doing.send_modify(|doing| doing.error = Some(error.to_string()));
                retry.reset();
                retry.tick().await;
            }
            keeper.batch.clear();
            if self.error().is_some() {
                info!(file = %self.path, "capture file written again");
            }
            self.doing.send_replace(Doing { taken: end, written: end, error: None });
        }
    }

    async fn write(self: &Arc<Self>, batch: Vec<Next>) -> io::Result<()> {
        let (log, again) = (self.clone(), self.error().is_some());
        let written = spawn_blocking(move || {
            if again {
                log.archive.open_again()?;
            }
            batch.iter().try_for_each(|next| log.archive.append(next))
        });
        written.await.map_err(io::Error::other)?
    }
}

/// Opens the files. Those of a driver that was dropped just now are let go in a moment.
async fn open(path: &str, bytes_max: u64) -> io::Result<Archive> {
    let began = Instant::now();
    loop {
        let path = PathBuf::from(path);
        let opened = spawn_blocking(move || Archive::open(path, bytes_max)).await;
        match opened.map_err(io::Error::other)? {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy
                    && began.elapsed() < LET_GO_WITHIN =>
            {
                sleep(LET_GO_WITHIN / 40).await;
            }
            opened => return opened,
        }
    }
}

/// Who writes. When it is stopped it writes what is there already: that is in memory, and little.
struct Keeper {
    log: Arc<Log>,
    follower: Follower,
    /// What is being written.
    batch: Vec<Next>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.log.error().is_some() {
            return;
        }
        let rest = std::iter::from_fn(|| Some(self.follower.now()));
        let rest = rest.take_while(|next| *next != Next::Nothing);
        // Best effort, as `drop` cannot tell: what does not fit is lost, as after a kill.
        let _ =
            self.batch.drain(..).chain(rest).try_for_each(|next| self.log.archive.append(&next));
    }
}
