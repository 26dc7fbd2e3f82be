//! One end of a stream as a pure machine: no I/O, no clock, no lock, so that a property test can
//! drive two of them over a channel that loses, repeats and reorders.

use std::{collections::VecDeque, ops::Range};

use bus_schema::{
    Fault,
    codec::DATA_HEAD_BYTES,
    limits::CHUNK_BYTES_MAX,
    message::{Ack, Begin, Data, End},
};
use bytes::{BufMut as _, Bytes, BytesMut};

/// Sealed chunks that may wait for credit before a writer has to. With the one being filled, a
/// writer is at most this far ahead of the network.
const CHUNKS_WAITING_MAX: usize = 4;

/// Buffers that are kept to be filled again; acknowledgements come for several chunks at once.
const SPARE_MAX: usize = 16;

/// What a peer did that the protocol does not allow. The stream is reset with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("sent past the credit it was given")]
    PastCredit,
    #[error("acknowledged bytes that were never sent")]
    UnsentAcknowledged,
    #[error("ended at another offset than it sent up to")]
    WrongTotal,
    #[error("sent bytes after its end")]
    AfterEnd,
}

/// A message ready to go: the same bytes every time it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Its number, counted from 0.
    pub(crate) number: u64,
    /// The whole message.
    pub(crate) message: Bytes,
    span: Range<u64>,
    is_end: bool,
}

/// One end: what it sends and what it receives.
#[derive(Debug)]
pub(crate) struct Flow {
    // sending
    filling: BytesMut,
    /// Buffers of acknowledged chunks, to be filled again: fresh ones cost a page fault for every
    /// 4 KiB.
    spare: Vec<BytesMut>,
    unacked: VecDeque<Chunk>,
    /// How many of `unacked`, from the front, were sent.
    sent: usize,
    /// Offset up to which anything was ever sent.
    sent_up_to: u64,
    written: u64,
    items: u64,
    chunks: u64,
    allowed: u64,
    chunk_bytes: usize,
    begin: Option<Begin>,
    end: Sending,
    /// Whether what was sent is kept until the peer has it. Not for a detached streaming call
    /// whose caller is gone: its record is what its readers go by.
    keeps: bool,
    // receiving
    arrived: VecDeque<Bytes>,
    received: u64,
    consumed: u64,
    granted: u64,
    window: u64,
    their_end: Option<End>,
    // what to say
    ack_due: bool,
    again_due: bool,
    /// Where a gap was last reported, so that one gap is one report until the next tick.
    again_at: Option<u64>,
    their_sent: u64,
    their_finished: bool,
}

#[derive(Debug, PartialEq)]
enum Sending {
    Open,
    /// The end is in `unacked`.
    Ended,
    /// The peer has it.
    Acknowledged,
}

impl Flow {
    /// An end that grants `window` bytes from the start and may send `allowed`.
    pub(crate) fn new(window: u64, allowed: u64) -> Self {
        Self {
            filling: BytesMut::new(),
            spare: Vec::new(),
            unacked: VecDeque::new(),
            sent: 0,
            sent_up_to: 0,
            written: 0,
            items: 0,
            chunks: 0,
            allowed,
            chunk_bytes: chunk_bytes(allowed),
            begin: None,
            end: Sending::Open,
            keeps: true,
            arrived: VecDeque::new(),
            received: 0,
            consumed: 0,
            granted: window,
            window,
            their_end: None,
            ack_due: false,
            again_due: false,
            again_at: None,
            their_sent: 0,
            their_finished: false,
        }
    }

    /// Lets this end send up to `limit`, as the peer said when the stream was opened.
    pub(crate) fn allow(&mut self, limit: u64) {
        self.allowed = self.allowed.max(limit);
        self.chunk_bytes = self.chunk_bytes.max(chunk_bytes(limit));
    }

    /// Sends from now on without regard for the peer, which is gone: for a streaming call that was
    /// started detached.
    pub(crate) fn go_alone(&mut self) {
        self.allow(u64::MAX);
        self.keeps = false;
        let sent = self.unacked.drain(..std::mem::take(&mut self.sent));
        if sent.last().is_some_and(|chunk| chunk.is_end) {
            self.end = Sending::Acknowledged;
        }
    }

    /// Whether it was [made to](Self::detached) send without regard for any peer.
    pub(crate) fn is_detached(&self) -> bool {
        !self.keeps
    }

    /// Puts what the record is of into the first chunk.
    pub(crate) fn with_begin(mut self, begin: Begin) -> Self {
        self.begin = Some(begin);
        self
    }

    // --- sending -------------------------------------------------------------------------

    /// Bytes that [`write`](Self::write) would take now.
    pub(crate) fn room(&self) -> usize {
        let waiting = self.unacked.len() - self.sent;
        match self.end == Sending::Open && waiting < CHUNKS_WAITING_MAX {
            true => self.chunk_bytes - self.filled().min(self.chunk_bytes),
            false => 0,
        }
    }

    fn filled(&self) -> usize {
        self.filling.len().saturating_sub(DATA_HEAD_BYTES)
    }

    /// Takes some of `bytes` and says how many.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        if taken > 0 {
            self.make_room(taken);
            self.filling.put_slice(&bytes[..taken]);
            self.seal_if_full();
        }
        taken
    }

    /// Takes one item, whatever its size, behind a MessagePack `bin` head. Ask
    /// [`room`](Self::room) first: any room at all will do.
    pub(crate) fn write_item(&mut self, item: &[u8]) {
        let len = u32::try_from(item.len()).expect("items are bounded by ITEM_BYTES_MAX");
        let mut head = [0xc6, 0, 0, 0, 0]; // bin32
        let head = match u8::try_from(len) {
            Ok(len) => {
                head[..2].copy_from_slice(&[0xc4, len]); // bin8
                &head[..2]
            }
            Err(_) => {
                head[1..].copy_from_slice(&len.to_be_bytes());
                &head[..]
            }
        };
        self.items += 1;
        // A record ends at an item's end where it can: a reader of one record gets whole items.
        if self.filled() > 0 && self.filled() + head.len() + item.len() > self.chunk_bytes {
            self.seal(None);
        }
        for mut part in [head, item] {
            while !part.is_empty() {
                let taken = part.len().min(self.chunk_bytes - self.filled());
                self.make_room(taken);
                self.filling.put_slice(&part[..taken]);
                part = &part[taken..];
                self.seal_if_full();
            }
        }
    }

    /// Leaves a gap for the head in front of the payload, so that a full chunk is a message
    /// without being copied.
    fn make_room(&mut self, more: usize) {
        if self.filling.is_empty() {
            // A first small write costs a small buffer; only a second one asks for a large one.
            match self.spare.pop() {
                Some(spare) => self.filling = spare,
                None => self.filling.reserve(DATA_HEAD_BYTES + more),
            }
            self.filling.put_bytes(0, DATA_HEAD_BYTES);
        } else if self.filling.capacity() - self.filling.len() < more {
            self.filling.reserve(DATA_HEAD_BYTES + self.chunk_bytes - self.filled());
        }
    }

    fn seal_if_full(&mut self) {
        if self.filled() >= self.chunk_bytes {
            self.seal(None);
        }
    }

    fn seal(&mut self, end: Option<End>) {
        let len = self.filled();
        let at = self.written;
        self.written += len as u64;
        let is_end = end.is_some();
        let begin = self.begin.take();
        let message = if is_end || begin.is_some() {
            let data = self.filling.split().freeze();
            let data = if data.is_empty() { data } else { data.slice(DATA_HEAD_BYTES..) };
            Data { at, data, begin, end }.encode()
        } else {
            let head = Data::head(at, u32::try_from(len).expect("a chunk is small"));
            self.filling[..DATA_HEAD_BYTES].copy_from_slice(&head);
            std::mem::take(&mut self.filling).freeze()
        };
        let (number, span) = (self.chunks, at..self.written);
        self.chunks += 1;
        self.unacked.push_back(Chunk { number, message, span, is_end });
    }

    /// Ends this direction: nothing more is written.
    pub(crate) fn finish(&mut self, fault: Option<Fault>, recorded: Option<u64>) {
        if self.end == Sending::Open {
            let bytes = self.written + self.filled() as u64;
            self.seal(Some(End { bytes, items: self.items, fault, recorded }));
            self.end = Sending::Ended;
        }
    }

    /// Ends this direction whatever the peer allows, and gives everything that was not sent yet:
    /// what a record still needs when its caller is gone.
    pub(crate) fn terminate(&mut self, fault: Fault, recorded: Option<u64>) -> Vec<Chunk> {
        self.finish(Some(fault), recorded);
        self.unacked.drain(..).skip(std::mem::take(&mut self.sent)).collect()
    }

    /// The next message to send, if credit allows. What was written so far goes at once, and what
    /// piled up meanwhile goes together.
    pub(crate) fn next_chunk(&mut self) -> Option<Chunk> {
        if self.sent == self.unacked.len() && self.filled() > 0 && self.written < self.allowed {
            self.seal_within_credit();
        }
        let chunk = self.unacked.get(self.sent)?;
        if chunk.span.end > self.allowed {
            return None;
        }
        self.sent_up_to = self.sent_up_to.max(chunk.span.end);
        if self.keeps {
            self.sent += 1;
            return Some(chunk.clone());
        }
        if chunk.is_end {
            self.end = Sending::Acknowledged;
        }
        self.unacked.pop_front()
    }

    /// Seals what is there if all of it fits the credit. What does not fit waits: windows are
    /// larger than chunks, so more credit is under way.
    fn seal_within_credit(&mut self) {
        if self.written + self.filled() as u64 <= self.allowed {
            self.seal(None);
        }
    }

    /// Whether a chunk could be sent now.
    pub(crate) fn has_chunk(&self) -> bool {
        match self.unacked.get(self.sent) {
            Some(chunk) => chunk.span.end <= self.allowed,
            None => self.filled() > 0 && self.written + self.filled() as u64 <= self.allowed,
        }
    }

    /// Whether everything written was sent, or goes by itself: no more credit is needed for it.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.written + self.filled() as u64 <= self.allowed
    }

    /// Whether everything written was sent at least once.
    pub(crate) fn is_flushed(&self) -> bool {
        self.filled() == 0 && self.sent == self.unacked.len()
    }

    /// Whether the peer has everything, end included.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.end == Sending::Acknowledged
    }

    /// The peer has forgotten the stream, which it does only when it has everything.
    pub(crate) fn assume_acknowledged(&mut self) {
        self.unacked.clear();
        self.sent = 0;
        self.end = Sending::Acknowledged;
    }

    /// Whether this direction was ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.end != Sending::Open
    }

    /// Whether something is on its way, so that the peer should be told how far we are.
    pub(crate) fn is_busy(&self) -> bool {
        !self.unacked.is_empty() || self.filled() > 0 || self.is_behind()
    }

    /// Chunks made so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.chunks
    }

    // --- receiving -----------------------------------------------------------------------

    /// Takes a data message.
    pub(crate) fn on_data(&mut self, data: Data) -> Result<(), Violation> {
        let end = data.at.checked_add(data.data.len() as u64).ok_or(Violation::PastCredit)?;
        if end > self.granted {
            return Err(Violation::PastCredit);
        }
        if data.at > self.received {
            self.report_gap();
            return Ok(());
        }
        if end > self.received {
            if self.their_end.is_some() {
                return Err(Violation::AfterEnd);
            }
            let new = usize::try_from(self.received - data.at).expect("within one chunk");
            self.arrived.push_back(data.data.slice(new..));
            self.received = end;
            self.again_at = None;
        } else {
            self.ack_due = true; // a repeat: the peer does not know that it is here
        }
        if let Some(theirs) = data.end {
            if theirs.bytes != self.received {
                return Err(Violation::WrongTotal);
            }
            self.their_end.get_or_insert(theirs);
            self.ack_due = true;
        }
        Ok(())
    }

    fn report_gap(&mut self) {
        if self.again_at != Some(self.received) {
            self.again_at = Some(self.received);
            self.again_due = true;
            self.ack_due = true;
        }
    }

    /// Takes a control message.
    pub(crate) fn on_ack(&mut self, ack: Ack) -> Result<(), Violation> {
        if ack.received > self.sent_up_to {
            return Err(Violation::UnsentAcknowledged);
        }
        while let Some(first) = self.unacked.front() {
            if first.span.end > ack.received || (first.is_end && !ack.ended) {
                break;
            }
            if first.is_end {
                self.end = Sending::Acknowledged;
            }
            let acknowledged = self.unacked.pop_front();
            self.keep_spare(acknowledged);
            self.sent = self.sent.saturating_sub(1); // it may be waiting to be sent again
        }
        if ack.limit > self.allowed {
            self.allowed = ack.limit;
            self.chunk_bytes =
                self.chunk_bytes.max(chunk_bytes(ack.limit - ack.received.min(ack.limit)));
        }
        if ack.again {
            self.sent = 0;
        }
        self.their_sent = self.their_sent.max(ack.sent);
        self.their_finished |= ack.finished;
        // A peer that says how far it sent wants to know how much of that is here.
        let knows = ack.sent == 0 && !ack.finished;
        self.ack_due |= !knows && !self.is_behind();
        Ok(())
    }

    /// Keeps a large buffer that nobody else holds any more.
    fn keep_spare(&mut self, chunk: Option<Chunk>) {
        let full = DATA_HEAD_BYTES + self.chunk_bytes;
        if self.spare.len() < SPARE_MAX
            && let Some(chunk) = chunk.filter(|chunk| chunk.message.len() == full)
            && let Ok(mut buffer) = chunk.message.try_into_mut()
        {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Whether the peer has said that it sent more than is here.
    pub(crate) fn is_behind(&self) -> bool {
        self.their_sent > self.received || (self.their_finished && self.their_end.is_none())
    }

    /// Where what is here ends, if that [is behind](Self::is_behind).
    pub(crate) fn missing(&self) -> Option<u64> {
        self.is_behind().then_some(self.received)
    }

    /// Asks for what is missing. For a timer that has seen [`is_behind`](Self::is_behind) hold
    /// for a while: data and control travel on two connections, and either may be ahead.
    pub(crate) fn ask_again(&mut self) {
        self.again_due = true;
        self.ack_due = true;
    }

    /// Moves what has arrived to the reader.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(front) = self.arrived.front_mut() {
            let taken = front.len().min(into.len() - read);
            into[read..read + taken].copy_from_slice(&front[..taken]);
            read += taken;
            match taken == front.len() {
                true => drop(self.arrived.pop_front()),
                false => drop(front.split_to(taken)),
            }
            if read == into.len() {
                break;
            }
        }
        self.consume(read);
        read
    }

    /// The next run of bytes that has arrived, without copying it.
    pub(crate) fn read_bytes(&mut self) -> Option<Bytes> {
        let bytes = self.arrived.pop_front()?;
        self.consume(bytes.len());
        Some(bytes)
    }

    /// Counts bytes as read; half a window of them is worth an acknowledgement.
    fn consume(&mut self, bytes: usize) {
        self.consumed += bytes as u64;
        self.ack_due |= self.consumed + self.window - self.granted >= self.window / 2;
    }

    /// The peer's end, once everything before it was read.
    pub(crate) fn end_of_input(&self) -> Option<&End> {
        self.their_end.as_ref().filter(|_| self.arrived.is_empty())
    }

    /// Whether the peer's end has arrived, read or not.
    pub(crate) fn has_their_end(&self) -> bool {
        self.their_end.is_some()
    }

    /// Grants `more` bytes of window from now on.
    pub(crate) fn widen(&mut self, more: u64) {
        self.window += more;
        self.ack_due = true;
    }

    /// Makes the next acknowledgement due, which tells the peer what it may send.
    pub(crate) fn invite(&mut self) {
        self.ack_due = true;
    }

    /// The window that is granted.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Whether at least a window's worth was read since the last call of this.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// How far this end is, if there is something to say.
    pub(crate) fn next_ack(&mut self) -> Option<Ack> {
        self.ack_due.then(|| self.ack())
    }

    /// Whether there is something to say.
    pub(crate) fn has_ack(&self) -> bool {
        self.ack_due
    }

    /// How far this end is, for a keep-alive. `sent` is left out when all of it is acknowledged,
    /// which tells the peer that it need not answer.
    pub(crate) fn ack(&mut self) -> Ack {
        self.ack_due = false;
        self.granted = self.granted.max(self.consumed + self.window);
        // What was sealed and not sent yet is not the peer's concern: two ends that both wait for
        // credit would answer each other without end.
        let again = self.unacked.front().is_some_and(|first| first.span.start < self.sent_up_to);
        let unsure = self.sent > 0 || again;
        Ack {
            received: self.received,
            limit: self.granted,
            ended: self.their_end.is_some(),
            sent: if unsure { self.sent_up_to } else { 0 },
            finished: unsure && self.end == Sending::Ended && self.sent == self.unacked.len(),
            again: std::mem::take(&mut self.again_due),
        }
    }
}

/// Two chunks fit any window, so that credit for the second is under way while the first is.
fn chunk_bytes(window: u64) -> usize {
    usize::try_from(window / 2).unwrap_or(usize::MAX).clamp(1, CHUNK_BYTES_MAX)
}

#[cfg(test)]
mod tests;
