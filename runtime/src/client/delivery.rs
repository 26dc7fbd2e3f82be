//! A request on its way, until it is answered: again if the exporter never saw it, and no longer
//! than to its deadline.

use std::time::Duration;

use bus_schema::{
    message::Unknown,
    subject::{DriverVerb, Spoken, SpokenTo},
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    CallError, DriverRef, Inner,
    calls::{CallGuard, News},
    mailroom::{Letter, PostBox},
    outbox::{PARCEL_BYTES_MAX, Parcel},
};
use crate::bus::Subject;

/// A call that was told to stop by its deadline has this long to say how it ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What is left of a deadline travels in whole milliseconds, and is never rounded to nothing.
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

/// A request on its way. Dropping it cancels the call.
///
/// Thousands may be open, and each is moved about before it is first polled: what every call
/// needs is in here, and what few do is boxed.
pub(super) struct Delivery<'a, M> {
    driver: &'a DriverRef,
    guard: CallGuard<'a>,
    verb: DriverVerb,
    method: &'a str,
    limit: Duration,
    /// Makes the message.
    make: M,
    began: Instant,
    answers: PostBox,
    /// Where it goes, if it goes by itself. One that goes with others has no subjects of its own:
    /// they cost more than what it says.
    subject: Option<Subject>,
    together: bool,
    sent: bool,
    /// Whether every attempt so far went to nobody, so that nothing can have acted.
    unheard: bool,
    attempt: u32,
    /// The first attempt that an exporter may have heard.
    first: Option<Instant>,
}

impl<'a, M: Fn(Timing) -> Bytes> Delivery<'a, M> {
    pub(super) fn new(
        driver: &'a DriverRef,
        guard: CallGuard<'a>,
        verb: DriverVerb,
        method: &'a str,
        limit: Duration,
        make: M,
    ) -> Self {
        let inner = &driver.client.0;
        let together = inner.outbox.takes(&driver.exporter, guard.beside);
        let subject = (!together).then(|| driver.subject(verb, method));
        let answers = match &subject {
            Some(subject) => inner.post_box(subject),
            None => inner.box_in_a_pack(),
        };
        Self {
            driver,
            guard,
            verb,
            method,
            limit,
            make,
            began: Instant::now(),
            answers,
            subject,
            together,
            sent: false,
            unheard: true,
            attempt: 0,
            first: None,
        }
    }

    /// Sends it until it is answered; gives the answer's body.
    pub(super) async fn answer(&mut self) -> Result<Bytes, CallError> {
        let outcome = self.send_until_answered().await;
        if !matches!(outcome, Err(CallError::TimedOut { .. })) {
            self.guard.answered(); // or nobody is there to be told of a cancel
        }
        outcome
    }

    async fn send_until_answered(&mut self) -> Result<Bytes, CallError> {
        if !self.inner().control().is_connected() {
            Box::pin(self.reach()).await?;
        }
        self.guard.sent(self.answers.letters(), self.began, self.until());
        if !self.put_with_others() {
            Box::pin(self.send_by_itself()).await?;
        }
        loop {
            match self.answers.letter().await {
                Letter::Reply(body) => return Ok(body),
                Letter::Answer(answer) if !answer.is_no_responders() => {
                    return Ok(answer.into_payload());
                }
                letter => Box::pin(self.hear(letter)).await?,
            }
        }
    }

    fn inner(&self) -> &'a Inner {
        &self.driver.client.0
    }

    /// The exporter keeps the deadline; its answer to that gets a moment to arrive.
    fn until(&self) -> Instant {
        self.began + self.limit + LAST_WORDS
    }

    fn late(&self) -> CallError {
        let (address, limit, sent) = (self.driver.shown(), self.limit, self.sent);
        CallError::TimedOut { address, limit, sent }
    }

    fn lost(&self, why: &'static str) -> CallError {
        CallError::Lost { address: self.driver.shown(), why }
    }

    /// Waits until there is a connection.
    async fn reach(&self) -> Result<(), CallError> {
        let reached = timeout_at(self.until(), self.inner().control().reached()).await;
        Ok(reached.map_err(|_| self.late())??)
    }

    /// The next attempt. It tells its age, so it is not made until it can go.
    fn message(&mut self) -> Bytes {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        let left = self.limit.saturating_sub(now - self.began);
        (self.make)(Timing {
            attempt: self.attempt,
            age_ms: if self.attempt == 0 { 0 } else { ms(now - first) },
            deadline_ms: ms(left + ROUNDING_UP),
            done_below: self.guard.done_below,
        })
    }

    /// Sends an attempt with those of others, if it goes with others.
    fn put_with_others(&mut self) -> bool {
        if !self.together {
            return false;
        }
        let call = self.message();
        self.together = call.len() <= PARCEL_BYTES_MAX;
        if self.together {
            let (exporter, driver) = (self.driver.exporter.clone(), self.driver.id);
            let (method, token) = (self.method.into(), self.answers.token());
            self.inner().outbox.put(Parcel { exporter, driver, method, token, call });
            self.sent = true;
        }
        self.together
    }

    async fn send_by_itself(&mut self) -> Result<(), CallError> {
        self.reach().await?;
        let message = self.message();
        if self.subject.is_none() {
            let subject = self.driver.subject(self.verb, self.method);
            self.inner().take_out(&mut self.answers, &subject);
            self.subject = Some(subject);
        }
        let subject = self.subject.clone().expect("it was made just now");
        let reply_to = self.answers.subject.clone();
        let sending = self.inner().control().request(subject, reply_to, message);
        timeout_at(self.until(), sending).await.map_err(|_| self.late())??;
        self.sent = true;
        Ok(())
    }

    /// Hears what is no answer, and sends it again if that is the way on.
    async fn hear(&mut self, letter: Letter) -> Result<(), CallError> {
        let address = || self.driver.shown();
        let outbox = &self.inner().outbox;
        match letter {
            // It has gone by itself since: to send it once more as the first would let an
            // exporter that was restarted take it for a call that none has executed.
            Letter::Unpacked if !self.together => return Ok(()),
            // None of those it went with was heard, either.
            Letter::Unpacked => {
                outbox.leave_alone(&self.driver.exporter);
                self.together = false;
                self.first = None;
            }
            Letter::Reply(_) | Letter::Answer(_) => self.wait_for_exporter().await?,
            // Its memory begins after the call was sent, so an earlier run may have executed
            // it. The exporter would say the same, but only if a repeat that is long on its
            // way is not taken for a younger one.
            Letter::News(News::Unseen(started))
                if self.first.is_some_and(|first| started > first) =>
            {
                return Err(CallError::OutcomeUnknown {
                    address: address(),
                    why: Unknown::Forgotten,
                });
            }
            Letter::News(News::Unseen(_)) => {
                // It may be of a version that does not take calls together.
                if std::mem::take(&mut self.together) {
                    outbox.leave_alone(&self.driver.exporter);
                }
                self.unheard = false;
                self.attempt += 1;
            }
            Letter::News(News::Lost(why)) => return Err(self.lost(why)),
            Letter::News(News::Late) => return Err(self.late()),
            Letter::Denied(denial) if self.attempt == 0 => {
                return Err(CallError::from(self.answers.denied(denial)).about(address()));
            }
            // It was allowed before, so an earlier attempt may have got through.
            Letter::Denied(_) => {
                return Err(self.lost("the broker does not allow it any more"));
            }
            Letter::TurnedAway(_) => {
                return Err(self.lost("the broker does not let this client in any more"));
            }
        }
        match self.inner().control().is_connected() && self.put_with_others() {
            true => Ok(()),
            false => self.send_by_itself().await,
        }
    }

    /// Nobody listens there: a moment later somebody may, after an outage or a restart.
    async fn wait_for_exporter(&mut self) -> Result<(), CallError> {
        // Refused at once; but after an outage the exporter may be a moment later.
        let over = self.began.elapsed() > self.limit;
        let inner = self.inner();
        if self.unheard && (over || !inner.calls.is_fresh(inner.control())) {
            return Err(CallError::NoDriver { address: self.driver.shown() });
        }
        if over {
            return Err(self.lost("nobody listens for it any more"));
        }
        sleep(NOT_YET).await;
        match self.unheard {
            true => self.first = None, // the next attempt is the first, then
            false => self.attempt += 1,
        }
        Ok(())
    }
}

impl DriverRef {
    /// The subject of a request for `method`.
    fn subject(&self, verb: DriverVerb, method: &str) -> Subject {
        let Inner { name, root, .. } = &*self.client.0;
        let to = SpokenTo::Driver(verb, self.id, method);
        let spoken = Spoken { client: name.as_str(), exporter: self.exporter.as_str(), to };
        spoken.under(root).into()
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
