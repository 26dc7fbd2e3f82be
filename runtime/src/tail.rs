//! What exporters told and tell: events and logs, read from JetStream, and followed.
//!
//! Any number of readers, and none disturbs an exporter or another reader: what is stored is read
//! by direct gets, what comes is heard by a plain subscription, and numbers join the two.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use bus_schema::{
    Event, ExporterName, Incarnation, LogLines, LogSource,
    codec::{self, Message},
    subject::{FromExporter, Streams},
};
use tokio::time::{Instant, Interval, interval};

use crate::{
    Client,
    bus::{BusError, Incoming, Subscription, random},
    stored::{Stored, stored_subject},
};

/// Sources whose place is remembered. A fleet has fewer; a forger who invents more makes readers
/// see repeats, and no more.
const SOURCES_MAX: usize = 1 << 17;
/// What is read again around a gap reaches so much further back: clocks differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// A reconnect is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// From when on something is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// All that is kept.
    Ever,
    /// What was told since then, by the broker's clock.
    Time(SystemTime),
    /// Nothing of what is stored.
    Now,
}

/// A message whose parts are numbered by its source, so that a gap shows what was lost.
pub trait Numbered: Message {
    /// Who says it and which run of it, if `subject` is one that carries such messages.
    #[doc(hidden)]
    fn source(subject: FromExporter) -> Option<(ExporterName, Option<LogSource>)>;
    /// Which run of the exporter said it.
    fn incarnation(&self) -> Incarnation;
    /// The number of its first part, and how many there are.
    fn numbers(&self) -> (u64, u64);
}

impl Numbered for Event {
    fn source(subject: FromExporter) -> Option<(ExporterName, Option<LogSource>)> {
        match subject {
            FromExporter::Event(exporter, _) => Some((exporter, None)),
            _ => None,
        }
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn numbers(&self) -> (u64, u64) {
        (self.number, 1)
    }
}

impl Numbered for LogLines {
    fn source(subject: FromExporter) -> Option<(ExporterName, Option<LogSource>)> {
        match subject {
            FromExporter::Log(exporter, source) => Some((exporter, Some(source))),
            _ => None,
        }
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn numbers(&self) -> (u64, u64) {
        (self.first, self.lines.len() as u64)
    }
}

/// One message of a [`Tail`].
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    /// Whose it is.
    pub exporter: ExporterName,
    /// The source, of a log.
    pub source: Option<LogSource>,
    /// How many were lost just before it.
    pub lost: u64,
    /// The message.
    pub message: T,
}

/// Events or logs, in order.
#[derive(Debug)]
pub struct Tail<T> {
    client: Client,
    stream: String,
    subject: String,
    stored: Option<Stored>,
    live: Option<Live>,
    places: Places,
    ready: VecDeque<Said<T>>,
    /// Came live behind a gap, and waits until what is stored was read once more.
    held: Option<Incoming>,
}

#[derive(Debug)]
struct Live {
    messages: Subscription,
    look: Interval,
    connects: u64,
    heard: Instant,
}

impl Client {
    /// The events of one exporter, or of all, that are stored.
    pub fn events(&self, exporter: Option<&ExporterName>, since: Since) -> Tail<Event> {
        let subject = FromExporter::events(self.root(), exporter);
        Tail::new(self, Streams::of(self.root()).events, subject, since)
    }

    /// The same, and those that come.
    ///
    /// # Errors
    ///
    /// [`BusError`] if this client may not subscribe there.
    pub async fn follow_events(
        &self,
        exporter: Option<&ExporterName>,
        since: Since,
    ) -> Result<Tail<Event>, BusError> {
        self.events(exporter, since).follow().await
    }

    /// The logs that are stored: of all exporters, of one, or of one source of it.
    pub fn logs(
        &self,
        exporter: Option<&ExporterName>,
        source: Option<LogSource>,
        since: Since,
    ) -> Tail<LogLines> {
        let subject = FromExporter::logs(self.root(), exporter, source);
        Tail::new(self, Streams::of(self.root()).logs, subject, since)
    }

    /// The same, and what comes.
    ///
    /// # Errors
    ///
    /// As [`follow_events`](Self::follow_events).
    pub async fn follow_logs(
        &self,
        exporter: Option<&ExporterName>,
        source: Option<LogSource>,
        since: Since,
    ) -> Result<Tail<LogLines>, BusError> {
        self.logs(exporter, source, since).follow().await
    }
}

impl<T: Numbered> Tail<T> {
    fn new(client: &Client, stream: String, subject: String, since: Since) -> Self {
        let stored = match since {
            Since::Ever => Some(Stored::all(&client.0, &stream, &subject)),
            Since::Time(time) => Some(Stored::since(&client.0, &stream, &subject, time)),
            Since::Now => None,
        };
        Self {
            client: client.clone(),
            stream,
            subject,
            stored,
            live: None,
            places: Places::default(),
            ready: VecDeque::new(),
            held: None,
        }
    }

    /// Subscribes before anything is read, so that nothing falls between.
    async fn follow(mut self) -> Result<Self, BusError> {
        let control = self.client.0.control();
        let connects = control.connects();
        let messages = control.subscribe(self.subject.clone()).await?;
        let (own, name) = (self.client.0.inbox.token(random()), self.client.name().as_str());
        control.confirm(own, name, &[&self.subject]).await?;
        let (look, heard) = (interval(LOOK_EVERY), Instant::now());
        self.live = Some(Live { messages, look, connects, heard });
        Ok(self)
    }

    /// The next one; `None` at the end of what is stored, if nothing more is waited for. Cancel
    /// safe.
    ///
    /// # Errors
    ///
    /// [`BusError::Unfit`] if what is stored cannot be read (what comes can be, by calling this
    /// again), [`BusError::Closed`] when the connection is closed.
    pub async fn next(&mut self) -> Result<Option<Said<T>>, BusError> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(Some(said));
            }
            if self.stored.is_some() {
                self.read_stored().await?;
                continue;
            }
            let Some(live) = &mut self.live else { return Ok(None) };
            tokio::select! {
                message = live.messages.next() => {
                    self.hear(message.ok_or(BusError::Closed)?);
                }
                _ = live.look.tick() => self.look(),
            }
        }
    }

    async fn read_stored(&mut self) -> Result<(), BusError> {
        let Some(stored) = &mut self.stored else { return Ok(()) };
        let batch = match stored.batch().await {
            Ok(batch) => batch,
            Err(error) => {
                self.stored = None;
                return Err(error);
            }
        };
        if batch.is_empty() {
            self.stored = None;
        }
        for message in batch {
            let said = read(&self.client, stored_subject(&message), &message);
            self.ready.extend(said.and_then(|said| self.places.take(said)));
        }
        if self.stored.is_none()
            && let Some(held) = self.held.take()
        {
            let said = read(&self.client, held.subject(), &held);
            self.ready.extend(said.and_then(|said| self.places.take(said)));
        }
        Ok(())
    }

    /// A message that came live. Behind a gap it waits: what is missing may be stored.
    fn hear(&mut self, message: Incoming) {
        let said = read::<T>(&self.client, message.subject(), &message);
        let is_genuine = |said: &Said<T>| message.is_of(&said.exporter, self.client.root());
        let Some(said) = said.filter(is_genuine) else { return };
        if self.places.is_behind_a_gap(&said) {
            self.held = Some(message);
            self.read_again();
        } else {
            self.ready.extend(self.places.take(said));
        }
        if let Some(live) = &mut self.live {
            live.heard = Instant::now();
        }
    }

    /// After a reconnect, what was told meanwhile is only stored.
    fn look(&mut self) {
        let control = self.client.0.control();
        let Some(live) = &mut self.live else { return };
        let (connects, connected) = (control.connects(), control.is_connected());
        if connected && connects != live.connects {
            live.connects = connects;
            self.read_again();
        } else if connected {
            live.heard = Instant::now();
        }
    }

    fn read_again(&mut self) {
        let heard = self.live.as_ref().map_or(Duration::ZERO, |live| live.heard.elapsed());
        let time = SystemTime::now().checked_sub(heard + CLOCKS_DIFFER);
        let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
        self.stored = Some(Stored::since(&self.client.0, &self.stream, &self.subject, time));
    }
}

fn read<T: Numbered>(client: &Client, subject: &str, message: &Incoming) -> Option<Said<T>> {
    let subject = FromExporter::read(client.root(), subject).ok()?;
    let (exporter, source) = T::source(subject)?;
    let message = codec::decode(message.payload()).ok()?;
    Some(Said { exporter, source, lost: 0, message })
}

type Key = (ExporterName, Option<LogSource>, Incarnation);

/// How far each source was heard. No I/O and no clock, so that a test can drive it.
#[derive(Debug, Default)]
struct Places(HashMap<Key, u64>);

impl Places {
    /// Lets a message pass once, with what is missing before it.
    fn take<T: Numbered>(&mut self, mut said: Said<T>) -> Option<Said<T>> {
        let (first, count) = said.message.numbers();
        let after = first.saturating_add(count);
        if self.0.len() >= SOURCES_MAX {
            self.0.clear();
        }
        match self.0.entry(key(&said)) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(after);
            }
            std::collections::hash_map::Entry::Occupied(mut place) => {
                let next = *place.get();
                if first < next {
                    return None;
                }
                said.lost = first - next;
                place.insert(after);
            }
        }
        Some(said)
    }

    fn is_behind_a_gap<T: Numbered>(&self, said: &Said<T>) -> bool {
        self.0.get(&key(said)).is_some_and(|next| said.message.numbers().0 > *next)
    }
}

fn key<T: Numbered>(said: &Said<T>) -> Key {
    (said.exporter.clone(), said.source, said.message.incarnation())
}

#[cfg(test)]
mod tests {
    use bus_schema::EventKind;
    use proptest::prelude::*;

    use super::*;

    fn event(number: u64) -> Said<Event> {
        let message = Event {
            kind: EventKind::ExporterUp,
            at_ms: 0,
            incarnation: Incarnation(1),
            number,
            path: String::new(),
            client: None,
            epoch: None,
            reason: String::new(),
        };
        Said { exporter: "bench".parse().unwrap(), source: None, lost: 0, message }
    }

    proptest! {
        /// What is stored and what comes live, each with losses of its own, one after the other.
        #[test]
        fn every_number_is_told_once_or_counted_as_lost_once(
            stored in proptest::collection::vec(any::<bool>(), 1..60),
            live in proptest::collection::vec(any::<bool>(), 1..60),
            overlap in 0..40_usize,
        ) {
            let mut places = Places::default();
            let begin = stored.len().saturating_sub(overlap);
            let in_store = (0..stored.len()).filter(|at| stored[*at]);
            let heard = (begin..begin + live.len()).filter(|at| live[at - begin]);
            let (mut told, mut first, mut lost) = (Vec::new(), None, 0);
            for number in in_store.chain(heard) {
                if let Some(said) = places.take(event(number as u64)) {
                    first.get_or_insert(said.message.number);
                    lost += said.lost;
                    told.push(said.message.number);
                }
            }
            prop_assert!(told.is_sorted_by(|a, b| a < b), "{:?}", told);
            if let (Some(first), Some(last)) = (first, told.last()) {
                prop_assert_eq!(last - first + 1, told.len() as u64 + lost);
            }
        }
    }
}
