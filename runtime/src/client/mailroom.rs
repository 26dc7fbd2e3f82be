//! The post of a client: answers to whoever waits for them, stream messages to their streams.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use bus_schema::{
    ClientName, ExporterName, StreamId,
    message::{Replies, ResetCode},
    subject::{ExporterVerb, FromExporter, Inbox, To},
};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CallError, Inner, calls::News, outbox::Parcel};
use crate::{
    bus::{BusError, Conn, Denial, Denials, Incoming, Subject, Subscription, TurnedAway, random},
    stream::{Heard, no_stream},
};

/// Who waits for which answer. Tokens are fresh and random: a guessable one can be forged.
#[derive(Clone, Default)]
pub(crate) struct Mailroom(Arc<Mutex<Boxes>>);

#[derive(Default)]
struct Boxes {
    answers: HashMap<u64, Box_, BuildHasherDefault<AsRandom>>,
    /// The streams of streaming calls, whose records name the call instead.
    calls: HashMap<u64, StreamId>,
}

/// The hash of a number that is random already, and of our own making.
#[derive(Default)]
struct AsRandom(u64);

impl Hasher for AsRandom {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only tokens are hashed");
    }

    fn write_u64(&mut self, token: u64) {
        self.0 = token;
    }
}

struct Box_ {
    /// Answers of JetStream carry its headers; elsewhere they are a forgery.
    from_jetstream: bool,
    /// Where the request went.
    asked: Subject,
    /// The number of the message in which it went with others; 0 if it went by itself.
    pack: u64,
    letters: Arc<Letters>,
}

/// Messages of a subscription that are taken before the task looks whether it is to stop.
const IN_ONE_GO: usize = 64;

/// What has come to a box. Made for every call, so it allocates little: a channel's first block
/// alone is several KiB.
pub(crate) struct Letters {
    queue: Mutex<Queue>,
    capacity: usize,
}

/// The first letter has its place; most boxes never get a second.
#[derive(Default)]
struct Queue {
    first: Option<Letter>,
    more: VecDeque<Letter>,
    /// The time of the call is up: no letter, as it is not to be lost in a full box.
    late: bool,
    reader: Option<Waker>,
}

impl Queue {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    fn push(&mut self, letter: Letter) {
        match self.first {
            None if self.more.is_empty() => self.first = Some(letter),
            _ => self.more.push_back(letter),
        }
    }

    fn pop(&mut self) -> Option<Letter> {
        let letter = self.first.take().or_else(|| self.more.pop_front());
        letter.or_else(|| self.late.then_some(Letter::News(News::Late)))
    }
}

/// What comes to a box.
#[derive(Debug)]
pub(crate) enum Letter {
    /// An answer to the request.
    Answer(Box<Incoming>),
    /// The answer to a call, which came together with others.
    Reply(Bytes),
    /// What asking about the call found out.
    News(News),
    /// The broker did not let the request through.
    Denied(Denial),
    /// The message in which it went with others was heard by nobody: it may go by itself.
    Unpacked,
    /// The broker lets us in no more.
    TurnedAway(TurnedAway),
}

impl Letters {
    /// Puts a letter in; `None` if the box is full: a repeat of what is there already.
    pub(crate) fn push(&self, letter: Letter) -> Option<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        (queue.len() < self.capacity).then(|| queue.push(letter))?;
        wake(queue);
        Some(())
    }

    /// Tells that time is up.
    pub(crate) fn push_late(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.late = true;
        wake(queue);
    }

    /// The next letter. Cancel safe.
    async fn next(&self) -> Letter {
        poll_fn(|cx| {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            match queue.pop() {
                Some(letter) => Poll::Ready(letter),
                None => {
                    queue.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn wake(mut queue: MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// A reply subject and what comes to it. Dropping it gives the subject up.
pub(crate) struct PostBox {
    mailroom: Mailroom,
    owner: ClientName,
    token: u64,
    /// Where answers to it go; nowhere yet if its request goes with others.
    pub(crate) subject: Subject,
    letters: Arc<Letters>,
}

impl PostBox {
    /// The next answer. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Incoming, BusError> {
        loop {
            match self.letter().await {
                Letter::Answer(answer) => return Ok(*answer),
                Letter::Reply(_) | Letter::News(_) | Letter::Unpacked => {} // this is no call
                Letter::Denied(denial) => return Err(self.denied(denial)),
                Letter::TurnedAway(why) => return Err(why.into()),
            }
        }
    }

    /// The error of a denial.
    pub(crate) fn denied(&self, Denial { action, subject }: Denial) -> BusError {
        BusError::Denied { who: self.owner.to_string(), action, subject }
    }

    /// The next answer or news. Cancel safe.
    pub(crate) async fn letter(&mut self) -> Letter {
        self.letters.next().await
    }

    /// The last of its subject.
    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Where news of the call go.
    pub(crate) fn letters(&self) -> &Arc<Letters> {
        &self.letters
    }
}

impl Drop for PostBox {
    fn drop(&mut self) {
        self.mailroom.lock().answers.remove(&self.token);
    }
}

impl Box_ {
    /// The message that its request went in was not heard. This is told once: whatever is sent
    /// next is not in that message any more.
    fn unpack(&mut self) {
        self.letters.push(Letter::Unpacked);
        (self.asked, self.pack) = (Subject::from_static(""), 0);
    }
}

impl Mailroom {
    fn lock(&self) -> MutexGuard<'_, Boxes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of call `counter` are for `stream`.
    pub(crate) fn route_call(&self, counter: u64, stream: StreamId) {
        self.lock().calls.insert(counter, stream);
    }

    /// Tells whoever asked there that the broker denied it.
    fn deny(&self, denial: &Denial) {
        for waiting in self.lock().answers.values_mut() {
            match *waiting.asked == *denial.subject {
                true if waiting.pack != 0 => waiting.unpack(), // by itself it may be allowed
                true => drop(waiting.letters.push(Letter::Denied(denial.clone()))),
                false => {}
            }
        }
    }

    /// Those of `parcels` whose calls are still waited for; they go to `asked` as message `pack`.
    pub(super) fn pack<'p>(
        &self,
        parcels: &'p [Parcel],
        asked: &Subject,
        pack: u64,
    ) -> Vec<&'p Parcel> {
        let mut boxes = self.lock();
        let waited_for = |parcel: &&Parcel| match boxes.answers.get_mut(&parcel.token) {
            Some(waiting) => {
                (waiting.asked, waiting.pack) = (asked.clone(), pack);
                true
            }
            None => false,
        };
        parcels.iter().filter(waited_for).collect()
    }

    /// The request of this box goes by itself from now on.
    fn unpack(&self, token: u64, asked: &Subject) {
        if let Some(waiting) = self.lock().answers.get_mut(&token) {
            (waiting.asked, waiting.pack) = (asked.clone(), 0);
        }
    }

    /// Nobody listens for message `pack`: the exporter is not there, or takes no calls together.
    fn unpack_all_of(&self, pack: u64) {
        let mut boxes = self.lock();
        boxes.answers.values_mut().filter(|waiting| waiting.pack == pack).for_each(Box_::unpack);
    }

    /// Tells everybody who waits that nothing will come.
    fn turn_away(&self, why: TurnedAway) {
        for waiting in self.lock().answers.values() {
            waiting.letters.push(Letter::TurnedAway(why)); // full: its answer is there
        }
    }

    /// They are for nobody any more.
    pub(crate) fn unroute_call(&self, counter: u64) {
        self.lock().calls.remove(&counter);
    }
}

impl Inner {
    /// The same for a call that goes with others: it has no subjects of its own.
    pub(super) fn box_in_a_pack(&self) -> PostBox {
        self.new_box(2, false, &Subject::from_static(""), |_| Subject::from_static(""))
    }

    /// Gives such a box its own reply subject, for a request that goes to `asked` by itself.
    pub(super) fn take_out(&self, answers: &mut PostBox, asked: &Subject) {
        answers.subject = self.inbox.token(answers.token).into();
        self.mailroom.unpack(answers.token, asked);
    }

    /// A fresh reply subject for what is asked at `asked`.
    pub(crate) fn post_box(&self, asked: &Subject) -> PostBox {
        self.new_box(2, false, asked, |token| self.inbox.token(token).into())
    }

    /// The same for up to `answers` answers of JetStream.
    pub(crate) fn jetstream_box(&self, answers: usize, asked: &Subject) -> PostBox {
        self.new_box(answers, true, asked, |token| self.inbox.token(token).into())
    }

    fn new_box(
        &self,
        capacity: usize,
        from_jetstream: bool,
        asked: &Subject,
        subject: impl FnOnce(u64) -> Subject,
    ) -> PostBox {
        let queue = Mutex::default();
        let letters = Arc::new(Letters { queue, capacity });
        let token = random();
        let letters_in = letters.clone();
        let entry = Box_ { from_jetstream, asked: asked.clone(), pack: 0, letters: letters_in };
        self.mailroom.lock().answers.insert(token, entry);
        PostBox {
            mailroom: self.mailroom.clone(),
            owner: self.name.clone(),
            token,
            subject: subject(token),
            letters,
        }
    }

    /// One question to an exporter itself.
    pub(crate) async fn ask_exporter(
        &self,
        exporter: &ExporterName,
        to: To,
        message: Bytes,
        patience: Duration,
    ) -> Result<Incoming, CallError> {
        let subject = Subject::from(self.subject(exporter, to));
        let mut answers = self.post_box(&subject);
        let asked = async {
            self.control().reached().await?;
            self.control().request(subject, answers.subject.clone(), message).await?;
            answers.next().await
        };
        let address = || exporter.to_string();
        match timeout(patience, asked).await {
            Ok(Ok(answer)) if answer.is_no_responders() => {
                Err(CallError::NoDriver { address: address() })
            }
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::TimedOut { address: address(), limit: patience, sent: true }),
        }
    }
}

/// Subscribes to the inbox and to stream control.
pub(crate) async fn open(inner: &Arc<Inner>) -> Result<(), BusError> {
    let control = inner.control();
    let inbox = control.subscribe(inner.inbox.wildcard()).await?;
    let ctl =
        FromExporter::ctl_wildcard(&inner.root, inner.only.as_ref(), &inner.name, inner.session);
    let ctl = control.subscribe(ctl).await?;
    inner.tasks.spawn(read(Arc::downgrade(inner), inbox, inner.stop.clone(), on_answer));
    inner.tasks.spawn(read(Arc::downgrade(inner), ctl, inner.stop.clone(), on_stream));
    let denials = inner.control().denials.clone();
    inner.tasks.spawn(hear_denials(Arc::downgrade(inner), denials, inner.stop.clone()));
    // No sentinel: a request published on the same connection comes after the subscriptions.
    Ok(())
}

/// Subscribes to news of leases. Requests go by the same connection, and come after it.
pub(crate) async fn listen_for_leases(inner: &Arc<Inner>) -> Result<(), BusError> {
    let subject =
        FromExporter::lease_wildcard(&inner.root, inner.only.as_ref(), &inner.name, inner.session);
    let news = inner.control().subscribe(subject).await?;
    inner.tasks.spawn(read(Arc::downgrade(inner), news, inner.stop.clone(), super::lease::on_news));
    Ok(())
}

/// Opens the bulk connection and subscribes to data and records.
pub(crate) async fn open_bulk(inner: &Arc<Inner>) -> Result<&Conn, BusError> {
    let bulk = inner.bus.bulk().await?;
    let denials = bulk.denials.clone();
    inner.tasks.spawn(hear_denials(Arc::downgrade(inner), denials, inner.stop.clone()));
    let down =
        FromExporter::down_wildcard(&inner.root, inner.only.as_ref(), &inner.name, inner.session);
    let out =
        FromExporter::out_wildcard(&inner.root, inner.only.as_ref(), &inner.name, inner.session);
    for subject in [&down, &out] {
        let messages = bulk.subscribe(subject.clone()).await?;
        inner.tasks.spawn(read(Arc::downgrade(inner), messages, inner.stop.clone(), on_stream));
    }
    // Requests go by the other connection: this one's subscriptions must be in force first.
    bulk.confirm(inner.inbox.token(random()), inner.name.as_str(), &[&down, &out]).await?;
    Ok(bulk)
}

async fn read(
    client: std::sync::Weak<Inner>,
    mut messages: Subscription,
    stop: CancellationToken,
    take: fn(&Inner, Incoming) -> Option<()>,
) {
    loop {
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            message = messages.next() => message,
        };
        let (Some(message), Some(inner)) = (message, client.upgrade()) else { return };
        let mut next = Some(message);
        // What is here already is taken in one go, as looking at the stop token is not free.
        for _ in 0..IN_ONE_GO {
            let Some(message) = next else { break };
            if take(&inner, message).is_none() {
                tracing::trace!("dropped a message that nobody waits for");
            }
            next = messages.ready();
        }
        if let Some(message) = next {
            take(&inner, message);
        }
    }
}

/// Brings what the broker denies to those who wait for it, until the client is closed.
async fn hear_denials(client: std::sync::Weak<Inner>, denials: Denials, stop: CancellationToken) {
    let mut denied = denials.listen();
    let mut is_in = true;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            denial = denied.recv() => {
                let Some(inner) = client.upgrade() else { return };
                if let Ok(denial) = denial {
                    inner.mailroom.deny(&denial);
                }
            }
            why = denials.until_turned_away(), if is_in => {
                let Some(inner) = client.upgrade() else { return };
                is_in = false;
                inner.mailroom.turn_away(why);
                let text = format!("the broker does not let us in: {why}");
                inner.switchboard.reset_all(ResetCode::Other, &text);
            }
            () = denials.until_let_in(), if !is_in => is_in = true,
        }
    }
}

fn on_answer(inner: &Inner, answer: Incoming) -> Option<()> {
    let token = inner.inbox.read(answer.subject())?;
    if Replies::is(answer.payload()) && !answer.is_from_jetstream() {
        return on_replies(inner, &answer);
    }
    let (letters, pack) = {
        let boxes = inner.mailroom.lock();
        let waiting = boxes.answers.get(&token)?;
        let known = waiting.from_jetstream || !answer.is_from_jetstream();
        known.then(|| (waiting.letters.clone(), waiting.pack))?
    };
    if pack != 0 && answer.is_no_responders() {
        inner.mailroom.unpack_all_of(pack);
        return Some(());
    }
    letters.push(Letter::Answer(Box::new(answer)))
}

/// Answers to several calls.
fn on_replies(inner: &Inner, answer: &Incoming) -> Option<()> {
    let replies = Replies::decode(answer.payload()).ok()?;
    let boxes = inner.mailroom.lock();
    let waiting = replies.into_iter().filter_map(|(token, reply)| {
        let waiting = boxes.answers.get(&Inbox::token_in(token)?)?;
        (!waiting.from_jetstream).then(|| (waiting.letters.clone(), reply))
    });
    let waiting: Vec<_> = waiting.collect();
    drop(boxes);
    for (letters, reply) in waiting {
        letters.push(Letter::Reply(reply)); // full: a repeat of what is there already
    }
    Some(())
}

/// A message of an open stream. Only the exporter that the stream was opened at is heard.
fn on_stream(inner: &Inner, message: Incoming) -> Option<()> {
    let is_of = |exporter| message.is_of(exporter, &inner.root);
    match FromExporter::read(&inner.root, message.subject()).ok()? {
        FromExporter::Ctl(exporter, _, _, id) if is_of(&exporter) => {
            let heard = inner.switchboard.control(id, exporter.as_str(), message.payload());
            if heard == Heard::NoStream {
                let subject = inner.subject(&exporter, To::Stream(ExporterVerb::Ctl, id));
                let (control, mark) = (inner.control().clone(), inner.mark.clone());
                inner.tasks.spawn(async move { control.say(subject, &mark, no_stream()).await });
            }
        }
        FromExporter::Down(exporter, _, _, id) if is_of(&exporter) => {
            inner.switchboard.data(id, exporter.as_str(), message.payload());
        }
        FromExporter::Out(record) if is_of(&record.exporter) => {
            let id = inner.mailroom.lock().calls.get(&record.counter).copied()?;
            inner.switchboard.data(id, record.exporter.as_str(), message.payload());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use bus_schema::DriverId;

    use super::*;
    use crate::bus::Action;

    #[test]
    fn that_a_message_of_many_calls_was_not_heard_is_told_to_each_once() {
        let (mailroom, asked) = (Mailroom::default(), Subject::from_static("calls"));
        let letters = Arc::new(Letters { queue: Mutex::default(), capacity: 2 });
        let waiting = Box_ {
            from_jetstream: false,
            asked: Subject::from_static(""),
            pack: 0,
            letters: letters.clone(),
        };
        mailroom.lock().answers.insert(7, waiting);
        let exporter = "bench".parse().unwrap();
        let driver = DriverId::at(&exporter, &"".parse().unwrap());
        let parcel = Parcel { exporter, driver, method: "on".into(), token: 7, call: Bytes::new() };
        assert_eq!(mailroom.pack(&[parcel], &asked, 5).len(), 1);
        let denial = Denial { action: Action::Publish, subject: asked.to_string() };
        mailroom.unpack_all_of(4);
        assert_eq!(letters.queue.lock().unwrap().len(), 0, "it was another message");
        mailroom.deny(&denial);
        mailroom.deny(&denial);
        mailroom.unpack_all_of(5);
        let mut queue = letters.queue.lock().unwrap();
        assert!(matches!(queue.pop(), Some(Letter::Unpacked)) && queue.pop().is_none());
    }
}
