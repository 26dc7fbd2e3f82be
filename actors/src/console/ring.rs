//! What a console said last, and when: pure, without clock, lock or I/O.

use std::{collections::VecDeque, time::SystemTime};

use bytes::{Bytes, BytesMut};

/// Most bytes that share one time, and that leave the ring together.
const CHUNK_BYTES_MAX: usize = 4096;
/// What a chunk costs beside its bytes, counted so that a console that says single bytes cannot
/// take more memory than it was given.
const CHUNK_COST: usize = 96;
/// Bytes that come this close together have one time.
const SAME_TIME_MS: u128 = 1;
/// Most notes that are kept.
const NOTES_MAX: usize = 64;

/// The last bytes of a stream of bytes that has no end, in bounded memory.
#[derive(Debug)]
pub(super) struct Ring {
    chunks: VecDeque<Chunk>,
    /// What the chunks cost.
    cost: usize,
    cost_max: usize,
    end: u64,
    notes: VecDeque<Note>,
    /// Notes ever made.
    notes_made: u64,
}

#[derive(Debug)]
struct Chunk {
    at: u64,
    time: SystemTime,
    bytes: BytesMut,
}

#[derive(Debug)]
struct Note {
    at: u64,
    time: SystemTime,
    number: u64,
    text: String,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The next byte.
    pub(super) at: u64,
    /// The next note.
    note: u64,
}

/// What somebody reads next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// So many bytes are no longer kept.
    Lost(u64),
    /// Something happened to the device here.
    Note { at: u64, time: SystemTime, text: String },
    /// Bytes.
    Bytes { at: u64, time: SystemTime, data: Bytes },
    /// Nothing yet.
    Nothing,
}

impl Ring {
    /// A ring that takes about `cost_max` bytes of memory, and whose first byte has place `start`.
    pub(super) fn new(cost_max: usize, start: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            cost: 0,
            cost_max,
            end: start,
            notes: VecDeque::new(),
            notes_made: 0,
        }
    }

    /// The first byte that is kept.
    pub(super) fn start(&self) -> u64 {
        self.chunks.front().map_or(self.end, |chunk| chunk.at)
    }

    /// One past the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds what came at `time`.
    pub(super) fn push(&mut self, time: SystemTime, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.open_chunk(time);
            let (now, later) = bytes.split_at(bytes.len().min(space));
            if let Some(chunk) = self.chunks.back_mut() {
                chunk.bytes.extend_from_slice(now);
            }
            self.cost += now.len();
            self.end += now.len() as u64;
            bytes = later;
        }
        while self.cost > self.cost_max && self.chunks.len() > 1 {
            if let Some(chunk) = self.chunks.pop_front() {
                self.cost -= chunk.bytes.len() + CHUNK_COST;
            }
        }
    }

    /// Makes sure that the last chunk can take bytes of `time`, and says how many.
    fn open_chunk(&mut self, time: SystemTime) -> usize {
        let space = self.chunks.back().map_or(0, |chunk| {
            let apart = time.duration_since(chunk.time).map_or(u128::MAX, |gap| gap.as_millis());
            match apart < SAME_TIME_MS {
                true => CHUNK_BYTES_MAX.saturating_sub(chunk.bytes.len()),
                false => 0,
            }
        });
        if space > 0 {
            return space;
        }
        self.chunks.push_back(Chunk { at: self.end, time, bytes: BytesMut::new() });
        self.cost += CHUNK_COST;
        CHUNK_BYTES_MAX
    }

    /// Notes something at the place reached.
    pub(super) fn note(&mut self, time: SystemTime, text: String) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(Note { at: self.end, time, number: self.notes_made, text });
        self.notes_made += 1;
    }

    /// A cursor for what comes from now on.
    pub(super) fn live(&self) -> Cursor {
        Cursor { at: self.end, note: self.notes_made }
    }

    /// A cursor at `from`, or at the end if that is not reached yet.
    pub(super) fn cursor(&self, from: u64) -> Cursor {
        let at = from.min(self.end);
        let later = self.notes.iter().find(|note| note.at >= at);
        Cursor { at, note: later.map_or(self.notes_made, |note| note.number) }
    }

    /// What `cursor` reads next, of which it is then past.
    pub(super) fn next(&self, cursor: &mut Cursor) -> Next {
        let start = self.start();
        let note = self.notes.iter().find(|note| note.number >= cursor.note);
        if let Some(note) = note.filter(|note| note.at <= cursor.at) {
            cursor.note = note.number + 1;
            return Next::Note { at: note.at, time: note.time, text: note.text.clone() };
        }
        // What is lost before a note is told before it.
        let until = note.map_or(self.end, |note| note.at);
        if cursor.at < start {
            let lost = start.min(until) - cursor.at;
            cursor.at += lost;
            return Next::Lost(lost);
        }
        let after = self.chunks.partition_point(|chunk| chunk.at <= cursor.at);
        let chunk = after.checked_sub(1).and_then(|index| self.chunks.get(index));
        let Some(chunk) = chunk.filter(|_| cursor.at < until) else { return Next::Nothing };
        let from = (cursor.at - chunk.at) as usize;
        let to = chunk.bytes.len().min((until - chunk.at) as usize);
        let data = Bytes::copy_from_slice(&chunk.bytes[from..to]);
        let at = cursor.at;
        cursor.at += data.len() as u64;
        Next::Bytes { at, time: chunk.time, data }
    }
}

#[cfg(test)]
mod tests;
