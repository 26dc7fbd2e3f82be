//! A driver as a client sees it, and the calls it takes.

use std::{fmt, pin::pin, time::Duration};

use bus_schema::{
    Address, DriverId, ExporterName, FaultKind, Invoke, Loan, MethodName, Outgoing, RefusalCode,
    limits::{DEADLINE, OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX},
    message::{Call, Form, Outcome, Reply, Unknown},
    subject::{DriverVerb, Spoken, SpokenTo},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{
    CallError, Client, Inner, ItemStream,
    calls::{CallGuard, Calls, News},
    mailroom::Letter,
    outbox::{PARCEL_BYTES_MAX, Parcel},
    parts::LargeArgs,
};
use crate::{
    bus::{Incoming, Subject},
    lend::Lend,
    stream::ByteStream,
};

/// A call that was told to stop by its deadline has this long to say how it ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// A deadline travels in whole milliseconds …
const ROUNDING: Duration = Duration::from_millis(1);
/// … and what is left of one is never rounded to nothing.
const ROUNDING_UP: Duration = Duration::from_nanos(999_999);

/// Between attempts at an exporter that is not back yet.
const NOT_YET: Duration = Duration::from_millis(100);

/// What a request says about time.
pub(super) struct Timing {
    pub(super) attempt: u32,
    pub(super) age_ms: u64,
    pub(super) deadline_ms: u64,
    pub(super) done_below: u64,
}

/// One driver, by address. Cheap to clone; nothing is asked of anybody to make one.
#[derive(Clone)]
pub struct DriverRef {
    pub(super) client: Client,
    pub(super) exporter: ExporterName,
    pub(super) id: DriverId,
    address: Option<Address>,
    deadline: Option<Duration>,
    epoch: Option<u64>,
}

impl DriverRef {
    pub(super) fn new(
        client: Client,
        exporter: ExporterName,
        id: DriverId,
        address: Option<Address>,
    ) -> Self {
        Self { client, exporter, id, address, deadline: None, epoch: None }
    }

    /// The same driver, with this deadline for calls instead of the methods' own.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same driver, used under the lease of this number: calls are refused when it has ended.
    #[must_use]
    pub fn under(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Its UUID.
    pub fn id(&self) -> DriverId {
        self.id
    }

    /// The exporter that serves it.
    pub fn exporter(&self) -> &ExporterName {
        &self.exporter
    }

    /// The client that it is used by.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn shown(&self) -> String {
        match &self.address {
            Some(address) => address.to_string(),
            None => format!("{} at {}", self.id, self.exporter),
        }
    }

    pub(super) fn deadline_for(&self, declared: Option<Duration>) -> Duration {
        self.deadline.or(declared).unwrap_or(DEADLINE)
    }

    /// Calls `method` with arguments that are a MessagePack array, and gives the result as one
    /// MessagePack value. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// Every way a call can end but its result.
    pub async fn call_raw(&self, method: &str, args: Bytes) -> Result<Bytes, CallError> {
        self.invoke(method, Form::Typed, args, None).await
    }

    /// Calls `method` with words as a person types them (or bytes, for contents of files), which
    /// the exporter reads by the method's signature. The result is JSON text.
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw).
    pub async fn call_words(
        &self,
        method: &str,
        words: &[bus_schema::Value],
    ) -> Result<Bytes, CallError> {
        self.call_words_with(method, words, Vec::new()).await
    }

    /// [`call_words`](Self::call_words) with words some of which are lent: what each of `loans`
    /// says is one of the words. See [`lend`](Invoke::lend).
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw); also that what is handed back could not be written.
    pub async fn call_words_with(
        &self,
        method: &str,
        words: &[bus_schema::Value],
        loans: Vec<Loan>,
    ) -> Result<Bytes, CallError> {
        let args =
            rmp_serde::to_vec_named(words).map_err(|e| CallError::Unsendable(e.to_string()))?;
        let result = self.invoke(method, Form::Words, args.into(), None).await?;
        self.settle(loans).await?;
        Ok(result)
    }

    /// Waits until what is handed back is all there.
    async fn settle(&self, loans: Vec<Loan>) -> Result<(), CallError> {
        for loan in loans {
            crate::lend::settle(loan).await.map_err(CallError::Lending)?;
        }
        Ok(())
    }

    async fn invoke(
        &self,
        method: &str,
        form: Form,
        args: Bytes,
        declared: Option<Duration>,
    ) -> Result<Bytes, CallError> {
        if args.len() > PAYLOAD_BYTES_MAX {
            let text = format!("{} bytes are over the limit of {PAYLOAD_BYTES_MAX}", args.len());
            return Err(CallError::Unsendable(text));
        }
        check_name(method)?;
        let inner = &self.client.0;
        let limit = self.deadline_for(declared);
        let began = Instant::now();
        let guard = Calls::begin(inner, &self.exporter);
        let large = match args.len() + OVERHEAD_BYTES_MAX > inner.control().max_payload() {
            // Boxed, as is all that is rare: every call carries the size of its largest path.
            true => Some(Box::pin(LargeArgs::offer(inner, &self.exporter, args.clone())).await?),
            false => None,
        };
        let id = guard.id;
        let make = |timing: Timing| {
            Call {
                id: Some(id),
                attempt: timing.attempt,
                age_ms: timing.age_ms,
                deadline_ms: timing.deadline_ms,
                done_below: timing.done_below,
                epoch: self.epoch,
                together: true,
                form,
                args: if large.is_some() { Bytes::new() } else { args.clone() },
                parts: large.as_ref().map(LargeArgs::parts),
            }
            .encode()
        };
        let answer = self.deliver(guard, DriverVerb::Call, method, limit, make).await?;
        let reply =
            Reply::decode(answer.payload()).map_err(|e| CallError::Garbled(e.to_string()))?;
        match reply.outcome {
            // The exporter stopped it at the deadline, and says so a moment before we would.
            Outcome::Fault(fault)
                if fault.kind == FaultKind::Cancelled && began.elapsed() + ROUNDING >= limit =>
            {
                Err(CallError::TimedOut { address: self.shown(), limit, sent: true })
            }
            Outcome::Refused(refusal) if refusal.code == RefusalCode::NoDriver => {
                Err(CallError::NoDriver { address: self.shown() })
            }
            outcome => self.result(outcome, limit).await,
        }
    }

    /// The subject of a request for `method`.
    fn subject(&self, verb: DriverVerb, method: &str) -> Subject {
        let Inner { name, root, .. } = &*self.client.0;
        let to = SpokenTo::Driver(verb, self.id, method);
        let spoken = Spoken { client: name.as_str(), exporter: self.exporter.as_str(), to };
        spoken.under(root).into()
    }

    /// Sends a request until it is answered: again if the exporter never saw it, and no longer
    /// than to its deadline. Dropping this cancels the call.
    pub(super) async fn deliver(
        &self,
        mut guard: CallGuard<'_>,
        verb: DriverVerb,
        method: &str,
        limit: Duration,
        make: impl Fn(Timing) -> Bytes,
    ) -> Result<Incoming, CallError> {
        let outcome = self.send_until_answered(&mut guard, verb, method, limit, make).await;
        if !matches!(outcome, Err(CallError::TimedOut { .. })) {
            guard.answered(); // or nobody is there to be told of a cancel
        }
        outcome
    }

    async fn send_until_answered(
        &self,
        guard: &mut CallGuard<'_>,
        verb: DriverVerb,
        method: &str,
        limit: Duration,
        make: impl Fn(Timing) -> Bytes,
    ) -> Result<Incoming, CallError> {
        let inner = &self.client.0;
        // One that goes with others has no subjects of its own: they cost more than what it says.
        let mut together = inner.outbox.takes(&self.exporter, guard.beside);
        let mut subject = (!together).then(|| self.subject(verb, method));
        let mut answers = match &subject {
            Some(subject) => inner.post_box(subject),
            None => inner.box_in_a_pack(),
        };
        let began = Instant::now();
        // The exporter keeps the deadline; its answer to that gets a moment to arrive.
        let until = began + limit + LAST_WORDS;
        let late = |sent| CallError::TimedOut { address: self.shown(), limit, sent };
        by(until, inner.control().reached()).await.ok_or_else(|| late(false))??;
        guard.sent(answers.letters(), began, until);
        // Whether every attempt so far went to nobody, so that nothing can have acted.
        let mut unheard = true;
        let mut sent = false;
        let mut attempt = 0;
        // The first attempt that an exporter may have heard.
        let mut first = None;
        loop {
            // The message tells its age, so it is not made until it can go.
            by(until, inner.control().reached()).await.ok_or_else(|| late(sent))??;
            let now = Instant::now();
            let first_sent = *first.get_or_insert(now);
            let message = make(Timing {
                attempt,
                age_ms: if attempt == 0 { 0 } else { ms(now - first_sent) },
                deadline_ms: ms(limit.saturating_sub(now - began) + ROUNDING_UP),
                done_below: guard.done_below(),
            });
            together &= message.len() <= PARCEL_BYTES_MAX;
            if together {
                let (exporter, driver, token) = (self.exporter.clone(), self.id, answers.token());
                let method = method.into();
                inner.outbox.put(Parcel { exporter, driver, method, token, call: message });
            } else {
                let subject = subject.get_or_insert_with(|| {
                    let subject = self.subject(verb, method);
                    inner.take_out(&mut answers, &subject);
                    subject
                });
                let reply_to = answers.subject.clone();
                let sending = inner.control().request(subject.clone(), reply_to, message);
                by(until, sending).await.ok_or_else(|| late(sent))??;
            }
            sent = true;
            let letter = loop {
                match answers.letter().await {
                    // It has gone by itself since: to send it once more as the first would let an
                    // exporter that was restarted take it for a call that none has executed.
                    Letter::Unpacked if !together => {}
                    letter => break letter,
                }
            };
            match letter {
                Letter::Answer(answer) if answer.is_no_responders() => {
                    // Refused at once; but after an outage the exporter may be a moment later.
                    let over = began.elapsed() > limit;
                    if unheard && (over || !inner.calls.is_fresh(inner.control())) {
                        return Err(CallError::NoDriver { address: self.shown() });
                    }
                    if over {
                        let why = "nobody listens for it any more";
                        return Err(CallError::Lost { address: self.shown(), why });
                    }
                    Box::pin(tokio::time::sleep(NOT_YET)).await;
                    if unheard {
                        first = None; // the next attempt is the first, then
                        continue;
                    }
                }
                Letter::Answer(answer) => return Ok(answer),
                // Its memory begins after the call was sent, so an earlier run may have executed
                // it. The exporter would say the same, but only if a repeat that is long on its
                // way is not taken for a younger one.
                Letter::News(News::Unseen(started)) if started > first_sent => {
                    let why = Unknown::Forgotten;
                    return Err(CallError::OutcomeUnknown { address: self.shown(), why });
                }
                Letter::News(News::Unseen(_)) => {
                    // It may be of a version that does not take calls together.
                    if std::mem::take(&mut together) {
                        inner.outbox.leave_alone(&self.exporter);
                    }
                    unheard = false;
                }
                // None of those it went with was heard, either.
                Letter::Unpacked => {
                    inner.outbox.leave_alone(&self.exporter);
                    together = false;
                    first = None;
                    continue;
                }
                Letter::Denied(denial) if attempt == 0 => {
                    return Err(CallError::from(answers.denied(denial)).about(self.shown()));
                }
                // It was allowed before, so an earlier attempt may have got through.
                Letter::Denied(_) => {
                    let why = "the broker does not allow it any more";
                    return Err(CallError::Lost { address: self.shown(), why });
                }
                Letter::TurnedAway(_) => {
                    let why = "the broker does not let this client in any more";
                    return Err(CallError::Lost { address: self.shown(), why });
                }
                Letter::News(News::Lost(why)) => {
                    return Err(CallError::Lost { address: self.shown(), why });
                }
                Letter::News(News::Late) => return Err(late(true)),
            }
            attempt += 1;
        }
    }

    async fn result(&self, outcome: Outcome, limit: Duration) -> Result<Bytes, CallError> {
        let address = || self.shown();
        match outcome {
            Outcome::Result(bytes) => Ok(bytes),
            Outcome::Parts(parts) => {
                let fetched = Box::pin(super::parts::fetch(&self.client.0, &self.exporter, parts));
                match tokio::time::timeout(limit, fetched).await {
                    Ok(fetched) => fetched,
                    Err(_) => Err(CallError::TimedOut { address: address(), limit, sent: true }),
                }
            }
            Outcome::Fault(fault) => Err(CallError::Fault { address: address(), fault }),
            Outcome::Refused(refusal) => Err(CallError::Refused { address: address(), refusal }),
            Outcome::Unknown(why) => Err(CallError::OutcomeUnknown { address: address(), why }),
        }
    }
}

/// Waits for what is mostly there at once, and no longer than until then.
async fn by<T>(until: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match (&mut future).now_or_never() {
        Some(done) => Some(done),
        // Boxed, as is all that is rare.
        None => Box::pin(timeout_at(until, future)).await.ok(),
    }
}

/// Whether this can be the name of a method.
pub(super) fn check_name(method: &str) -> Result<(), CallError> {
    match MethodName::is(method) {
        true => Ok(()),
        false => {
            let problem = method.parse::<MethodName>().expect_err("no name");
            Err(CallError::Unsendable(problem.to_string()))
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Invoke for DriverRef {
    type Error = CallError;
    type Items<T: DeserializeOwned + Send + 'static> = ItemStream<T>;
    type Pipe = ByteStream;
    type Lend = Lend;

    async fn lend(&self, what: Lend) -> Result<Loan, CallError> {
        what.to(&self.client, &self.exporter).await.map_err(CallError::Lending)
    }

    async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<T, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let result = self.invoke(out.method, Form::Typed, args, out.deadline).await?;
        self.settle(out.loans).await?;
        rmp_serde::from_slice(&result).map_err(|e| CallError::Garbled(e.to_string()))
    }

    async fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<ItemStream<T>, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let started = self.start(out.method, Form::Typed, args, out.deadline, false).await?;
        Ok(ItemStream::new(started.items, out.loans))
    }

    async fn stream(&self, out: Outgoing) -> Result<ByteStream, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        if !out.loans.is_empty() {
            return Err(CallError::Unsendable("nothing can be lent to a stream".to_owned()));
        }
        self.open_stream(out.method, Form::Typed, args, out.deadline).await
    }
}

impl fmt::Debug for DriverRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverRef").field(&self.shown()).finish()
    }
}
