//! One end of a stream, between those who use it and the pump that speaks for it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bus_schema::{
    Fault, FaultKind,
    message::{Ack, Data, Reset, ResetCode},
};
use bytes::Bytes;
use tokio::{io::ReadBuf, sync::Notify};

use super::{Chunk, Flow, budget::Grant, flow::Violation};

/// One end, shared by the code that uses it, the reader that hears the peer, and the pump that
/// speaks to it.
pub(crate) struct PipeEnd {
    state: Mutex<State>,
    wake_pump: Notify,
    contact: Notify,
}

struct State {
    flow: Flow,
    direction: PipeDirection,
    /// Given back when the stream is complete.
    grant: Option<Grant>,
    /// Bytes read when the window was last widened.
    widened_at: u64,
    reader: Option<Waker>,
    writers: Waiters,
    /// Who waits until the peer has everything.
    finishers: Waiters,
    /// Whether it goes on without its peer.
    detached: bool,
    /// How it was cut off, if it was.
    reset: Option<Reset>,
    /// A reset that the peer is still to be told of.
    reset_due: bool,
    /// Nobody reads or writes here any more.
    abandoned: bool,
    /// How the streaming call ended, until the pump has seen to its record.
    finishing: Option<Option<Fault>>,
    heard: Instant,
}

/// Tasks that wait for the same thing: several may write the items of one streaming call.
#[derive(Default)]
struct Waiters(Vec<Waker>);

impl Waiters {
    fn add(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// Which directions a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PipeDirection {
    Both,
    SendOnly,
    ReceiveOnly,
}

/// What the pump sends next.
pub(crate) enum Next {
    Chunk(Chunk),
    Ack(Ack),
    Reset(Reset),
    /// Nothing now.
    Wait,
    /// Nothing ever: both sides have everything.
    Complete,
}

/// Why a stream ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was reset ({code}): {text}")]
pub struct StreamError {
    /// Why, for programs.
    pub code: ResetCode,
    /// Why, for people.
    pub text: String,
}

impl PipeEnd {
    /// An end with `flow`, whose credit is `grant`.
    pub(crate) fn new(flow: Flow, direction: PipeDirection, grant: Grant) -> Arc<Self> {
        let state = State {
            flow,
            direction,
            grant: Some(grant),
            widened_at: 0,
            reader: None,
            writers: Waiters::default(),
            finishers: Waiters::default(),
            detached: false,
            reset: None,
            reset_due: false,
            abandoned: false,
            finishing: None,
            heard: Instant::now(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            wake_pump: Notify::new(),
            contact: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- the peer speaks -----------------------------------------------------------------

    pub(crate) fn on_data(&self, data: Data) {
        self.hear(|flow| flow.on_data(data));
    }

    pub(crate) fn on_ack(&self, ack: Ack) {
        self.hear(|flow| flow.on_ack(ack));
    }

    fn hear(&self, take: impl FnOnce(&mut Flow) -> Result<(), Violation>) {
        let mut state = self.lock();
        state.heard = Instant::now();
        self.contact.notify_one();
        if state.reset.is_some() {
            return;
        }
        if let Err(violation) = take(&mut state.flow) {
            let text = format!("the peer {violation}");
            state.cut(Reset { code: ResetCode::Protocol, text }, true);
        }
        state.wake();
        if state.has_work() {
            drop(state);
            self.wake_pump.notify_one();
        }
    }

    /// The peer has reset the stream. A detached streaming call goes on without its caller: only
    /// a cancel ends it.
    pub(crate) fn on_reset(&self, reset: Reset) {
        let mut state = self.lock();
        if state.flow.is_detached() {
            return;
        }
        // A client that has everything forgets the stream, and says so to late questions.
        let has_it = reset.code == ResetCode::NoStream
            && state.direction == PipeDirection::SendOnly
            && state.flow.is_finished()
            && state.flow.is_flushed();
        if has_it {
            state.flow.assume_acknowledged();
            state.wake();
        } else if state.detached {
            state.flow.go_alone();
            state.wake();
        } else if !state.is_complete() {
            state.cut(reset, false);
        } else {
            return; // a late answer to a late acknowledgement: not one more word
        }
        drop(state);
        self.wake_pump.notify_one();
    }

    // --- this side speaks ----------------------------------------------------------------

    /// Cuts the stream off at this side; the peer is told.
    pub(crate) fn reset(&self, code: ResetCode, text: impl fmt::Display) {
        let mut state = self.lock();
        if !state.is_complete() {
            state.cut(Reset { code, text: text.to_string() }, true);
        }
        drop(state);
        self.wake_pump.notify_one();
    }

    /// Lets it go on without its peer, once that is gone.
    pub(crate) fn detach(&self) {
        self.lock().detached = true;
    }

    /// The peer is gone: cuts the stream off, unless it goes on without it.
    pub(crate) fn lose_peer(&self, why: impl fmt::Display) {
        let mut state = self.lock();
        let detached = state.detached;
        if detached {
            state.flow.go_alone();
            state.wake();
        }
        drop(state);
        match detached {
            true => self.wake_pump.notify_one(),
            false => self.reset(ResetCode::Silent, why),
        }
    }

    /// Ends the sending half.
    pub(crate) fn finish(&self) {
        self.lock().flow.finish(None, None);
        self.wake_pump.notify_one();
    }

    /// Ends the items of a streaming call. The pump seals the end when it knows how far the
    /// record goes.
    pub(crate) fn finish_items(&self, fault: Option<Fault>) {
        self.lock().finishing.get_or_insert(fault);
        self.wake_pump.notify_one();
    }

    /// Whether an end waits to be sealed.
    pub(crate) fn is_finishing(&self) -> bool {
        self.lock().finishing.is_some()
    }

    /// Seals the end that waits.
    pub(crate) fn seal_end(&self, recorded: Option<u64>) {
        let mut state = self.lock();
        if let Some(fault) = state.finishing.take() {
            state.flow.finish(fault, recorded);
        }
    }

    /// Ends the items for the record alone: the caller is gone.
    pub(crate) fn terminate(&self, recorded: Option<u64>) -> Vec<Chunk> {
        let mut state = self.lock();
        let why = state.error().map_or_else(String::new, |error| error.to_string());
        let fault = match state.finishing.take() {
            Some(Some(fault)) => fault,
            _ => Fault::new(FaultKind::Cancelled, why),
        };
        state.flow.terminate(fault, recorded)
    }

    /// Lets this side send up to `limit`.
    pub(crate) fn allow(&self, limit: u64) {
        self.lock().flow.allow(limit);
        self.wake_pump.notify_one();
    }

    /// What to send now; data only if `may_send`.
    pub(crate) fn next(&self, may_send: bool) -> Next {
        let mut state = self.lock();
        if let Some(reset) = state.reset.clone() {
            return match std::mem::take(&mut state.reset_due) {
                true => Next::Reset(reset),
                false => Next::Complete,
            };
        }
        if let Some(ack) = state.flow.next_ack() {
            return Next::Ack(ack);
        }
        if let Some(chunk) = may_send.then(|| state.flow.next_chunk()).flatten() {
            if state.flow.room() > 0 || state.flow.is_flushed() {
                state.writers.wake();
            }
            return Next::Chunk(chunk);
        }
        if state.is_complete() {
            state.grant = None;
            state.wake();
            return Next::Complete;
        }
        if state.abandoned && state.flow.is_acknowledged() {
            // The writing half was ended properly and nobody reads: the rest is not wanted.
            state.cut(Reset { code: ResetCode::Cancelled, text: String::new() }, true);
            return Next::Reset(Reset { code: ResetCode::Cancelled, text: String::new() });
        }
        Next::Wait
    }

    /// Whether bytes come in here, so that their sender may ask once more whether they did.
    pub(crate) fn receives(&self) -> bool {
        self.lock().direction != PipeDirection::SendOnly
    }

    /// Waits for something to send. Cancel safe.
    pub(crate) async fn work(&self) {
        self.wake_pump.notified().await;
    }

    /// A keep-alive, and whether the peer has been silent since `since`.
    pub(crate) fn keep_alive(&self, ask_again: bool) -> Ack {
        let mut state = self.lock();
        if ask_again {
            state.flow.ask_again();
        }
        state.flow.ack()
    }

    /// Whether something is on its way, in either direction.
    pub(crate) fn is_busy(&self) -> bool {
        self.lock().flow.is_busy()
    }

    /// Where what is here ends, if the peer has sent more.
    pub(crate) fn missing(&self) -> Option<u64> {
        self.lock().flow.missing()
    }

    /// Time since the peer was last heard.
    pub(crate) fn silence(&self) -> Duration {
        self.lock().heard.elapsed()
    }

    /// Resolves when the peer was heard. For one who waits before it says anything itself.
    pub(crate) async fn contact(&self) {
        self.contact.notified().await;
    }

    /// Waits until the peer has everything and its end.
    pub(crate) async fn acknowledged(&self) -> Result<(), StreamError> {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.flow.is_acknowledged() {
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = state.error() {
                return Poll::Ready(Err(error));
            }
            state.finishers.add(cx);
            Poll::Pending
        })
        .await
    }

    /// Counts as hearing from the peer: a broker that was away is not the peer's silence.
    pub(crate) fn forgive(&self) {
        self.lock().heard = Instant::now();
    }

    /// How it was cut off, if it was.
    pub(crate) fn error(&self) -> Option<StreamError> {
        self.lock().error()
    }

    /// Chunks made so far.
    pub(crate) fn chunks(&self) -> u64 {
        self.lock().flow.chunks()
    }

    // --- reading and writing -------------------------------------------------------------

    /// Puts an item in, when there is room.
    pub(crate) fn poll_item(
        &self,
        cx: &mut Context<'_>,
        item: &[u8],
    ) -> Poll<Result<(), StreamError>> {
        let mut state = self.lock();
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        if state.flow.room() == 0 {
            state.writers.add(cx);
            return Poll::Pending;
        }
        state.flow.write_item(item);
        drop(state);
        self.wake_pump.notify_one();
        Poll::Ready(Ok(()))
    }

    /// The next run of bytes, without copying it; `None` at the end.
    pub(crate) fn poll_bytes(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let mut state = self.lock();
        if let Some(bytes) = state.flow.read_bytes() {
            state.widen();
            let work = state.has_work();
            drop(state);
            if work {
                self.wake_pump.notify_one();
            }
            return Poll::Ready(Ok(Some(bytes)));
        }
        if state.flow.end_of_input().is_some() {
            return Poll::Ready(Ok(None));
        }
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// [`poll_bytes`](Self::poll_bytes) as a future. Cancel safe.
    pub(crate) async fn read_chunk(&self) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write_some(cx, bytes)).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Moves what has arrived to a reader; moves nothing at the end.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let mut state = self.lock();
        let read = state.flow.read(buf.initialize_unfilled());
        if read > 0 {
            buf.advance(read);
            state.widen();
            let work = state.has_work();
            drop(state);
            if work {
                self.wake_pump.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        if state.flow.end_of_input().is_some() || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether this direction was ended.
    pub(super) fn is_finished(&self) -> bool {
        self.lock().flow.is_finished()
    }

    pub(super) fn poll_write_some(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, StreamError>> {
        let mut state = self.lock();
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        let written = state.flow.write(bytes);
        if written == 0 && !bytes.is_empty() {
            state.writers.add(cx);
            return Poll::Pending;
        }
        drop(state);
        self.wake_pump.notify_one();
        Poll::Ready(Ok(written))
    }

    /// Waits until what was written is `far` enough on its way.
    pub(super) fn poll_until(
        &self,
        cx: &mut Context<'_>,
        far: impl FnOnce(&Flow) -> bool,
    ) -> Poll<Result<(), StreamError>> {
        let mut state = self.lock();
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error));
        }
        if far(&state.flow) {
            return Poll::Ready(Ok(()));
        }
        state.writers.add(cx);
        Poll::Pending
    }

    /// What the peer may send from the start.
    pub(crate) fn credit(&self) -> u64 {
        self.lock().flow.window()
    }

    /// Tells the peer at once that it may send.
    pub(crate) fn invite(&self) {
        self.lock().flow.invite();
        self.wake_pump.notify_one();
    }

    /// The peer's end, once everything before it was read.
    pub(crate) fn their_end(&self) -> Option<bus_schema::message::End> {
        self.lock().flow.end_of_input().cloned()
    }

    /// Nobody reads or writes here any more; whoever served it will say how it ends.
    pub(super) fn leave(&self) {
        self.lock().abandoned = true;
        self.wake_pump.notify_one();
    }

    /// Nobody uses this side any more. What was written and ended is still delivered; anything
    /// else is cut off.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        let sends = state.direction != PipeDirection::ReceiveOnly;
        let unfinished = match sends {
            true => !state.flow.is_finished(),
            false => !state.flow.has_their_end(),
        };
        if unfinished && !state.is_complete() {
            let text = "dropped before its end".to_owned();
            state.cut(Reset { code: ResetCode::Cancelled, text }, true);
        }
        drop(state);
        self.wake_pump.notify_one();
    }
}

impl State {
    fn cut(&mut self, reset: Reset, tell: bool) {
        if self.reset.is_none() {
            self.reset = Some(reset);
            self.reset_due = tell;
            self.wake();
        }
    }

    fn error(&self) -> Option<StreamError> {
        let Reset { code, text } = self.reset.clone()?;
        Some(StreamError { code, text })
    }

    fn is_complete(&self) -> bool {
        match self.direction {
            PipeDirection::Both => self.flow.is_acknowledged() && self.flow.has_their_end(),
            PipeDirection::SendOnly => self.flow.is_acknowledged(),
            PipeDirection::ReceiveOnly => self.flow.has_their_end(),
        }
    }

    fn has_work(&self) -> bool {
        self.flow.has_ack() || self.flow.has_chunk() || self.reset_due || self.is_complete()
    }

    fn widen(&mut self) {
        let consumed = self.flow.consumed();
        if consumed - self.widened_at >= self.flow.window() {
            self.widened_at = consumed;
            if let Some(more @ 1..) = self.grant.as_mut().map(Grant::grow) {
                self.flow.widen(more);
            }
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.writers.wake();
        if self.flow.is_acknowledged() || self.reset.is_some() {
            self.finishers.wake();
        }
    }
}

#[cfg(test)]
mod tests;
