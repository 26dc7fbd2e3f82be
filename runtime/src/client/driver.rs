//! A driver as a client sees it, and the calls it takes.

use std::{fmt, time::Duration};

use bus_schema::{
    Address, DriverId, ExporterName, Invoke, Outgoing, codec,
    limits::{DEADLINE, OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX},
    message::{Call, Form, Outcome, Reply, Unknown},
    subject::{DriverVerb, To},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::{
    CallError, Client, ItemStream,
    calls::{CallGuard, Calls, News},
    mailroom::Letter,
    parts::LargeArgs,
};
use crate::{
    bus::{Incoming, Subject},
    stream::ByteStream,
};

/// A call that was told to stop by its deadline has this long to say how it ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

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
}

impl DriverRef {
    pub(super) fn new(
        client: Client,
        exporter: ExporterName,
        id: DriverId,
        address: Option<Address>,
    ) -> Self {
        Self { client, exporter, id, address, deadline: None }
    }

    /// The same driver, with this deadline for calls instead of the methods' own.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
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
        let args =
            rmp_serde::to_vec_named(words).map_err(|e| CallError::Unsendable(e.to_string()))?;
        self.invoke(method, Form::Words, args.into(), None).await
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
        let to = To::Driver(DriverVerb::Call, self.id, method_name(method)?);
        let inner = &self.client.0;
        let limit = self.deadline_for(declared);
        let guard = Calls::begin(inner, &self.exporter);
        let large = match args.len() + OVERHEAD_BYTES_MAX > inner.control().max_payload() {
            // Boxed, as is all that is rare: every call carries the size of its largest path.
            true => Some(Box::pin(LargeArgs::offer(inner, &self.exporter, args.clone())).await?),
            false => None,
        };
        let id = guard.id;
        let make = |timing: Timing| {
            codec::encode(&Call {
                id: Some(id),
                attempt: timing.attempt,
                age_ms: timing.age_ms,
                deadline_ms: timing.deadline_ms,
                done_below: timing.done_below,
                epoch: None,
                form,
                args: if large.is_some() { Bytes::new() } else { args.clone() },
                parts: large.as_ref().map(LargeArgs::parts),
            })
        };
        let subject = inner.subject(&self.exporter, to);
        let answer = self.deliver(guard, subject, limit, make).await?;
        let reply: Reply =
            codec::decode(answer.payload()).map_err(|e| CallError::Garbled(e.to_string()))?;
        self.result(reply.outcome, limit).await
    }

    /// Sends a request until it is answered: again if the exporter never saw it, and no longer
    /// than to its deadline. Dropping this cancels the call.
    pub(super) async fn deliver(
        &self,
        mut guard: CallGuard,
        subject: String,
        limit: Duration,
        make: impl Fn(Timing) -> Bytes,
    ) -> Result<Incoming, CallError> {
        let inner = &self.client.0;
        let subject = Subject::from(subject);
        let mut answers = inner.post_box(&subject);
        let began = Instant::now();
        // The exporter keeps the deadline; its answer to that gets a moment to arrive.
        let until = began + limit + LAST_WORDS;
        let mut sent = false;
        let mut attempt = 0;
        // The first attempt that an exporter may have heard.
        let mut first = None;
        let outcome = async {
            inner.control().reached().await?;
            guard.sent(answers.letters());
            // Whether every attempt so far went to nobody, so that nothing can have acted.
            let mut unheard = true;
            loop {
                // The message tells its age, so it is not made until it can go.
                inner.control().reached().await?;
                let first_sent = *first.get_or_insert_with(Instant::now);
                let message = make(Timing {
                    attempt,
                    age_ms: if attempt == 0 { 0 } else { ms(first_sent.elapsed()) },
                    deadline_ms: ms(limit.saturating_sub(began.elapsed())),
                    done_below: guard.done_below(),
                });
                inner.control().request(subject.clone(), answers.subject.clone(), message).await?;
                sent = true;
                match answers.letter().await {
                    Letter::Answer(answer) if answer.is_no_responders() => {
                        // Refused at once; but after an outage the exporter may be a moment later.
                        let late = began.elapsed() > limit;
                        if unheard && (late || !inner.calls.is_fresh(inner.control())) {
                            return Err(CallError::NoDriver { address: self.shown() });
                        }
                        if late {
                            let why = "nobody listens for it any more";
                            return Err(CallError::Lost { address: self.shown(), why });
                        }
                        tokio::time::sleep(NOT_YET).await;
                        if unheard {
                            first = None; // the next attempt is the first, then
                            continue;
                        }
                    }
                    Letter::Answer(answer) => return Ok(answer),
                    // Its memory begins after the call was sent, so an earlier run may have
                    // executed it. The exporter would say the same, but only if a repeat that is
                    // long on its way is not taken for a younger one.
                    Letter::News(News::Unseen(started)) if started > first_sent => {
                        let why = Unknown::Forgotten;
                        return Err(CallError::OutcomeUnknown { address: self.shown(), why });
                    }
                    Letter::News(News::Unseen(_)) => unheard = false,
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
                }
                attempt += 1;
            }
        };
        let outcome = timeout_at(until, outcome).await;
        match outcome {
            Ok(Ok(answer)) => {
                guard.answered();
                Ok(answer)
            }
            Ok(Err(error)) => {
                guard.answered(); // nobody is there to be told of a cancel
                Err(error)
            }
            Err(_elapsed) => Err(CallError::TimedOut { address: self.shown(), limit, sent }),
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

pub(super) fn method_name(method: &str) -> Result<bus_schema::MethodName, CallError> {
    method.parse().map_err(|error: bus_schema::NameError| CallError::Unsendable(error.to_string()))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Invoke for DriverRef {
    type Error = CallError;
    type Items<T: DeserializeOwned + Send + 'static> = ItemStream<T>;
    type Pipe = ByteStream;

    async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<T, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let result = self.invoke(out.method, Form::Typed, args, out.deadline).await?;
        rmp_serde::from_slice(&result).map_err(|e| CallError::Garbled(e.to_string()))
    }

    async fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<ItemStream<T>, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let started = self.start(out.method, Form::Typed, args, out.deadline, false).await?;
        Ok(ItemStream::new(started.items))
    }

    async fn stream(&self, out: Outgoing) -> Result<ByteStream, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        self.open_stream(out.method, Form::Typed, args, out.deadline).await
    }
}

impl fmt::Debug for DriverRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverRef").field(&self.shown()).finish()
    }
}
