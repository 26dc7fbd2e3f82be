//! The gate: every message to a driver comes in here, and is checked, counted and let in or
//! answered. Each driver has one for its subscription, which outlasts its actors; one more lets in
//! calls that came together (`parcels.rs`).
//!
//! What it lets in begins in here, too: most methods answer at their first poll, and a task for
//! each would cost more than they do. What has to wait becomes a task of its own.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bus_schema::{
    CallId, ClientName, Failure, Method, Refusal, RefusalCode,
    message::Form,
    subject::{CLAIMANT, DriverVerb, FromClient, Spoken, SpokenTo, SubjectError},
};
use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    answer::{Answer, Voice},
    core::Core,
    lease::Pass,
    ledger::{Admission, Arrival},
    operation::{Work, work},
    outbox::{Letter, ReplyTo},
    request::{Asked, Request},
    slot::Slot,
    turn::{Ticket, What},
};
use crate::bus::{BusError, Incoming, Subject, Subscription};

/// Answers that wait for others at most. They go together, because a write to the socket costs
/// more than a call; past this many the next ones would not make it cheaper.
const TOGETHER_MAX: usize = 64;

/// Room for answers that an idle gate keeps.
const IDLE_LETTERS: usize = 4;

/// A method that holds the gate longer than this at its first poll blocks its thread …
const HELD_MAX: Duration = Duration::from_millis(10);
/// … and so many calls after it get a task each: what comes behind them must be let in.
const WARY: u32 = 1_000;

/// Subscribes for a driver, and serves it from then on.
pub(crate) async fn open(core: &Arc<Core>, slot: &Arc<Slot>) -> Result<(), BusError> {
    let subject = FromClient::driver_wildcard(&core.root, &core.name, slot.id);
    let subscription = core.control().subscribe(subject).await?;
    let serving = core.tasks.spawn(gate(core.clone(), slot.clone(), subscription));
    let _ = slot.gate.set(serving.abort_handle()); // a place is opened once
    Ok(())
}

/// Serves one driver's subscription until the exporter stops. Cancel safe.
async fn gate(core: Arc<Core>, slot: Arc<Slot>, mut messages: Subscription) {
    let mut gate = Gate::new(core);
    loop {
        let message = tokio::select! {
            biased;
            () = gate.core.stop.cancelled() => return,
            message = messages.next() => message,
        };
        let Some(message) = message else { return };
        gate.receive(&slot, message);
        while !gate.is_full()
            && let Some(message) = messages.ready()
        {
            gate.receive(&slot, message);
        }
        if std::mem::take(&mut gate.is_busy) {
            // Other gates have answers too, and the runtime would run the connection after each.
            gate.core.outbox.put(&mut gate.letters);
        }
        gate.core.publish_all(&mut gate.letters).await;
        gate.letters.shrink_to(IDLE_LETTERS); // it may be one of ten thousand
    }
}

/// Lets requests in, for one subscription.
pub(super) struct Gate {
    core: Arc<Core>,
    /// Who spoke last: mostly it is the same client that speaks next.
    client: Option<ClientName>,
    /// Answers that are ready to go.
    letters: Vec<Letter>,
    /// Whether many calls come to this exporter now.
    is_busy: bool,
}

/// Who asked for what, and where the answer goes.
pub(super) struct Envelope<'a> {
    pub(super) client: ClientName,
    /// None is a verb of a newer version, which deserves an answer.
    pub(super) verb: Option<DriverVerb>,
    pub(super) method: &'a str,
    pub(super) reply_to: Subject,
}

impl Gate {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, client: None, letters: Vec::new(), is_busy: false }
    }

    /// Whether so many answers are ready that they go.
    pub(super) fn is_full(&self) -> bool {
        self.letters.len() >= TOGETHER_MAX
    }

    /// Sends the answers that are ready.
    pub(super) async fn publish(&mut self) {
        self.core.publish_all(&mut self.letters).await;
    }

    fn receive(&mut self, slot: &Arc<Slot>, mut message: Incoming) {
        let payload = message.take_payload();
        let envelope = match self.open(slot, &message) {
            Ok(envelope) => envelope,
            Err(why) => return self.core.drop_message(&message, why),
        };
        self.take(slot, envelope, payload);
    }

    /// Lets a request in, or answers why not.
    pub(super) fn take(&mut self, slot: &Arc<Slot>, envelope: Envelope<'_>, payload: Bytes) {
        // A verb of a newer version counts as the one that every version has.
        let counted = envelope.verb.unwrap_or(DriverVerb::Call);
        self.core.stats.of(counted).requests.fetch_add(1, Ordering::Relaxed);
        let (subject, client) = (envelope.reply_to.clone(), envelope.client.clone());
        if let Err((voice, refusal)) = self.let_in(slot, envelope, payload) {
            let answer = Answer::failed(voice, Failure::Refused(refusal));
            self.core.stats.ended(counted, answer.ended);
            self.answer(ReplyTo { subject, together: false }, &client, None, answer);
        }
    }

    /// Answers without letting anything in.
    pub(super) fn refuse(&mut self, client: &ClientName, reply_to: Subject, refusal: Refusal) {
        let answer = Answer::failed(Voice::Message(Form::Typed), Failure::Refused(refusal));
        self.answer(ReplyTo { subject: reply_to, together: false }, client, None, answer);
    }

    fn answer(&mut self, to: ReplyTo, client: &ClientName, id: Option<CallId>, answer: Answer) {
        self.letters.extend(self.core.letter(to, client, id, answer));
    }

    /// Reads the envelope: subject and reply subject. An error says why the message is dropped
    /// unread: whoever sent it is not the client that its subject names, or cannot be answered.
    fn open<'m>(
        &mut self,
        slot: &Slot,
        message: &'m Incoming,
    ) -> Result<Envelope<'m>, &'static str> {
        let reply = message.reply_subject().ok_or("it has no reply subject")?;
        const FOREIGN: &str = "its subject is not of the protocol";
        let (client, verb, method) = match Spoken::read(&self.core.root, message.subject()) {
            Ok(Spoken { client, to: SpokenTo::Driver(verb, id, method), .. }) if id == slot.id => {
                (client, Some(verb), method)
            }
            Err(SubjectError::Verb) => {
                let client = Spoken::speaker(&self.core.root, message.subject()).ok_or(FOREIGN)?;
                (client, None, "")
            }
            Ok(_) | Err(SubjectError::Foreign) => return Err(FOREIGN),
        };
        let client = match &self.client {
            Some(known) if known.as_str() == client => known.clone(),
            _ => self.client.insert(client.parse().map_err(|_| FOREIGN)?).clone(),
        };
        if !self.core.may_answer(&client, reply.as_str()) {
            return Err("its reply subject is not the client's");
        }
        Ok(Envelope { client, verb, method, reply_to: reply.clone() })
    }

    fn let_in(
        &mut self,
        slot: &Arc<Slot>,
        envelope: Envelope<'_>,
        payload: Bytes,
    ) -> Result<(), (Voice, Refusal)> {
        let Envelope { client, verb, method, reply_to } = envelope;
        let verb = verb.ok_or_else(no_such_verb)?;
        let asked = Asked::read(verb, payload)?;
        let reply_to = ReplyTo { subject: reply_to, together: asked.together };
        let voice = asked.voice;
        let refuse = |refusal| (voice, refusal);
        let tenant = slot.tenant().map_err(refuse)?;
        let method = tenant.method(method).map_err(refuse)?;
        asked.check(&method).map_err(refuse)?;
        let pass = self.pass(slot, &client, &method, &asked).map_err(refuse)?;
        let turn = match method.is_exclusive() {
            true => slot.turn.if_free(|| What::Method(method.clone())),
            false => None,
        };
        let begun = turn.is_some();
        let now = Instant::now();
        let arrival = Arrival {
            client: client.clone(),
            id: asked.id,
            driver: slot.id,
            fingerprint: asked.fingerprint(&method.name),
            age: asked.age,
            repeated: asked.repeated,
            deadline: asked.deadline,
            done_below: asked.done_below,
            bytes: asked.bytes(),
            pass,
            reply_to: reply_to.clone(),
            begins: begun,
        };
        let uptime = now - self.core.started;
        self.is_busy |= self.core.outbox.is_one_of_many(uptime);
        let admission = self.core.ledger().admit(arrival, uptime);
        let answer = match admission {
            Admission::Joined => return Ok(()),
            Admission::Refused(refusal) => return Err(refuse(refusal)),
            Admission::Ended(answer) => answer,
            Admission::Unknown(why) => Answer::unknown(voice, why),
            Admission::Run(receipt) => {
                // The place in the line is taken here and now: order of arrival is order of service.
                let ticket = match turn {
                    Some(turn) => Some(Ticket::Now(turn)),
                    None if method.is_exclusive() => {
                        Some(slot.turn.ticket(What::Method(method.clone())))
                    }
                    None => None,
                };
                let request = Request {
                    caller: client,
                    id: asked.id,
                    voice,
                    method,
                    body: asked.body,
                    open: asked.open,
                    received: now,
                    begun,
                    deadline: (now + asked.deadline).into(),
                    pass,
                    reply_to,
                    receipt,
                };
                let (core, place) = (self.core.clone(), slot.clone());
                let operation = work(Work { core, slot: place, tenant, request }, ticket);
                let wary = &slot.wary;
                if begun && wary.load(Ordering::Relaxed) == 0 {
                    self.begin(operation);
                    if now.elapsed() > HELD_MAX {
                        wary.store(WARY, Ordering::Relaxed);
                    }
                } else {
                    let _ = wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |wary| {
                        wary.checked_sub(1)
                    });
                    self.spawn(Box::pin(AssertUnwindSafe(operation).catch_unwind()));
                }
                return Ok(());
            }
        };
        self.answer(reply_to, &client, asked.id, answer);
        Ok(())
    }

    /// What a call is let in under; none for one that only observes, and needs no lease.
    fn pass(
        &self,
        slot: &Slot,
        client: &ClientName,
        method: &Method,
        asked: &Asked,
    ) -> Result<Option<Pass>, Refusal> {
        if method.observe {
            return Ok(None);
        }
        let pass = match client.as_str() == CLAIMANT {
            true => slot.fence.admit_hook(asked.id.map(|id| id.session)),
            false => slot.fence.admit(client, asked.epoch),
        };
        if let Err(refusal) = &pass {
            self.core.fenced_off(slot, client, asked.epoch, refusal);
        }
        pass.map(Some)
    }

    /// Begins a call that has its turn: most end at once. What does not goes on as a task of its
    /// own. (What blocks its thread, as no method should, delays its own driver, and that once.)
    fn begin(&mut self, operation: impl Future<Output = Option<Letter>> + Send + 'static) {
        let mut operation = Box::pin(AssertUnwindSafe(operation).catch_unwind());
        match (&mut operation).now_or_never() {
            Some(Ok(letter)) => self.letters.extend(letter),
            // A panic of a driver's code is a fault and does not get here: this one is ours.
            Some(Err(_panic)) => tracing::error!("an operation panicked and is not answered"),
            None => self.spawn(operation),
        }
    }

    fn spawn(
        &self,
        operation: impl Future<Output = std::thread::Result<Option<Letter>>> + Send + 'static,
    ) {
        let (core, running) = (self.core.clone(), self.core.running());
        self.core.tasks.spawn(async move {
            if let Ok(Some(letter)) = operation.await {
                core.outbox.send(&core, letter).await;
            }
            drop(running);
        });
    }
}

fn no_such_verb() -> (Voice, Refusal) {
    let known: Vec<_> = DriverVerb::ALL.iter().map(|verb| verb.as_str()).collect();
    let text = format_args!("no such verb: there are {}", known.join(", "));
    (Voice::Message(Form::Typed), Refusal::new(RefusalCode::UnknownVerb, text))
}
