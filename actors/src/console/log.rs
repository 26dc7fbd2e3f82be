//! The file that gets what a console says.

use std::{io, path::PathBuf, time::Duration};

use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt as _,
    time::sleep,
};
use tracing::warn;

use super::follower::Follower;

/// How long after an error writing is tried again: a full disk is emptied by people.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A file of bounded size, and its predecessor.
pub(super) struct Log {
    path: PathBuf,
    bytes_max: u64,
    file: File,
    bytes: u64,
}

impl Log {
    pub(super) async fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path).await?;
        let bytes = file.metadata().await?.len();
        Ok(Self { path, bytes_max, file, bytes })
    }

    /// Writes what `follower` sees. What is not written for an error is gone; the port goes on.
    pub(super) async fn keep(mut self, mut follower: Follower) {
        loop {
            let bytes = follower.next_for_people().await;
            if let Err(error) = self.write(&bytes).await {
                warn!(file = %self.path.display(), %error, "capture file not written");
                sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + bytes.len() as u64 > self.bytes_max {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older).await?;
            *self = Self::open(self.path.clone(), self.bytes_max).await?;
        }
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await?;
        self.file.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_file_makes_room_for_a_new_one() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("uart.log");
        std::fs::write(&path, "from the last run ")?;
        let mut log = Log::open(path.clone(), 32).await?;
        log.write(b"and this one").await?;
        log.write(b" is full").await?;
        assert_eq!(std::fs::read_to_string(&path)?, " is full");
        let older = std::fs::read_to_string(dir.path().join("uart.log.1"))?;
        assert_eq!(older, "from the last run and this one");
        Ok(())
    }
}
