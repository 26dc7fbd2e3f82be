//! One operation, from its arguments to its answer.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use bus_schema::{
    Args, Failure, Fault, FaultKind, Kind, RawItems, RawPipe, Refusal, RefusalCode, codec,
    limits::{CANCEL_GRACE, STREAMS_MAX},
    message::{Begin, End, Opened, Parts, ResetCode},
    subject::DriverVerb,
};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::Instrument as _;

use super::{
    answer::{Answer, arguments, json_arguments},
    context::{Context, Held, Loans, Operation},
    core::Core,
    driver_actor::Panicked,
    events::since_1970_ms,
    lease::{Fence, Pass},
    outbox::Letter,
    recorder::Recorder,
    request::{Body, OpenAsked, Request},
    slot::{Slot, Tenant},
    turn::{Ticket, What},
    usage::Ended,
};
use crate::stream::{AnyItems, ByteStream, DataLine, Flow, PipeDirection, PipeEnd, SILENCE};

/// The caller of a streaming call is gone after this silence (DESIGN: 30 s).
const CALLER_SILENCE: Duration = Duration::from_secs(30);

/// What an operation needs.
pub(crate) struct Work {
    pub(crate) core: Arc<Core>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) request: Request,
}

/// Runs an operation; gives its answer, if that is still to be sent. `ticket` is the place in the
/// line of one that is exclusive.
pub(crate) fn work(
    work: Work,
    ticket: Option<Ticket>,
) -> impl Future<Output = Option<Letter>> + Send {
    let method = &work.request.method;
    let span = tracing::info_span!(
        "call",
        actor = %work.slot.address,
        method = %method.name,
        client = %work.request.caller,
        id = work.request.id.map(tracing::field::display),
    );
    work.run(ticket).instrument(span)
}

impl Work {
    async fn run(self, ticket: Option<Ticket>) -> Option<Letter> {
        let operation = Arc::new(Operation {
            caller: self.request.caller.clone(),
            id: self.request.id,
            what: What::Method(self.request.method.clone()),
            cancel: self.request.receipt.cancel.clone(),
            turn: self.slot.turn.clone(),
            core: Some(self.core.clone()),
            loans: Loans::default(),
            held: Held::default(),
        });
        let answer = match self.request.open.as_deref() {
            None => self.call(&operation, ticket).await,
            Some(open) => match Box::pin(self.open(&operation, *open)).await {
                Ok(answer) => answer,
                Err(failure) => Answer::failed(self.request.voice, failure),
            },
        };
        operation.loans.end();
        drop(operation); // and with it the turn, before the answer invites the next call
        let Work { core, slot, request, .. } = self;
        let now = std::time::Instant::now();
        let took = now - request.received;
        slot.usage.count(&request.method, answer.ended, took);
        let verb = if request.open.is_some() { DriverVerb::Open } else { DriverVerb::Call };
        core.stats.ended(verb, answer.ended);
        let busy = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        core.stats.of(verb).busy_ns.fetch_add(busy, std::sync::atomic::Ordering::Relaxed);
        core.conclude(request, answer, now)
    }

    // --- calls ---------------------------------------------------------------------------

    async fn call(&self, operation: &Arc<Operation>, ticket: Option<Ticket>) -> Answer {
        let result = self.result_of_call(operation, ticket).await;
        let max = self.core.control().max_payload();
        Answer::to_call(self.request.voice, &self.request.method, result, max)
    }

    async fn result_of_call(
        &self,
        operation: &Arc<Operation>,
        ticket: Option<Ticket>,
    ) -> Result<Vec<u8>, Failure> {
        let (args, ticket) = match self.request.body {
            // Who is still sending them does not keep the device from others.
            Body::Parts(..) => {
                let takes_turn = ticket.is_some();
                drop(ticket);
                let args = self.arguments().await?;
                let what = What::Method(self.request.method.clone());
                (args, takes_turn.then(|| self.slot.turn.ticket(what)))
            }
            _ => (self.arguments().await?, ticket),
        };
        if let Some(ticket) = ticket {
            operation.held.put(self.wait_for_turn(ticket).await?);
        }
        if self.tenant.gone.is_raised() {
            // Whoever had the turn before has crashed, and took this driver's value along.
            return Err(self.restarting().into());
        }
        self.may_go_on()?;
        if !self.request.begun {
            self.core.ledger().begin(&self.request.receipt, self.core.uptime());
        }
        let method = &self.request.method;
        let cx = Context::from(operation.clone());
        let serving = self.tenant.driver.clone().call(cx.raw(), &method.name, args);
        let deadline = (!method.uncancellable).then_some(self.request.deadline);
        self.supervise(serving, deadline).await
    }

    async fn arguments(&self) -> Result<Args, Refusal> {
        let method = &self.request.method;
        match &self.request.body {
            Body::Args(form, bytes) => arguments(*form, bytes.clone(), method),
            Body::Json(bytes) => json_arguments(bytes, method),
            Body::Parts(form, parts) => {
                // Boxed, as is all that is rare: every operation carries the size of its largest path.
                arguments(*form, Box::pin(self.fetch(*parts)).await?, method)
            }
        }
    }

    /// Fetches large arguments: a stream from the caller that belongs to this call.
    async fn fetch(&self, parts: Parts) -> Result<Bytes, Refusal> {
        let (core, caller) = (&self.core, &self.request.caller);
        if self.request.id.is_some_and(|id| id.session != parts.stream.session()) {
            return Err(foreign_stream());
        }
        let grant = core.budget.grant().ok_or_else(no_credit)?;
        let flow = Flow::new(grant.bytes(), 0);
        let end = PipeEnd::new(flow, PipeDirection::ReceiveOnly, grant);
        if !core.switchboard.plug_behind(
            parts.stream,
            caller.as_str().into(),
            end.clone(),
            self.fence(),
        ) {
            return Err(Refusal::new(RefusalCode::IdReused, "the stream id is in use"));
        }
        let pump = core.pump(caller, parts.stream, end.clone(), DataLine::Nowhere, SILENCE);
        core.tasks.spawn(pump.run());
        end.invite();
        tokio::select! {
            biased;
            () = self.request.receipt.cancel.raised() => {
                end.reset(ResetCode::Cancelled, "the call was cancelled");
                self.may_go_on()?;
                Err(expired("cancelled by its caller while its arguments were on their way"))
            }
            collected = timeout_at(self.request.deadline, collect(&end, parts.bytes)) => {
                let Ok(collected) = collected else {
                    end.reset(ResetCode::Cancelled, "the call's deadline has passed");
                    return Err(expired("while its arguments were on their way"));
                };
                collected.map_err(|problem| {
                    end.reset(ResetCode::Protocol, &problem);
                    Refusal::new(RefusalCode::Malformed, format_args!("arguments in parts: {problem}"))
                })
            }
        }
    }

    async fn wait_for_turn(&self, ticket: Ticket) -> Result<super::turn::TurnGuard, Refusal> {
        match ticket {
            Ticket::Now(guard) => Ok(guard),
            Ticket::Later(_) => Box::pin(self.wait_in_line(ticket)).await,
        }
    }

    async fn wait_in_line(&self, ticket: Ticket) -> Result<super::turn::TurnGuard, Refusal> {
        let method = &self.request.method.name;
        tokio::select! {
            biased;
            () = self.request.receipt.cancel.raised() => {
                self.may_go_on()?;
                Err(expired("cancelled by its caller before its turn came"))
            }
            () = self.tenant.gone.raised() => Err(self.restarting()),
            turn = timeout_at(self.request.deadline, ticket.turn()) => turn.map_err(|_| {
                let holder = self.slot.turn.holder();
                let (what, since) = holder.unwrap_or_else(|| ("another call".to_owned(), Duration::ZERO));
                let text = format!("{method} did not get its turn by its deadline: busy with {what} for {since:.1?}");
                let since_ms = u64::try_from(since.as_millis()).ok();
                Refusal { since_ms, ..Refusal::new(RefusalCode::Busy, text) }
            }),
        }
    }

    // --- streaming calls and streams -----------------------------------------------------

    async fn open(&self, operation: &Arc<Operation>, open: OpenAsked) -> Result<Answer, Failure> {
        if self.tenant.gone.is_raised() {
            return Err(self.restarting().into());
        }
        let args = self.arguments().await?;
        let (core, request, method) = (&self.core, &self.request, &self.request.method);
        if request.id.is_some_and(|id| id.session != open.stream.session()) {
            return Err(foreign_stream().into());
        }
        if core.switchboard.len() >= STREAMS_MAX {
            let text = format!("{STREAMS_MAX} streams are open here already");
            return Err(Refusal::new(RefusalCode::Busy, text)
                .with_limit(STREAMS_MAX as u64)
                .into());
        }
        let is_stream = method.kind == Kind::Stream;
        let grant = match is_stream {
            true => core.budget.grant().ok_or_else(no_credit)?,
            false => core.budget.nothing(),
        };
        let credit = grant.bytes();
        let (flow, direction) = match is_stream {
            true => (Flow::new(credit, open.credit), PipeDirection::Both),
            false => {
                let begin = Begin {
                    address: self.slot.address.to_string(),
                    method: method.name.clone(),
                    item: method.result.clone(),
                    began_ms: since_1970_ms(),
                };
                let flow = Flow::new(0, open.credit).with_begin(begin);
                (flow, PipeDirection::SendOnly)
            }
        };
        let end = PipeEnd::new(flow, direction, grant);
        if open.detached {
            end.detach();
        }
        if !core.switchboard.plug_behind(
            open.stream,
            request.caller.as_str().into(),
            end.clone(),
            self.fence(),
        ) {
            return Err(Refusal::new(RefusalCode::IdReused, "the stream id is in use").into());
        }
        // Behind the fence first, and then a look: whoever moves the fence cuts what is behind it.
        if let Err(refusal) = self.may_go_on() {
            core.switchboard.unplug(open.stream);
            return Err(refusal.into());
        }
        let cx = Context::from(operation.clone());
        let serving = match is_stream {
            true => {
                let pipe = RawPipe(Box::new(ByteStream::served(end.clone())));
                self.tenant.driver.clone().stream(cx.raw(), &method.name, args, pipe)
            }
            false => {
                let items = RawItems(Box::new(AnyItems(end.clone())));
                self.tenant.driver.clone().streaming_call(cx.raw(), &method.name, args, items)
            }
        };
        // Wrong arguments are refused by the first poll, before anything is answered; so is a
        // driver that fails at once, like a connection that is refused.
        let mut serving = Box::pin(AssertUnwindSafe(serving).catch_unwind());
        let first = (&mut serving).now_or_never();
        if let Some(Ok(Err(failure @ Failure::Refused(_)))) = first {
            core.switchboard.unplug(open.stream);
            return Err(failure);
        }
        self.speak_for(open, end.clone(), is_stream);
        core.ledger().begin(&request.receipt, core.uptime());
        let opened = Opened::Open {
            incarnation: core.incarnation,
            credit,
            item: (!is_stream).then(|| method.result.clone()),
        };
        let (message, ended) = (codec::encode(&opened), Ended::Well);
        let answer = Answer { message, error: None, large: None, ended };
        core.ledger().opened(&request.receipt, &answer);
        let to = request.reply_to.clone();
        if let Some(letter) = core.letter(to, &request.caller, request.id, answer.clone()) {
            core.publish(&letter).await;
        }
        let result = match first {
            Some(Ok(result)) => result,
            Some(Err(panic)) => Err(self.panicked(&panic).into()),
            None => self.attend(serving, &end).await,
        };
        let ended = result.as_ref().map_or_else(Ended::from, |()| Ended::Well);
        finish(&end, is_stream, result);
        Ok(Answer { ended, ..answer })
    }

    /// Starts the pump; when it has ended, so has the caller's interest.
    fn speak_for(&self, open: OpenAsked, end: Arc<PipeEnd>, is_stream: bool) {
        let (core, request) = (&self.core, &self.request);
        let (data, silence) = match (is_stream, request.id) {
            (false, Some(id)) => {
                let record = Recorder::new(core, &request.caller, id, self.slot.id, open.stream);
                (DataLine::Records(Box::new(record)), CALLER_SILENCE)
            }
            _ => (core.down(&request.caller, open.stream), SILENCE),
        };
        let pump = core.pump(&request.caller, open.stream, end.clone(), data, silence);
        let cancel = request.receipt.cancel.clone();
        core.tasks.spawn(async move {
            pump.run().await;
            if end.error().is_some() {
                cancel.raise();
            }
        });
    }

    /// Runs a streaming call or stream to its end.
    async fn attend<F>(&self, serving: F, end: &PipeEnd) -> Result<(), Failure>
    where
        F: Future<Output = Result<Result<(), Failure>, Box<dyn Any + Send>>> + Send,
    {
        let cancel = &self.request.receipt.cancel;
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            biased;
            () = self.tenant.gone.raised() => return Err(self.died().into()),
            ended = &mut serving => ended,
            () = cancel.raised() => {
                let why = self.why_cancelled();
                end.reset(ResetCode::Cancelled, why); // if it was not cut with its lease
                match timeout(CANCEL_GRACE, &mut serving).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => return Err(stopped(why).into()),
                }
            }
        };
        ended.unwrap_or_else(|panic| Err(self.panicked(&panic).into()))
    }

    // --- leases --------------------------------------------------------------------------

    fn fence(&self) -> Option<(Arc<Fence>, Pass)> {
        self.request.pass.map(|pass| (self.slot.fence.clone(), pass))
    }

    /// Whether the lease that it was let in under is still that of its subtree.
    fn may_go_on(&self) -> Result<(), Refusal> {
        match self.request.pass {
            Some(pass) if !self.slot.fence.holds(pass) => Err(self.slot.fence.ended()),
            _ => Ok(()),
        }
    }

    fn why_cancelled(&self) -> &'static str {
        match self.may_go_on() {
            Ok(()) => "cancelled by its caller",
            Err(_ended) => "cancelled: its lease has ended",
        }
    }

    // --- ends ----------------------------------------------------------------------------

    /// Runs a method's future to its end: a result, a fault, a panic, the caller's cancel, its
    /// deadline, or the death of its driver.
    async fn supervise<T>(
        &self,
        serving: bus_schema::Serving<T>,
        deadline: Option<Instant>,
    ) -> Result<T, Failure> {
        let mut serving = AssertUnwindSafe(serving).catch_unwind();
        // Most methods answer at once, and then need no timers.
        if let Some(ended) = (&mut serving).now_or_never() {
            return ended.unwrap_or_else(|panic| Err(self.panicked(&panic).into()));
        }
        Box::pin(self.watch_over(serving, deadline)).await
    }

    async fn watch_over<T, F>(&self, serving: F, deadline: Option<Instant>) -> Result<T, Failure>
    where
        F: Future<Output = Result<Result<T, Failure>, Box<dyn Any + Send>>> + Send + Unpin,
    {
        let cancel = &self.request.receipt.cancel;
        let mut serving = serving;
        let mut late = false;
        let why = tokio::select! {
            biased;
            ended = &mut serving => return ended.unwrap_or_else(|panic| Err(self.panicked(&panic).into())),
            () = self.tenant.gone.raised() => return Err(self.died().into()),
            () = cancel.raised(), if deadline.is_some() => self.why_cancelled(),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                cancel.raise();
                late = true;
                "stopped at its deadline"
            }
        };
        match timeout(CANCEL_GRACE, &mut serving).await {
            // That it was stopped is why it failed, whatever it says about it.
            Ok(Ok(Err(Failure::Fault(fault)))) if late => {
                Err(stopped(&format!("{why}: {}", fault.text)).into())
            }
            Ok(ended) => ended.unwrap_or_else(|panic| Err(self.panicked(&panic).into())),
            Err(_elapsed) => Err(stopped(why).into()),
        }
    }

    /// The fault for the caller; the driver is restarted.
    fn panicked(&self, panic: &Box<dyn Any + Send>) -> Fault {
        let what = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        let what = format!("panic in {}: {what}", self.request.method.name);
        tracing::error!(what, "driver panicked");
        // At once, so that nothing that waits for the turn begins on the broken value.
        self.tenant.gone.raise();
        let _ = self.tenant.actor.send_message(Panicked(what.clone()));
        Fault::new(FaultKind::Panic, what)
    }

    fn restarting(&self) -> Refusal {
        let text = format!("driver {} crashed and is being restarted", self.slot.address);
        Refusal::new(RefusalCode::Restarting, text)
    }

    fn died(&self) -> Fault {
        let text =
            format!("driver {} crashed while this ran; it is being restarted", self.slot.address);
        Fault::new(FaultKind::Panic, text)
    }
}

/// Ends the sending side as the method ended.
fn finish(end: &PipeEnd, is_stream: bool, result: Result<(), Failure>) {
    match (is_stream, result) {
        (true, Ok(())) => end.finish(),
        (false, Ok(())) => end.finish_items(None),
        (true, Err(failure)) => end.reset(ResetCode::Fault, failure),
        (false, Err(failure)) => {
            let fault = match failure {
                Failure::Fault(fault) => fault,
                Failure::Refused(refusal) => Fault::argument(refusal.text),
            };
            end.finish_items(Some(fault));
        }
    }
}

fn stopped(why: &str) -> Fault {
    Fault::new(FaultKind::Cancelled, why)
}

fn expired(why: &str) -> Refusal {
    Refusal::new(RefusalCode::Expired, why)
}

fn foreign_stream() -> Refusal {
    let text = "the stream's id does not begin with the session of the call's";
    Refusal::new(RefusalCode::Malformed, text)
}

fn no_credit() -> Refusal {
    Refusal::new(RefusalCode::Busy, "too many streams are open here to give another one credit")
}

/// Reads a body that was announced with its length.
pub(crate) async fn collect(end: &PipeEnd, bytes: u64) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(chunk) = end.read_chunk().await.map_err(|error| error.to_string())? {
        if (body.len() + chunk.len()) as u64 > bytes {
            return Err(format!("more came than the {bytes} bytes announced"));
        }
        body.extend_from_slice(&chunk);
    }
    match end.their_end() {
        Some(End { .. }) if body.len() as u64 == bytes => Ok(body.freeze()),
        _ => Err(format!("{} of {bytes} bytes came", body.len())),
    }
}
