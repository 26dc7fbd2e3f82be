//! A file or block device, opened for one operation.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, FileTypeExt as _},
    path::{Path, PathBuf},
};

use bus_schema::{Describe, Fault, FaultKind};
use rustix::fs::{FallocateFlags, fallocate};
use serde::Deserialize;

use super::size::bytes_of;

/// Zeros that are written where a medium cannot make them by itself.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Where a medium is, and how large.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct MediumConfig {
    /// A block device, or a file.
    pub path: PathBuf,
    /// How large a file is (`8G`): it is made, and made so large. Without it a file must exist, is
    /// replaced by an image, and may be of any size.
    #[serde(default)]
    pub size: Option<String>,
}

/// A medium that is open.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) file: File,
    /// Bytes that fit; none if it grows.
    pub(crate) capacity: Option<u64>,
    /// Whether zeros can be punched: a regular file.
    is_plain: bool,
    name: String,
    /// It fails from here on, for tests.
    pub(crate) fails_at: Option<u64>,
}

impl MediumConfig {
    /// Refuses what no medium can be.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.path.is_absolute() {
            return Err(format!("{} is no absolute path", self.path.display()));
        }
        self.size.as_deref().map(bytes_of).transpose().map(drop)
    }

    /// Opens it to be written.
    pub(crate) fn open(&self) -> Result<Medium, Fault> {
        let size = self.size.as_deref().map(bytes_of).transpose().map_err(Fault::argument)?;
        let create = size.is_some() && !self.path.exists();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).open(&self.path);
        Medium::of(file.map_err(|error| named(&self.path, &error))?, &self.path, size)
    }

    /// Opens it to be read.
    pub(crate) fn open_to_read(&self) -> Result<Medium, Fault> {
        let file = File::open(&self.path).map_err(|error| named(&self.path, &error))?;
        let size = None; // as large as it is
        Medium::of(file, &self.path, size)
    }
}

fn named(path: &Path, error: &io::Error) -> Fault {
    Fault::new(FaultKind::Io, format_args!("{}: {error}", path.display()))
}

impl Medium {
    fn of(file: File, path: &Path, size: Option<u64>) -> Result<Self, Fault> {
        let wrong = |error: io::Error| named(path, &error);
        let about = file.metadata().map_err(wrong)?;
        let kind = about.file_type();
        let name = path.display().to_string();
        if kind.is_block_device() {
            let capacity = Some((&file).seek(SeekFrom::End(0)).map_err(wrong)?);
            return Ok(Self { file, capacity, is_plain: false, name, fails_at: None });
        }
        if !kind.is_file() {
            let text = format!("{name} is neither a file nor a block device");
            return Err(Fault::new(FaultKind::Io, text));
        }
        if let Some(size) = size.filter(|size| *size != about.len()) {
            file.set_len(size).map_err(wrong)?;
        }
        Ok(Self { file, capacity: size, is_plain: true, name, fails_at: None })
    }

    /// One that is a file without a name, for tests.
    pub(crate) fn fake(file: File, capacity: u64, fails_at: Option<u64>) -> Self {
        let name = "the fake medium".to_owned();
        Self { file, capacity: Some(capacity), is_plain: true, name, fails_at }
    }

    /// Its size now.
    pub(crate) fn size(&self) -> Result<u64, Fault> {
        match self.capacity {
            Some(capacity) => Ok(capacity),
            None => Ok(self.file.metadata().map_err(|error| self.fault("stat", 0, &error))?.len()),
        }
    }

    /// Refuses an image of `bytes` at `offset` if it does not fit.
    pub(crate) fn check_room(&self, offset: u64, bytes: u64) -> Result<(), Fault> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        match capacity.checked_sub(offset).is_some_and(|room| bytes <= room) {
            true => Ok(()),
            false => {
                let at = if offset == 0 { String::new() } else { format!(" at {offset}") };
                let text = format!(
                    "the image is larger than the target: {bytes} bytes{at} do not fit {}, which has {capacity}",
                    self.name
                );
                Err(Fault::argument(text))
            }
        }
    }

    /// Ends a file that an image of `bytes` has replaced. It is written over and cut afterwards:
    /// giving its blocks back, only to ask for others, takes longer than to write them.
    pub(crate) fn end_at(&self, bytes: u64) -> Result<(), Fault> {
        match self.capacity {
            Some(_) => Ok(()),
            None => self.file.set_len(bytes).map_err(|error| self.fault("truncate", bytes, &error)),
        }
    }

    /// Writes all of `bytes`.
    pub(crate) fn write(&self, bytes: &[u8], at: u64) -> Result<(), Fault> {
        self.check_room(at, bytes.len() as u64)?;
        let failed = self.fails_at.filter(|fails_at| at + bytes.len() as u64 > *fails_at);
        let written = match failed {
            Some(_) => Err(io::Error::other("the medium is worn out")),
            None => self.file.write_all_at(bytes, at),
        };
        written.map_err(|error| self.fault("write", at, &error))
    }

    /// Makes it zeros, without writing them if that is possible.
    pub(crate) fn zero(&self, at: u64, bytes: u64) -> Result<(), Fault> {
        self.check_room(at, bytes)?;
        let end = at + bytes;
        let size = self.size()?;
        if self.is_plain && self.capacity.is_none() && end > size {
            self.file.set_len(end).map_err(|error| self.fault("extend", at, &error))?;
            let there = size.saturating_sub(at);
            return if there == 0 { Ok(()) } else { self.zero(at, there) };
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match bytes == 0 || fallocate(&self.file, flags, at, bytes).is_ok() {
            true => Ok(()),
            false => self.write_zeros(at, bytes),
        }
    }

    fn write_zeros(&self, mut at: u64, bytes: u64) -> Result<(), Fault> {
        let end = at + bytes;
        while at < end {
            let now = (end - at).min(ZEROS.len() as u64);
            self.write(&ZEROS[..usize::try_from(now).expect("it is small")], at)?;
            at += now;
        }
        Ok(())
    }

    /// Reads up to `bytes` bytes; fewer at the end.
    pub(crate) fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut into = vec![0; bytes];
        let mut len = 0;
        while len < bytes {
            match self.file.read_at(&mut into[len..], at + len as u64) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault("read", at, &error)),
            }
        }
        into.truncate(len);
        Ok(into)
    }

    /// Waits until the bytes that were written are on the medium.
    pub(crate) fn sync_data(&self) -> Result<(), Fault> {
        self.file.sync_data().map_err(|error| self.fault("sync", 0, &error))
    }

    /// Waits until everything is on the medium.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        self.file.sync_all().map_err(|error| self.fault("sync", 0, &error))
    }

    /// Lets the kernel forget what it has of it, so that what is read is what is there.
    pub(crate) fn forget_cache(&self) {
        // It is advice; where it is not taken the cache is compared.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn fault(&self, what: &str, at: u64, error: &io::Error) -> Fault {
        let text = match error.kind() {
            io::ErrorKind::StorageFull => {
                format!("{}: no space is left on the exporter's disk, at byte {at}", self.name)
            }
            _ => format!("{}: cannot {what} at byte {at}: {error}", self.name),
        };
        Fault::new(FaultKind::Io, text)
    }
}
