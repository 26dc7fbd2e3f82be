//! The record of a streaming call: JetStream captures the very messages that the caller gets, and
//! this sees to it that it has them all, or says how far it goes.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    CallId, ClientName, DriverId, Incarnation, StreamId,
    limits::{RECORD_BYTES_MAX, RECORD_WAIT},
    subject::{FromExporter, Inbox, OutRecord},
};
use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::core::Core;
use crate::{
    bus::{BusError, Conn, Incoming, Subject, random},
    stream::{Chunk, DataLine, Record},
};

/// Records that JetStream may still owe an acknowledgement. While it owes this many, items pile
/// up in the next one: that is what packs them, without delaying any.
const UNRECORDED_MAX: usize = 16;
/// An acknowledgement that did not come is asked for again after this time.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// The acknowledgements of all recorders of one exporter, by the upper half of their token.
#[derive(Clone, Default)]
pub(crate) struct Acks(Arc<Mutex<HashMap<u32, Arc<Shared>>>>);

#[derive(Default)]
struct Shared {
    unrecorded: Mutex<Unrecorded>,
    moved: Notify,
}

#[derive(Default)]
struct Unrecorded {
    /// Records on their way, by number.
    records: BTreeMap<u64, Bytes>,
    /// Nothing more is given to JetStream; what it has been given, it may still acknowledge.
    is_full: bool,
    /// Nothing more is recorded, and why.
    given_up: Option<&'static str>,
}

impl Acks {
    /// An answer of JetStream to one record.
    pub(crate) fn on_answer(&self, token: u64, answer: &Incoming) {
        let recorder = u32::try_from(token >> 32).expect("the upper half of 64 bits");
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&recorder).cloned();
        let Some(shared) = shared else { return };
        let mut state = shared.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.is_no_responders() {
            state.give_up("no JetStream stream captures it");
        } else if is_stored(answer.payload()) {
            // The token carries the number's low half, and less than 2^32 are on their way.
            let low = token & 0xffff_ffff;
            let number = state.records.keys().find(|number| **number & 0xffff_ffff == low).copied();
            if let Some(number) = number {
                state.records.remove(&number);
            }
        } else {
            state.give_up("JetStream refuses it");
        }
        drop(state);
        shared.moved.notify_one();
    }
}

impl Unrecorded {
    fn is_closed(&self) -> bool {
        self.is_full || self.given_up.is_some()
    }

    fn fill(&mut self) {
        if !self.is_closed() {
            tracing::warn!("record of a streaming call is full; the call goes on");
            self.is_full = true;
        }
    }

    fn give_up(&mut self, why: &'static str) {
        if self.given_up.is_none() {
            tracing::warn!(why, "record of a streaming call ends early; the call goes on");
            self.given_up = Some(why);
        }
    }
}

/// Whether an acknowledgement is one: `{"stream": …, "seq": …}`, not `{"error": …}`.
fn is_stored(payload: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct PubAck {
        seq: Option<u64>,
    }
    serde_json::from_slice::<PubAck>(payload).is_ok_and(|ack| ack.seq.is_some())
}

/// Publishes the records of one streaming call.
pub(crate) struct Recorder {
    conn: Conn,
    root: bus_schema::Root,
    subject: OutRecord,
    /// Where records go that are not recorded any more.
    down: String,
    mark: Subject,
    inbox: Inbox,
    /// De-duplication is per stream, and a guessable id could be used up by somebody else.
    nonce: u64,
    token: u32,
    acks: Acks,
    shared: Arc<Shared>,
    recorded_bytes: u64,
    /// How many JetStream was given.
    given: u64,
    /// When the oldest unrecorded record is sent again, and since when nothing moved.
    resend_at: Instant,
    stuck_since: Instant,
}

impl Recorder {
    pub(crate) fn new(
        core: &Core,
        caller: &ClientName,
        id: CallId,
        driver: DriverId,
        stream: StreamId,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let token = u32::try_from(random() >> 32).expect("the upper half of 64 bits");
        core.acks.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token, shared.clone());
        let DataLine::Subject(down) = core.down(caller, stream) else {
            unreachable!("streams have one subject");
        };
        Self {
            conn: core.bulk.clone(),
            mark: core.mark.clone(),
            root: core.root.clone(),
            subject: OutRecord {
                exporter: core.name.clone(),
                caller: caller.clone(),
                session: id.session,
                driver,
                counter: id.counter,
                number: 0,
            },
            down,
            inbox: ack_inbox(core),
            nonce: random(),
            token,
            acks: core.acks.clone(),
            shared,
            recorded_bytes: 0,
            given: 0,
            resend_at: Instant::now() + RESEND_AFTER,
            stuck_since: Instant::now(),
        }
    }

    async fn send(&self, number: u64, message: Bytes) -> Result<(), BusError> {
        let subject = FromExporter::Out(Box::new(OutRecord { number, ..self.subject.clone() }));
        let reply = self.inbox.token(u64::from(self.token) << 32 | (number & 0xffff_ffff));
        let id = format!("{:016x}-{number}", self.nonce);
        let headers = [("Nats-Msg-Id", &*id)];
        self.conn.publish_with(subject.under(&self.root), Some(reply), &headers, message).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Unrecorded> {
        self.shared.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the oldest record again if its acknowledgement is late; gives up if that goes on.
    async fn press(&mut self) {
        if !self.conn.is_connected() {
            // It is the broker that is away: JetStream's time begins when it is back.
            self.conn.connected().await;
            self.stuck_since = Instant::now();
        }
        self.resend_at = Instant::now() + RESEND_AFTER;
        let oldest = {
            let mut state = self.lock();
            if self.stuck_since.elapsed() > RECORD_WAIT {
                state.give_up("JetStream does not acknowledge it");
            }
            state.records.first_key_value().map(|(number, message)| (*number, message.clone()))
        };
        if let Some((number, message)) = oldest {
            let _ = self.send(number, message).await; // fails only if the connection is closed
        }
    }
}

impl Record for Recorder {
    fn publish<'a>(
        &'a mut self,
        chunk: &'a Chunk,
    ) -> Pin<Box<dyn Future<Output = Result<(), BusError>> + Send + 'a>> {
        Box::pin(async move {
            self.recorded_bytes += chunk.message.len() as u64;
            let live_only = {
                let mut state = self.lock();
                if self.recorded_bytes > RECORD_BYTES_MAX {
                    state.fill();
                }
                state.is_closed()
            };
            if live_only {
                return self.conn.say(self.down.clone(), &self.mark, chunk.message.clone()).await;
            }
            if self.lock().records.insert(chunk.number, chunk.message.clone()).is_none() {
                self.stuck_since = Instant::now();
            }
            self.given = self.given.max(chunk.number + 1);
            self.send(chunk.number, chunk.message.clone()).await
        })
    }

    fn has_room(&self) -> bool {
        let state = self.lock();
        state.is_closed() || state.records.len() < UNRECORDED_MAX
    }

    fn room(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            while !self.has_room() {
                let shared = self.shared.clone();
                tokio::select! {
                    () = shared.moved.notified() => self.stuck_since = Instant::now(),
                    () = sleep_until(self.resend_at) => self.press().await,
                }
            }
        })
    }

    fn is_complete(&self) -> bool {
        let state = self.lock();
        state.given_up.is_some() || state.records.is_empty()
    }

    fn recorded(&self) -> Option<u64> {
        let state = self.lock();
        let kept = || state.records.first_key_value().map_or(self.given, |(number, _)| *number);
        state.is_closed().then(kept)
    }

    fn complete(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            while !self.is_complete() {
                let shared = self.shared.clone();
                tokio::select! {
                    () = shared.moved.notified() => self.stuck_since = Instant::now(),
                    () = sleep_until(self.resend_at) => self.press().await,
                }
            }
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.acks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

/// The inbox that JetStream's acknowledgements come to. Its incarnation is made of ours, so that
/// nobody else's answers land here.
pub(crate) fn ack_inbox(core: &Core) -> Inbox {
    Inbox::of_exporter(&core.root, &core.name, Incarnation(core.incarnation.0))
}
