//! The record of a streaming call, read by anybody who may: late, or after its end.
//!
//! Only single records are read, by their literal subjects: that is the one read of JetStream that
//! permissions can scope. The live subject is subscribed first, so that nothing falls between.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bus_schema::{
    CallId, ClientName, codec,
    message::{Ask, Begin, Data, Progress, Told},
    subject::{ExporterVerb, FromExporter, OutRecord, Streams, To},
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{CallError, Client, Inner, items::Unframer, mailroom::PostBox};
use crate::bus::{Subject, Subscription, random};

/// Direct gets that are on their way at once.
const GETS_AT_ONCE: usize = 16;
/// A record that has not come live is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A record goes to its caller and to JetStream at the same time, and may be read a moment before
/// it is stored: one that is missing is looked for again after this time …
const STORED_WITHIN: Duration = Duration::from_millis(100);
/// … so often at the end of a replay …
const LOOKS: u32 = 3;
/// … and so often at the beginning: a busy broker's disk may take its time.
const FIRST_LOOKS: u32 = 30;
/// Live records that are kept until those before them have come.
const AHEAD_MAX: usize = 1024;

/// A streaming call's record, from its beginning.
pub struct Attached {
    client: Client,
    /// What the record is of.
    pub begin: Begin,
    subject: OutRecord,
    id: CallId,
    owner: ClientName,
    /// Live records; none for a replay of what there is.
    live: Option<Subscription>,
    ahead: BTreeMap<u64, Data>,
    gets: VecDeque<(u64, PostBox)>,
    /// The record that is read next, and its offset.
    number: u64,
    offset: u64,
    /// The lowest record that JetStream was found not to have.
    missing_from: u64,
    /// How often a record that is missing was looked for again.
    looks: u32,
    look_at: Instant,
    unframed: Unframer,
    end: Option<bus_schema::message::End>,
    done: bool,
}

impl Client {
    /// Reads the record of call `id` of `owner`. With `follow` it goes on while the call does;
    /// without, it ends where the record does now.
    ///
    /// # Errors
    ///
    /// [`CallError::NoDriver`] if there is no such record: it never was, is aged out, or belongs
    /// to somebody whose records this client may not read.
    pub async fn attach(
        &self,
        owner: &ClientName,
        id: CallId,
        follow: bool,
    ) -> Result<Attached, CallError> {
        let inner = &self.0;
        let what = || format!("record of call {id} of {owner}");
        let live = match follow {
            true => {
                let subject = FromExporter::out_of_call(&inner.root, owner, id.session, id.counter);
                let live = inner.control().subscribe(subject.clone()).await?;
                let (own, name) = (inner.inbox.token(random()), inner.name.as_str());
                let confirmed = inner.control().confirm(own, name, &[&subject]).await;
                confirmed.map_err(|error| CallError::from(error).about(what()))?;
                Some(live)
            }
            false => None,
        };
        let first = FromExporter::out_number(&inner.root, owner, id.session, id.counter, 0);
        let no_record = || CallError::NoDriver { address: what() };
        let mut looks = 0;
        let answer = loop {
            let mut answer = request(inner, &first).await?;
            let answer = timeout(LOOK_EVERY * 2, answer.next()).await.map_err(|_| no_record())?;
            let answer = answer.map_err(|error| CallError::from(error).about(what()))?;
            match answer.status() {
                None => break answer,
                Some(_) if looks == FIRST_LOOKS => return Err(no_record()),
                Some(_) => sleep(STORED_WITHIN).await,
            }
            looks += 1;
        };
        let stored = answer.header("Nats-Subject").unwrap_or_default();
        let subject = match FromExporter::read(&inner.root, stored) {
            Ok(FromExporter::Out(record)) => *record,
            _ => return Err(no_record()),
        };
        let mut data =
            Data::decode(answer.payload()).map_err(|e| CallError::Garbled(e.to_string()))?;
        let begin = data.begin.take().ok_or_else(no_record)?;
        let mut attached = Attached {
            client: self.clone(),
            begin,
            subject,
            id,
            owner: owner.clone(),
            live,
            ahead: BTreeMap::new(),
            gets: VecDeque::new(),
            number: 0,
            offset: 0,
            missing_from: u64::MAX,
            looks: 0,
            look_at: Instant::now() + LOOK_EVERY,
            unframed: Unframer::default(),
            end: None,
            done: false,
        };
        attached.take(data)?;
        Ok(attached)
    }
}

async fn request(inner: &Arc<Inner>, subject: &str) -> Result<PostBox, CallError> {
    let get = Subject::from(Streams::direct_get(&Streams::of(&inner.root).out, subject));
    let answers = inner.jetstream_box(1, &get);
    inner.control().request(get, answers.subject.clone(), Bytes::new()).await?;
    Ok(answers)
}

enum Came {
    Record(u64, Box<Data>),
    Missing(u64),
    Nothing,
}

impl Attached {
    /// The next item; `None` at the end of the call, or of what is recorded of it.
    ///
    /// # Errors
    ///
    /// The streaming call's fault; a record that breaks off. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.done {
            return None;
        }
        match self.next_item().await {
            Ok(Some(item)) => Some(Ok(item)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }

    /// The call's end, once it was read. `None` after the last item: the record goes no further.
    pub fn end(&self) -> Option<&bus_schema::message::End> {
        self.end.as_ref()
    }

    async fn next_item(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            if let Some(item) = self.unframed.pop().map_err(CallError::Garbled)? {
                return Ok(Some(item));
            }
            if let Some(end) = &self.end {
                return match end.fault.clone() {
                    Some(fault) => {
                        Err(CallError::Fault { address: self.begin.address.clone(), fault })
                    }
                    None => Ok(None),
                };
            }
            if let Some(data) = self.ahead.remove(&self.number) {
                self.take(data)?;
                continue;
            }
            self.fill_pipeline().await?;
            match self.come().await {
                Came::Record(number, data) => {
                    if number >= self.number && self.ahead.len() < AHEAD_MAX {
                        self.ahead.insert(number, *data);
                    }
                }
                Came::Missing(number) => {
                    self.missing_from = self.missing_from.min(number);
                    if number == self.number && self.live.is_none() {
                        if self.looks == LOOKS {
                            return Ok(None);
                        }
                        self.looks += 1;
                        self.missing_from = u64::MAX;
                        self.gets.clear();
                        sleep(STORED_WITHIN).await;
                    }
                }
                Came::Nothing => self.still_there().await?,
            }
        }
    }

    fn take(&mut self, data: Data) -> Result<(), CallError> {
        if data.at != self.offset {
            let problem = format!("record {} is of another call", self.number);
            return Err(CallError::Garbled(problem));
        }
        self.offset += data.data.len() as u64;
        self.number += 1;
        self.end = data.end;
        self.unframed.push(data.data);
        Ok(())
    }

    /// Keeps direct gets on their way for the records that come next.
    async fn fill_pipeline(&mut self) -> Result<(), CallError> {
        let inner = self.client.0.clone();
        let last = self.gets.back().map_or(self.number, |(number, _)| number + 1);
        let mut next = last.max(self.number);
        while self.gets.len() < GETS_AT_ONCE && next < self.missing_from {
            if !self.ahead.contains_key(&next) {
                let subject =
                    FromExporter::Out(Box::new(OutRecord { number: next, ..self.subject.clone() }));
                self.gets.push_back((next, request(&inner, &subject.under(&inner.root)).await?));
            }
            next += 1;
        }
        Ok(())
    }

    /// Waits for an answer to the oldest get, a live record, or the time to look again.
    async fn come(&mut self) -> Came {
        let root = self.client.0.root.clone();
        let (gets, live) = (&mut self.gets, &mut self.live);
        tokio::select! {
            biased;
            answer = async { gets.front_mut().expect("guarded").1.next().await }, if !gets.is_empty() => {
                let (number, _) = gets.pop_front().expect("guarded");
                let Ok(answer) = answer else { return Came::Missing(number) };
                match (answer.status(), Data::decode(answer.payload())) {
                    (None, Ok(data)) => Came::Record(number, Box::new(data)),
                    _ => Came::Missing(number),
                }
            }
            message = async { live.as_mut().expect("guarded").next().await }, if live.is_some() => {
                let Some(message) = message else { return Came::Nothing };
                match (FromExporter::read(&root, message.subject()), Data::decode(message.payload())) {
                    (Ok(FromExporter::Out(record)), Ok(data))
                        if record.exporter == self.subject.exporter
                            && message.is_of(&record.exporter, &root) =>
                    {
                        Came::Record(record.number, Box::new(data))
                    }
                    _ => Came::Nothing,
                }
            }
            () = sleep_until(self.look_at) => {
                self.missing_from = u64::MAX; // look again for what did not come live
                Came::Nothing
            }
        }
    }

    /// Whether the call can still bring something; an error if it cannot.
    async fn still_there(&mut self) -> Result<(), CallError> {
        if self.look_at > Instant::now() {
            return Ok(());
        }
        self.look_at = Instant::now() + LOOK_EVERY;
        let inner = &self.client.0;
        let lost = |why| CallError::Lost { address: self.begin.address.clone(), why };
        let (to, message) = match self.owner == inner.name {
            true => (ExporterVerb::Ask, codec::encode(&Ask { ids: vec![self.id] })),
            // Only its owner may ask about a call.
            false => (ExporterVerb::Ping, codec::encode(&bus_schema::message::Ping {})),
        };
        let answer =
            inner.ask_exporter(&self.subject.exporter, To::Exporter(to), message, LOOK_EVERY).await;
        match answer {
            Err(CallError::NoDriver { .. }) => {
                Err(lost("its exporter is gone, and the record breaks off"))
            }
            Err(_) => Ok(()),
            Ok(answer) => match codec::decode::<Told>(answer.payload()) {
                Ok(Told { calls, .. }) if calls == [Progress::Unknown] => {
                    Err(lost("its exporter was restarted, and the record breaks off"))
                }
                _ => Ok(()),
            },
        }
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("begin", &self.begin).finish_non_exhaustive()
    }
}
