//! One file of what a console said, and the file beside it that says what came when.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

use super::super::ring::Next;

/// Bytes of an entry in the index.
pub(super) const ENTRY_BYTES: u64 = 32;
/// What an entry begins with; its kind follows.
const MAGIC: [u8; 7] = *b"jmpcap1";
/// Bytes that come this close together share an entry, so that a console that says single bytes
/// does not write more about them than they are.
const SAME_TIME: Duration = Duration::from_millis(10);
/// Bytes that are read at once.
const READ_BYTES_MAX: u64 = 64 << 10;
/// Longest note that is read: ours are far shorter.
const NOTE_BYTES_MAX: u64 = 4 << 10;
/// Entries at the end of an index that a crash may have left without their bytes. More are damage.
const TORN_ENTRIES_MAX: u64 = 64;

/// The bytes as they came, notes in brackets between them, for people and their tools; and an index
/// of fixed entries, by which any place is found. An entry is written before its bytes.
#[derive(Debug)]
pub(super) struct Segment {
    data: File,
    index: File,
    reach: Mutex<Reach>,
}

/// How far a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Entries of the index.
    pub(super) entries: u64,
    /// Bytes of the data, notes included.
    pub(super) bytes: u64,
    /// The place of its first byte.
    pub(super) start: u64,
    /// One past that of its last.
    pub(super) end: u64,
    /// The newest entry.
    last: Option<Entry>,
}

/// From here on, until the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: EntryKind,
    /// The place in all that the console said.
    at: u64,
    /// The place in the data.
    pos: u64,
    time_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    Bytes,
    Note,
}

/// The file with the index of `data`.
pub(super) fn index_path(data: &Path) -> PathBuf {
    let mut path = data.to_path_buf().into_os_string();
    path.push(".times");
    path.into()
}

impl Segment {
    /// Opens or makes the files. What a crash has left half written is cut off.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(path)
        };
        let data = open(path)?;
        let index = open(&index_path(path))?;
        flock(&index, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(ErrorKind::ResourceBusy, "another port writes this file")
        })?;
        let reach = Reach::read(&data, &index)?;
        if index.metadata()?.len() != reach.entries * ENTRY_BYTES {
            index.set_len(reach.entries * ENTRY_BYTES)?;
        }
        Ok(Self { data, index, reach: Mutex::new(reach) })
    }

    /// Whether it has bytes that no entry is about.
    pub(super) fn lacks_index(&self) -> bool {
        let reach = self.reach();
        reach.entries == 0 && reach.bytes > 0
    }

    pub(super) fn reach(&self) -> Reach {
        *self.locked()
    }

    fn locked(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what comes next. After an error nothing is added, and it may be tried again. There is
    /// one who writes.
    pub(super) fn append(&self, next: &Next) -> io::Result<()> {
        let (kind, at, time, bytes) = match next {
            Next::Bytes { at, time, data } => (EntryKind::Bytes, *at, *time, data.clone()),
            Next::Note { at, time, text } => {
                (EntryKind::Note, *at, *time, format!("\r\n[{text}]\r\n").into())
            }
            Next::Lost(_) | Next::Nothing => return Ok(()), // the next entry's place says so
        };
        let mut reach = self.reach();
        let entry = Entry { kind, at, pos: reach.bytes, time_us: micros(time) };
        if !reach.last.is_some_and(|last| last.covers(&entry, reach.end)) {
            self.index.write_all_at(&entry.encode(), reach.entries * ENTRY_BYTES)?;
            reach.start = if reach.entries == 0 { at } else { reach.start };
            reach.entries += 1;
            reach.last = Some(entry);
        }
        self.data.write_all_at(&bytes, reach.bytes)?;
        reach.bytes += bytes.len() as u64;
        reach.end = if kind == EntryKind::Bytes { at + bytes.len() as u64 } else { at };
        *self.locked() = reach;
        Ok(())
    }

    /// The first entry that is about `at` or what follows it.
    pub(super) fn find(&self, at: u64) -> io::Result<u64> {
        let reach = self.reach();
        let (mut low, mut high) = (0, reach.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)?.at < at {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let Some(before) = low.checked_sub(1) else { return Ok(low) };
        let (entry, end_pos) = self.span(before, &reach)?;
        let goes_on = entry.kind == EntryKind::Bytes && entry.end(end_pos) > at;
        Ok(if goes_on { before } else { low })
    }

    /// What follows on place `at` of entry `number`, short of `limit`, and the entry after it.
    /// Nothing at the end.
    pub(super) fn read(&self, number: u64, at: u64, limit: u64) -> io::Result<(Next, u64)> {
        let reach = self.reach();
        let mut number = number;
        while number < reach.entries {
            let (entry, end_pos) = self.span(number, &reach)?;
            let time = UNIX_EPOCH + Duration::from_micros(entry.time_us);
            if entry.at > at {
                return Ok((Next::Lost(entry.at.min(limit) - at), number));
            }
            match entry.kind {
                EntryKind::Note => {
                    let bytes = self.bytes(entry.pos, (end_pos - entry.pos).min(NOTE_BYTES_MAX))?;
                    let text = String::from_utf8_lossy(&bytes);
                    let text = text.trim().trim_matches(['[', ']']).to_owned();
                    return Ok((Next::Note { at, time, text }, number + 1));
                }
                EntryKind::Bytes if entry.end(end_pos) > at => {
                    let skip = at - entry.at;
                    let left = entry.end(end_pos).min(limit) - at;
                    let data = self.bytes(entry.pos + skip, left.min(READ_BYTES_MAX))?;
                    return Ok((Next::Bytes { at, time, data }, number));
                }
                EntryKind::Bytes if number + 1 == reach.entries => break, // it may grow
                EntryKind::Bytes => number += 1,
            }
        }
        Ok((Next::Nothing, number))
    }

    /// An entry, and where in the data it ends.
    fn span(&self, number: u64, reach: &Reach) -> io::Result<(Entry, u64)> {
        let entry = self.entry(number)?;
        let end_pos = match number + 1 < reach.entries {
            true => self.entry(number + 1)?.pos,
            false => reach.bytes,
        };
        match entry.pos <= end_pos {
            true => Ok((entry, end_pos)),
            false => Err(damaged()),
        }
    }

    fn entry(&self, number: u64) -> io::Result<Entry> {
        read_entry(&self.index, number)
    }

    fn bytes(&self, pos: u64, count: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
        self.data.read_exact_at(&mut bytes, pos)?;
        Ok(bytes.into())
    }
}

fn read_entry(index: &File, number: u64) -> io::Result<Entry> {
    let mut bytes = [0; ENTRY_BYTES as usize];
    index.read_exact_at(&mut bytes, number * ENTRY_BYTES)?;
    Entry::decode(&bytes).ok_or_else(damaged)
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the index of the capture file is damaged")
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Reach {
    fn read(data: &File, index: &File) -> io::Result<Self> {
        let bytes = data.metadata()?.len();
        let written = index.metadata()?.len() / ENTRY_BYTES;
        let good = |number: u64| {
            let entry = number.checked_sub(1).map(|last| read_entry(index, last));
            entry.and_then(Result::ok).filter(|entry| entry.pos <= bytes)
        };
        let torn = written.saturating_sub(TORN_ENTRIES_MAX);
        let last = (torn..=written).rev().find_map(|number| Some((number, good(number)?)));
        let first = read_entry(index, 0).ok();
        let (Some((entries, last)), Some(first)) = (last, first) else {
            return Ok(Self { entries: 0, bytes, start: 0, end: 0, last: None });
        };
        let end = match last.kind {
            EntryKind::Bytes => last.end(bytes),
            EntryKind::Note => last.at,
        };
        Ok(Self { entries, bytes, start: first.at, end, last: Some(last) })
    }
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES as usize] {
        let mut bytes = [0; ENTRY_BYTES as usize];
        bytes[..7].copy_from_slice(&MAGIC);
        bytes[7] = match self.kind {
            EntryKind::Bytes => b'b',
            EntryKind::Note => b'n',
        };
        for (at, number) in [(8, self.at), (16, self.pos), (24, self.time_us)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; ENTRY_BYTES as usize]) -> Option<Self> {
        let kind = match (bytes.strip_prefix(&MAGIC)?, bytes[7]) {
            (_, b'b') => EntryKind::Bytes,
            (_, b'n') => EntryKind::Note,
            _ => return None,
        };
        let number = |at: usize| {
            let number = bytes[at..at + 8].try_into().map(u64::from_le_bytes);
            number.ok()
        };
        Some(Self { kind, at: number(8)?, pos: number(16)?, time_us: number(24)? })
    }

    /// One past the last place of an entry of bytes that ends at `end_pos` of the data.
    fn end(&self, end_pos: u64) -> u64 {
        self.at.saturating_add(end_pos - self.pos)
    }

    /// Whether `next`, which would follow on place `end`, needs no entry of its own.
    fn covers(&self, next: &Self, end: u64) -> bool {
        let both = (self.kind, next.kind) == (EntryKind::Bytes, EntryKind::Bytes);
        let apart = next.time_us.checked_sub(self.time_us).map(Duration::from_micros);
        both && next.at == end && apart.is_some_and(|apart| apart < SAME_TIME)
    }
}
