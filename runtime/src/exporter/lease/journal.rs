//! The journal: what an exporter has granted, on its disk before it says so.
//!
//! A line for each entry: a checksum and the entry in JSON. A line that was torn by a crash, or
//! damaged since, is left out; what it would have said was never told to anybody, or ends with the
//! lease's time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::book::Entry;

/// Lines after which it is written anew, with what still counts.
const LINES_MAX: usize = 2000;

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// Another process has it.
    #[error(
        "another process has the journal {file}: two exporters must not share a state directory"
    )]
    Locked {
        /// The journal.
        file: PathBuf,
    },
    /// The disk.
    #[error("cannot use the journal {file}: {source}")]
    Io {
        /// The journal.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The journal of one exporter. Nobody else has it while this lives.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    /// A line that could not be written whole is cut off before the next.
    length: u64,
    _lock: File,
}

/// A journal, and what it says.
pub(crate) type Opened = (Journal, Vec<Entry>);

impl Journal {
    /// Opens the journal in `dir`, and reads what it says.
    ///
    /// # Errors
    ///
    /// [`JournalError`].
    pub(crate) fn open(dir: &Path) -> Result<Opened, JournalError> {
        let path = dir.join("leases.journal");
        let fail = |source| JournalError::Io { file: path.clone(), source };
        fs::create_dir_all(dir).map_err(fail)?;
        let lock = open_file(&dir.join("leases.lock")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(JournalError::Locked { file: path }),
            Err(fs::TryLockError::Error(source)) => return Err(fail(source)),
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        let (entries, damaged) = read(&bytes);
        if damaged > 0 {
            tracing::warn!(file = %path.display(), damaged, "lines of the journal of leases were left out");
        }
        let file = open_file(&path).map_err(fail)?;
        let lines = entries.len() + damaged;
        let length = bytes.len() as u64;
        let mut journal = Self { path, file, lines, length, _lock: lock };
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            journal.cut_to(journal.length)?;
            journal.write(b"\n")?; // what was torn is a line of its own
        }
        Ok((journal, entries))
    }

    /// Writes entries, and returns when they are on the disk.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; nothing that was to be written counts then.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let lines: String = entries.iter().map(line).collect();
        self.cut_to(self.length)?;
        self.write(lines.as_bytes())?;
        self.lines += entries.len();
        Ok(())
    }

    /// Whether it is time to write it anew.
    pub(crate) fn is_long(&self) -> bool {
        self.lines > LINES_MAX
    }

    /// Writes it anew with `entries` only: whole, or not at all.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; the journal is as it was then.
    pub(crate) fn rewrite(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let lines: String = entries.iter().map(line).collect();
        let new = self.path.with_extension("new");
        let written = || {
            let mut file = File::create(&new)?;
            file.write_all(lines.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            if let Some(dir) = self.path.parent() {
                File::open(dir)?.sync_all()?;
            }
            open_file(&self.path)
        };
        self.file = written().map_err(|source| self.fail(source))?;
        (self.lines, self.length) = (entries.len(), lines.len() as u64);
        Ok(())
    }

    /// Cuts off what a write that failed has left.
    fn cut_to(&self, length: u64) -> Result<(), JournalError> {
        let file = self.file.metadata().map_err(|source| self.fail(source))?;
        if file.nlink() == 0 {
            // What is written to it now is read by nobody.
            return Err(self.fail(io::Error::new(io::ErrorKind::NotFound, "it was removed")));
        }
        match file.len() > length {
            true => self.file.set_len(length).map_err(|source| self.fail(source)),
            false => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(|source| self.fail(source))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn fail(&self, source: io::Error) -> JournalError {
        JournalError::Io { file: self.path.clone(), source }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).read(true).open(path)
}

fn line(entry: &Entry) -> String {
    let json = serde_json::to_string(entry).expect("an entry is made of what JSON has");
    format!("{:08x} {json}\n", checksum(json.as_bytes()))
}

/// The entries, and how many lines were none.
fn read(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut damaged = 0;
    let entry = |line: &[u8]| {
        let (sum, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        let sum = u32::from_str_radix(sum, 16).ok()?;
        (sum == checksum(json.as_bytes())).then(|| serde_json::from_str(json).ok()).flatten()
    };
    let entries = lines.filter_map(|line| {
        let entry = entry(line);
        damaged += usize::from(entry.is_none());
        entry
    });
    (entries.collect(), damaged)
}

/// CRC-32, as Ethernet has it.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus_schema::TicketId;

    use super::*;
    use crate::exporter::lease::book::Lease;

    fn entry(epoch: u64) -> Entry {
        let lease = Lease {
            epoch,
            client: "alice".parse().unwrap(),
            ticket: TicketId(7),
            allowed: vec!["bob".parse().unwrap()],
            since: Duration::from_millis(1),
            until: Duration::from_secs(2),
            detached: true,
            starting: false,
            place: Some("rpi-1".parse().unwrap()),
        };
        Entry::Lease { path: "a/b".parse().unwrap(), lease }
    }

    #[test]
    fn the_checksum_is_that_of_everybody() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_journal_says_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, empty) = Journal::open(dir.path()).unwrap();
        assert_eq!(empty, []);
        journal.append(&[entry(1), entry(2)]).unwrap();
        journal.append(&[Entry::Freed { path: "a".parse().unwrap(), epoch: 2 }]).unwrap();
        drop(journal);
        let (mut journal, said) = Journal::open(dir.path()).unwrap();
        assert_eq!(said[..2], [entry(1), entry(2)]);
        assert_eq!(said.len(), 3);
        journal.rewrite(&[entry(3)]).unwrap();
        journal.append(&[entry(4)]).unwrap();
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().1, [entry(3), entry(4)]);
    }

    #[test]
    fn whatever_the_disk_lost_the_rest_is_read_and_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("leases.journal");
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&[entry(1), entry(2)]).unwrap();
        drop(journal);
        let whole = fs::read(&file).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            fs::write(&file, &whole[..cut]).unwrap();
            let (mut journal, said) = Journal::open(dir.path()).unwrap();
            let lost = cut < whole.len() - 1; // without its line feed a line is whole
            assert_eq!(said.len(), if lost { 1 } else { 2 }, "cut at {cut}");
            journal.append(&[entry(3)]).unwrap();
            drop(journal);
            assert_eq!(Journal::open(dir.path()).unwrap().1.last(), Some(&entry(3)), "{cut}");
        }
        let mut flipped = whole.clone();
        flipped[12] ^= 1;
        fs::write(&file, flipped).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().1, [entry(2)]);
    }

    #[test]
    fn a_journal_that_was_removed_is_not_written_on_and_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&[entry(1)]).unwrap();
        fs::remove_file(dir.path().join("leases.journal")).unwrap();
        let error = journal.append(&[entry(2)]).unwrap_err();
        assert!(error.to_string().contains("it was removed"), "{error}");
        journal.rewrite(&[entry(1)]).unwrap();
        journal.append(&[entry(2)]).unwrap();
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().1, [entry(1), entry(2)]);
    }

    #[test]
    fn a_second_process_does_not_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(JournalError::Locked { .. })));
        drop(journal);
        assert!(Journal::open(dir.path()).is_ok());
    }
}
