//! What a console said, on the disk of the exporter: what has left memory is read from here.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::ring::Next;

mod segment;

use segment::{ENTRY_BYTES, Segment, index_path};

/// A file of bounded size and its predecessor, each with its index. There is one who writes and any
/// number who read.
///
/// The places of a console go on where the file of the last run ends. What that run had said and
/// not written any more is lost, and its places are given again.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    bytes_max: u64,
    segments: Mutex<Segments>,
    /// Held by the one who writes.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Segments {
    older: Option<Arc<Segment>>,
    newest: Arc<Segment>,
    /// Counts the newest ones, so that a reader knows its own again.
    number: u64,
}

/// Where somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    segment: u64,
    entry: u64,
}

impl Archive {
    /// Opens the files, or makes them.
    pub(super) fn open(path: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let newest = open_newest(&path)?;
        let older = older_path(&path);
        let older = older.exists().then(|| Segment::open(&older)).transpose()?;
        let older = older.filter(|older| older.reach().entries > 0).map(Arc::new);
        let segments = Segments { older, newest: Arc::new(newest), number: 1 };
        Ok(Self { path, bytes_max, segments: Mutex::new(segments), writing: Mutex::default() })
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first place that is kept, if any is, and one past the last.
    pub(super) fn reach(&self) -> (Option<u64>, u64) {
        let segments = self.segments();
        let reach = segments.newest.reach();
        let newest = (reach.entries > 0).then_some((reach.start, reach.end));
        let older = segments.older.as_ref().map(|older| (older.reach().start, older.reach().end));
        let start = older.or(newest).map(|(start, _)| start);
        let end = newest.or(older).map_or(0, |(_, end)| end);
        (start, end)
    }

    /// Adds what comes next, and makes room for it. After an error nothing is added, and it may be
    /// tried again. Bytes that are there already are not added twice.
    pub(super) fn append(&self, next: &Next) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match next {
            Next::Bytes { at, .. } if *at < self.reach().1 => return Ok(()),
            Next::Bytes { data, .. } => data.len() as u64,
            _ => 0,
        };
        let mut newest = self.segments().newest.clone();
        let reach = newest.reach();
        if reach.entries > 0 && reach.bytes + reach.entries * ENTRY_BYTES + bytes > self.bytes_max {
            newest = self.begin_anew()?;
        }
        newest.append(next)
    }

    fn begin_anew(&self) -> io::Result<Arc<Segment>> {
        let older = older_path(&self.path);
        // In this order: bytes without an index are seen to be that.
        fs::rename(index_path(&self.path), index_path(&older))?;
        fs::rename(&self.path, &older)?;
        let newest = Arc::new(Segment::open(&self.path)?);
        let mut segments = self.segments();
        segments.older = Some(std::mem::replace(&mut segments.newest, newest.clone()));
        segments.number += 1;
        Ok(newest)
    }

    /// Opens the newest file once more, by its name: whoever emptied a full disk may have moved it.
    pub(super) fn open_again(&self) -> io::Result<()> {
        let index = index_path(&self.path);
        if index.exists() && self.path.exists() {
            return Ok(());
        }
        if index.exists() {
            fs::remove_file(&index)?; // that of the file that is gone
        }
        let newest = Arc::new(open_newest(&self.path)?);
        let mut segments = self.segments();
        segments.newest = newest;
        segments.number += 1;
        Ok(())
    }

    /// What follows on `at`, short of `limit`, and where to read on. Nothing where it ends.
    pub(super) fn read(
        &self,
        place: Option<Place>,
        at: u64,
        limit: u64,
    ) -> io::Result<(Next, Option<Place>)> {
        let kept = {
            let segments = self.segments();
            let newest = (segments.number, segments.newest.clone());
            let older = segments.older.clone().map(|older| (segments.number - 1, older));
            older.into_iter().chain([newest]).collect::<Vec<_>>()
        };
        let known = place.filter(|place| kept.iter().any(|(number, _)| *number == place.segment));
        for (number, segment) in kept {
            let entry = match known {
                Some(place) if number < place.segment => continue,
                Some(place) if number == place.segment => place.entry,
                _ if segment.reach().end <= at => continue,
                _ => segment.find(at)?,
            };
            let (next, entry) = segment.read(entry, at, limit)?;
            if next != Next::Nothing {
                return Ok((next, Some(Place { segment: number, entry })));
            }
        }
        Ok((Next::Nothing, None))
    }
}

fn open_newest(path: &Path) -> io::Result<Segment> {
    let newest = Segment::open(path)?;
    if !newest.lacks_index() {
        return Ok(newest);
    }
    // The last run ended between two steps of `begin_anew`, or the file is no capture.
    fs::rename(path, older_path(path))?;
    drop(newest);
    Segment::open(path)
}

fn older_path(path: &Path) -> PathBuf {
    let mut older = path.to_path_buf().into_os_string();
    older.push(".1");
    older.into()
}

#[cfg(test)]
mod tests;
