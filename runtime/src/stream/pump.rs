//! The task that speaks for one end of a stream: data, acknowledgements, keep-alive.

use std::{pin::Pin, sync::Arc, time::Duration};

use bus_schema::{
    StreamId, codec,
    limits::{ALIVE_BUSY, ALIVE_IDLE, OUTAGE_MAX, SILENCE_MAX},
    message::{Ack, Reset, ResetCode},
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Chunk, PipeEnd, pipe_end::Next, switchboard::Switchboard};
use crate::bus::{BusError, Conn, Subject};

/// A peer that is behind is given this long before it is asked again: the data may be on its way.
const BEHIND: Duration = Duration::from_millis(100);
/// An end that is complete answers late questions this long: its last acknowledgement may be lost.
const LINGER: Duration = Duration::from_secs(3);

/// How one end's messages travel.
pub(crate) struct Line {
    pub(crate) control: Conn,
    pub(crate) bulk: Conn,
    /// The reply subject of whoever speaks here.
    pub(crate) mark: Subject,
    /// The subject of control messages.
    pub(crate) ctl: String,
    pub(crate) data: DataLine,
}

/// Where data goes.
pub(crate) enum DataLine {
    /// All chunks to one subject.
    Subject(String),
    /// Every chunk is a record of a streaming call.
    Records(Box<dyn Record>),
    /// Nothing is sent: the other side of a streaming call.
    Nowhere,
}

impl DataLine {
    fn has_room(&self) -> bool {
        !matches!(self, Self::Records(record) if !record.has_room())
    }

    /// Waits for room, or, where there is room, until the record is all there.
    async fn settle(&mut self, has_room: bool) {
        match self {
            Self::Records(record) if has_room => record.complete().await,
            Self::Records(record) => record.room().await,
            _ => {}
        }
    }
}

impl DataLine {
    /// Waits until the record is all there, or will not be.
    async fn complete(&mut self) {
        if let Self::Records(record) = self {
            record.complete().await;
        }
    }

    fn is_complete(&self) -> bool {
        !matches!(self, Self::Records(record) if !record.is_complete())
    }

    fn recorded(&self) -> Option<u64> {
        match self {
            Self::Records(record) => record.recorded(),
            _ => None,
        }
    }
}

/// Publishes records and sees to it that JetStream has them.
pub(crate) trait Record: Send + Sync {
    /// Publishes a record. Only while there [is room](Self::has_room).
    fn publish<'a>(
        &'a mut self,
        chunk: &'a Chunk,
    ) -> Pin<Box<dyn Future<Output = Result<(), BusError>> + Send + 'a>>;
    /// Whether another record may be published now.
    fn has_room(&self) -> bool;
    /// Waits until there is room, so that items pile up meanwhile. Cancel safe.
    fn room(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Waits until every record is kept, or will not be. Cancel safe.
    fn complete(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Whether every record is kept, or will not be.
    fn is_complete(&self) -> bool;
    /// How many are kept, if that is not all.
    fn recorded(&self) -> Option<u64>;
}

/// Finds out whether the peer is still there; resolves to why not.
pub(crate) type PeerWatch = Pin<Box<dyn Future<Output = String> + Send>>;

/// Speaks for one end until it is complete or cut off.
pub(crate) struct Pump {
    pub(crate) id: StreamId,
    pub(crate) end: Arc<PipeEnd>,
    pub(crate) line: Line,
    pub(crate) switchboard: Switchboard,
    pub(crate) stop: CancellationToken,
    /// Longest silence of the peer.
    pub(crate) silence_max: Duration,
    /// Whether to repeat the last acknowledgement to a peer that missed it: an exporter does, as
    /// what it does not know it may have forgotten. A client says that it has no such stream.
    pub(crate) lingers: bool,
    /// Looks for the peer when it is silent.
    pub(crate) peer: Box<dyn Fn() -> PeerWatch + Send + Sync>,
}

impl Pump {
    /// Runs to the end, then disconnects the stream.
    pub(crate) async fn run(mut self) {
        match self.speak().await {
            Ok(Ended::Complete) if self.lingers && self.end.receives() => self.linger().await,
            Ok(Ended::Complete) => {}
            Ok(Ended::Cut) => self.close_record().await,
            Err(error) => self.end.reset(ResetCode::Silent, error),
        }
        self.line.data.complete().await;
        self.switchboard.unplug(self.id);
    }

    async fn speak(&mut self) -> Result<Ended, BusError> {
        let mut tick = Instant::now() + ALIVE_BUSY;
        let mut connects = self.line.control.connects();
        let mut watch: Option<PeerWatch> = None;
        let mut ask_from = Instant::now();
        let mut missing_at_tick = None;
        loop {
            let may_send = self.line.data.has_room();
            let finishing = self.end.is_finishing();
            if finishing && self.line.data.is_complete() {
                self.end.seal_end(self.line.data.recorded());
                continue;
            }
            match self.end.next(may_send) {
                Next::Chunk(chunk) => {
                    self.publish(&chunk).await?;
                    continue;
                }
                Next::Ack(ack) => {
                    self.control(codec::encode(&ack)).await?;
                    continue;
                }
                Next::Reset(reset) => {
                    self.control(codec::encode(&reset)).await?;
                    return Ok(Ended::Cut);
                }
                // Cut off by the peer: it knows, and the record does not.
                Next::Complete if self.end.error().is_some() => return Ok(Ended::Cut),
                Next::Complete => return Ok(Ended::Complete),
                Next::Wait => {}
            }
            let missing = self.end.missing();
            // Soon, but no more often than a keep-alive: a peer may claim to have sent anything.
            let ask = (Instant::now() + BEHIND).max(ask_from);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.end.reset(ResetCode::ShuttingDown, "the other side is shutting down");
                }
                () = self.end.work() => {
                    // What was idle until now is due a keep-alive soon.
                    tick = tick.min(Instant::now() + ALIVE_BUSY);
                }
                () = self.line.data.settle(may_send), if finishing || !may_send => {}
                why = async { watch.as_mut().expect("guarded").await }, if watch.is_some() => {
                    self.end.reset(ResetCode::Silent, why);
                }
                () = sleep_until(ask), if missing.is_some() => {
                    ask_from = Instant::now() + ALIVE_BUSY;
                    self.alive(true).await?;
                }
                () = sleep_until(tick) => {
                    let now = self.line.control.connects();
                    if std::mem::replace(&mut connects, now) != now {
                        self.end.forgive(); // the broker was away, not the peer
                    }
                    // Whoever is never idle for long enough asks here.
                    let stuck = missing.is_some() && missing == missing_at_tick;
                    missing_at_tick = missing;
                    self.alive(stuck && ask_from <= Instant::now()).await?;
                    let silence = self.end.silence();
                    if silence > self.silence_max {
                        self.end.lose_peer(format_args!("the peer was silent for {silence:.0?}"));
                    }
                    // A keep-alive of ours was to be answered by now.
                    let expected = if self.end.is_busy() { 3 * ALIVE_BUSY } else { ALIVE_IDLE + 2 * ALIVE_BUSY };
                    match silence > expected {
                        true if watch.is_none() => watch = Some((self.peer)()),
                        true => {}
                        false => watch = None,
                    }
                    let pace = if self.end.is_busy() || watch.is_some() { ALIVE_BUSY } else { ALIVE_IDLE };
                    // Not later than the silence becomes too long.
                    let left = expected.saturating_sub(silence) + BEHIND;
                    tick = Instant::now() + pace.min(left.max(ALIVE_BUSY));
                }
            }
        }
    }

    async fn publish(&mut self, chunk: &Chunk) -> Result<(), BusError> {
        self.broker().await?;
        let Line { bulk, mark, data, .. } = &mut self.line;
        match data {
            DataLine::Subject(subject) => {
                bulk.say(subject.clone(), mark, chunk.message.clone()).await
            }
            DataLine::Records(record) => record.publish(chunk).await,
            DataLine::Nowhere => Ok(()),
        }
    }

    /// A record whose caller is gone gets its end all the same.
    async fn close_record(&mut self) {
        if matches!(self.line.data, DataLine::Records(_)) {
            for chunk in self.end.terminate(self.line.data.recorded()) {
                if self.publish(&chunk).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for the broker while it is away, but not for ever.
    async fn broker(&self) -> Result<(), BusError> {
        if self.line.control.is_connected() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(BusError::Closed),
            back = timeout(OUTAGE_MAX, self.line.control.connected()) => {
                back.map_err(|_elapsed| BusError::Away(OUTAGE_MAX))
            }
        }
    }

    async fn control(&self, message: bytes::Bytes) -> Result<(), BusError> {
        self.broker().await?;
        self.line.control.say(self.line.ctl.clone(), &self.line.mark, message).await
    }

    async fn alive(&self, ask_again: bool) -> Result<(), BusError> {
        let ack: Ack = self.end.keep_alive(ask_again);
        self.control(codec::encode(&ack)).await
    }

    /// Repeats the last acknowledgement to a peer that missed it.
    async fn linger(&mut self) {
        let until = Instant::now() + LINGER;
        let _ = self.alive(false).await;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.end.work() => {
                    if self.alive(false).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(until) => return,
            }
        }
    }
}

enum Ended {
    Complete,
    Cut,
}

/// The longest silence that is borne of a peer.
pub(crate) const SILENCE: Duration = SILENCE_MAX;

/// The reset for a message of a stream that is not there.
pub(crate) fn no_stream() -> bytes::Bytes {
    let text = "there is no such stream: it has ended, or this side was restarted".to_owned();
    codec::encode(&Reset { code: ResetCode::NoStream, text })
}
