//! What happens at an exporter, told to everybody. Telling never waits and never fails: what does
//! not fit is dropped, counted, and seen by readers as a gap.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus_schema::{
    ClientName, Event, EventKind, Incarnation, codec,
    limits::EVENTS_WAITING_MAX,
    subject::{FromExporter, Inbox},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, timeout, timeout_at},
};

use super::core::Core;
use crate::bus::{BusError, Subscription, random};

/// JetStream has this long to acknowledge an event, and so often it is sent.
const ACK_WITHIN: Duration = Duration::from_secs(2);
const SENT_MAX: u32 = 3;
/// Where nobody stores events, they are not waited for; after this time it is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What is left when the exporter stops has this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One thing that happened, before it has a number.
#[derive(Debug)]
pub(crate) struct Happened {
    kind: EventKind,
    at_ms: u64,
    path: String,
    client: Option<ClientName>,
    epoch: Option<u64>,
    reason: String,
}

impl Happened {
    /// It happened now, to the exporter as a whole.
    pub(crate) fn now(kind: EventKind) -> Self {
        let (path, reason) = (String::new(), String::new());
        Self { kind, at_ms: since_1970_ms(), path, client: None, epoch: None, reason }
    }

    /// It is about the driver or subtree at this path.
    pub(crate) fn at(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// It is about this client, or was asked for by it.
    pub(crate) fn by(self, client: ClientName) -> Self {
        Self { client: Some(client), ..self }
    }

    /// It is about this lease.
    pub(crate) fn under(self, epoch: u64) -> Self {
        Self { epoch: Some(epoch), ..self }
    }

    /// Why it happened. What is over the limit of a text is cut.
    pub(crate) fn because(self, reason: impl std::fmt::Display) -> Self {
        Self { reason: bus_schema::Fault::device(reason).text, ..self }
    }
}

/// Takes events for their way out.
pub(crate) struct Events {
    sender: mpsc::Sender<Happened>,
    waiting: Mutex<mpsc::Receiver<Happened>>,
    dropped: AtomicU64,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, waiting) = mpsc::channel(EVENTS_WAITING_MAX);
        Self { sender, waiting: Mutex::new(waiting), dropped: AtomicU64::new(0) }
    }
}

impl Events {
    /// Tells it. Never waits.
    pub(crate) fn tell(&self, happened: Happened) {
        if self.sender.try_send(happened).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        EVENTS_WAITING_MAX - self.sender.capacity()
    }
}

/// Publishes events until the exporter stops, then those that are left.
pub(crate) async fn post(core: Arc<Core>) {
    let inbox = Inbox::of_exporter(&core.root, &core.name, Incarnation(random()));
    let Ok(acks) = core.control().subscribe(inbox.wildcard()).await else { return };
    let mut poster = Poster {
        core: core.clone(),
        nonce: random(),
        inbox,
        acks,
        number: 0,
        dropped: 0,
        unstored_until: None,
    };
    let mut waiting = core.events.waiting.lock().await;
    loop {
        let happened = tokio::select! {
            biased;
            () = core.stop.cancelled() => break,
            happened = waiting.recv() => happened,
        };
        let Some(happened) = happened else { return };
        if poster.send(happened).await.is_err() {
            return; // the connection is closed
        }
    }
    let last_words = async {
        while let Ok(happened) = waiting.try_recv() {
            if poster.send(happened).await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(LAST_WORDS, last_words).await; // nobody may be there to hear them
}

struct Poster {
    core: Arc<Core>,
    /// De-duplication is per stream, and a guessable id could be used up by somebody else.
    nonce: u64,
    inbox: Inbox,
    acks: Subscription,
    number: u64,
    /// Dropped ones that have their numbers already.
    dropped: u64,
    unstored_until: Option<Instant>,
}

impl Poster {
    async fn send(&mut self, happened: Happened) -> Result<(), BusError> {
        let dropped = self.core.events.dropped();
        let number = self.number + (dropped - self.dropped);
        (self.dropped, self.number) = (dropped, number + 1);
        let incarnation = self.core.incarnation;
        let Happened { kind, at_ms, path, client, epoch, reason } = happened;
        let subject = FromExporter::Event(self.core.name.clone(), kind.clone());
        let subject = subject.under(&self.core.root);
        let event = Event { kind, at_ms, incarnation, number, path, client, epoch, reason };
        let message = codec::encode(&event);
        let id = format!("{:016x}-{number}", self.nonce);
        for _sent in 0..SENT_MAX {
            let (reply, id) = (Some(self.inbox.token(number)), [("Nats-Msg-Id", &*id)]);
            let conn = self.core.control();
            conn.publish_with(subject.clone(), reply, &id, message.clone()).await?;
            if self.unstored_until.is_some_and(|until| Instant::now() < until) {
                return Ok(());
            }
            match self.stored(number).await {
                Some(true) => {
                    self.unstored_until = None;
                    return Ok(());
                }
                Some(false) => break,
                None => {}
            }
        }
        if self.unstored_until.replace(Instant::now() + LOOK_AGAIN).is_none() {
            tracing::warn!("events are not stored: only who listens now hears of them");
        }
        Ok(())
    }

    /// Whether JetStream has it; `None` if it does not say.
    async fn stored(&mut self, number: u64) -> Option<bool> {
        #[derive(serde::Deserialize)]
        struct PubAck {
            seq: Option<u64>,
        }
        let until = Instant::now() + ACK_WITHIN;
        loop {
            let answer = timeout_at(until, self.acks.next()).await.ok()??;
            if self.inbox.read(answer.subject()) != Some(number) {
                continue; // a late one
            }
            if answer.is_no_responders() {
                return Some(false);
            }
            let ack = serde_json::from_slice::<PubAck>(answer.payload());
            return Some(ack.is_ok_and(|ack| ack.seq.is_some()));
        }
    }
}

/// Now, by this host's clock, for people.
pub(crate) fn since_1970_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
