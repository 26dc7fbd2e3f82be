//! What all tasks of an exporter share.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bus_schema::{
    CallId, ClientName, EventKind, ExporterName, Incarnation, Path, Refusal, Root, StreamId, codec,
    message::{Outcome, Parts, Reply},
    subject::{CLAIMANT, FromExporter, Inbox},
};
use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Stopped,
    answer::Answer,
    events::{Events, Happened},
    lease::Leases,
    ledger::Ledger,
    outbox::{Letter, Outbox, ReplyTo},
    recorder::Acks,
    reload::Reloads,
    request::Request,
    slot::Slot,
    stats::Stats,
    tree::Slots,
};
use crate::{
    bus::{Bus, Conn, Incoming, Subject, random},
    stream::{Budget, DataLine, Flow, Line, PeerWatch, PipeDirection, PipeEnd, Pump, Switchboard},
};

/// The state of one running exporter.
pub(crate) struct Core {
    pub(crate) root: Root,
    pub(crate) name: ExporterName,
    pub(crate) incarnation: Incarnation,
    /// The reply subject of what has no answer.
    pub(crate) mark: Subject,
    pub(crate) host: String,
    pub(crate) started: Instant,
    pub(crate) bus: Bus,
    pub(crate) bulk: Conn,
    ledger: Mutex<Ledger>,
    pub(crate) leases: Leases,
    pub(crate) reloads: Reloads,
    pub(crate) switchboard: Switchboard,
    pub(crate) budget: Budget,
    pub(crate) acks: Acks,
    slots: ArcSwap<Slots>,
    pub(crate) tasks: TaskTracker,
    /// Ends the intake of new calls.
    pub(crate) draining: CancellationToken,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    /// Why it has stopped by itself, if it has.
    pub(crate) stopped: OnceLock<Stopped>,
    pub(crate) stats: Stats,
    pub(crate) outbox: Outbox,
    /// Files that are lent to drivers.
    pub(crate) files: crate::resource::Files,
    pub(crate) events: Events,
    /// Since when dropped messages are counted for the log, and how many it has.
    told_of_drops: Mutex<(Instant, u32)>,
}

/// A flood of forgeries must not fill the log: it tells of so many …
const DROPS_TOLD_MAX: u32 = 50;
/// … in this time. Their number is in each line.
const DROPS_TOLD_PER: Duration = Duration::from_secs(1);

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the one place where it is put together")]
    pub(crate) fn new(
        root: Root,
        name: ExporterName,
        incarnation: Incarnation,
        host: String,
        bus: Bus,
        bulk: Conn,
        slots: Slots,
        leases: Leases,
        reloads: Reloads,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            mark: Inbox::mark_of_exporter(&root, &name).into(),
            root,
            name,
            incarnation,
            host,
            started: Instant::now(),
            bus,
            bulk,
            ledger: Mutex::default(),
            leases,
            reloads,
            switchboard: Switchboard::default(),
            budget: Budget::default(),
            acks: Acks::default(),
            slots: ArcSwap::from_pointee(slots),
            tasks: TaskTracker::new(),
            draining: stop.child_token(),
            stop,
            stopped: OnceLock::new(),
            stats: Stats::default(),
            outbox: Outbox::default(),
            files: crate::resource::Files::default(),
            told_of_drops: Mutex::new((Instant::now(), 0)),
            events: Events::default(),
        })
    }

    pub(crate) fn control(&self) -> &Conn {
        &self.bus.control
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// All places, as they are now.
    pub(crate) fn slots(&self) -> Arc<Slots> {
        self.slots.load_full()
    }

    /// The configuration has other drivers from now on.
    pub(crate) fn replace_slots(&self, slots: Slots) {
        self.slots.store(Arc::new(slots));
    }

    /// The same, as messages say it.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    /// The ledger. Held for a look-up, never over an await.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody of a lease.
    pub(crate) fn event(
        &self,
        kind: EventKind,
        path: &Path,
        client: Option<ClientName>,
        epoch: Option<u64>,
        reason: impl std::fmt::Display,
    ) {
        let mut happened = Happened::now(kind).at(path.to_string()).because(reason);
        if let Some(client) = client {
            happened = happened.by(client);
        }
        if let Some(epoch) = epoch {
            happened = happened.under(epoch);
        }
        self.events.tell(happened);
    }

    /// A call came of somebody who may not use the driver now.
    pub(crate) fn fenced_off(
        &self,
        slot: &Slot,
        client: &ClientName,
        epoch: Option<u64>,
        refusal: &Refusal,
    ) {
        let client = Some(client.clone());
        self.event(EventKind::CallFenced, &slot.path, client, epoch, &refusal.text);
    }

    /// Whether an answer may go to `reply`: only under the inbox of the client that the subject
    /// names, or nobody vouches for who asked. (On a broker that does not know its users
    /// apart nobody does, and a plain `nats req` with its own inbox is welcome.)
    pub(crate) fn may_answer(&self, client: &ClientName, reply: &str) -> bool {
        Inbox::belongs_to(reply, &self.root, client)
            || self.is_itself(client, reply)
            || (reply.starts_with("_INBOX.") && !self.control().vouches())
    }

    /// Whether `client` is an exporter that wants our name, or a hook of this one. It asks with
    /// its own inbox, which is ours, too.
    fn is_itself(&self, client: &ClientName, reply: &str) -> bool {
        client.as_str() == CLAIMANT && Inbox::is_of_exporter(reply, &self.root, &self.name)
    }

    /// Stops the exporter, of its own accord.
    pub(crate) fn stop_for(&self, why: Stopped) {
        let _ = self.stopped.set(why); // the first reason is the reason
        self.stop.cancel();
    }

    /// Drops a message that is not what it seems to be, and says so: somebody may be trying.
    pub(crate) fn drop_message(&self, message: &Incoming, why: &'static str) {
        let dropped = self.stats.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let mut told = self.told_of_drops.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0.elapsed() > DROPS_TOLD_PER {
            *told = (Instant::now(), 0);
        }
        told.1 += 1;
        if told.1 <= DROPS_TOLD_MAX {
            let (subject, reply) = (message.subject(), message.reply().unwrap_or_default());
            tracing::warn!(subject, reply, why, dropped, "dropped a message unread");
        }
    }

    /// Remembers how a call ended; gives its answer, unless nobody waits for it any more.
    pub(crate) fn conclude(
        self: &Arc<Self>,
        request: Request,
        answer: Answer,
        now: Instant,
    ) -> Option<Letter> {
        let settled = self.ledger().settle(&request.receipt, &answer, now - self.started);
        let reply_to = if request.id.is_some() { settled } else { Some(request.reply_to) };
        self.letter(reply_to?, &request.caller, request.id, answer)
    }

    /// An answer as it is sent; none if it cannot be. What does not fit one message is made ready
    /// to be fetched.
    pub(crate) fn letter(
        self: &Arc<Self>,
        to: ReplyTo,
        client: &ClientName,
        id: Option<CallId>,
        answer: Answer,
    ) -> Option<Letter> {
        let Answer { mut message, error, large, .. } = answer;
        if let Some(body) = large {
            message = self.offer_parts(client, id?, body); // only calls with an id have parts
        }
        Some(Letter { to, message, error })
    }

    /// Makes a large result ready to be fetched, and the reply that says where.
    fn offer_parts(self: &Arc<Self>, client: &ClientName, id: CallId, body: Bytes) -> Bytes {
        let stream = StreamId::new(id.session, random());
        let bytes = body.len() as u64;
        let Some(grant) = self.budget.grant() else {
            let text = "too many streams are open to send a large result";
            let fault = bus_schema::Fault::device(text);
            return codec::encode(&Reply { outcome: Outcome::Fault(fault) });
        };
        let end = PipeEnd::new(Flow::new(0, 0), PipeDirection::SendOnly, grant);
        let data = self.down(client, stream);
        let pump = self.pump(client, stream, end.clone(), data, crate::stream::SILENCE);
        self.switchboard.plug(stream, client.as_str().into(), end.clone());
        self.tasks.spawn(pump.run());
        self.tasks.spawn(async move {
            // It fails only if the stream was cut off, and then nobody wants the rest.
            let _ = end.write_all(&body).await;
            end.finish();
        });
        codec::encode(&Reply { outcome: Outcome::Parts(Parts { stream, bytes }) })
    }

    /// Where the data of a stream to `client` goes.
    pub(crate) fn down(&self, client: &ClientName, stream: StreamId) -> DataLine {
        let session = stream.session();
        let subject = FromExporter::Down(self.name.clone(), client.clone(), session, stream);
        DataLine::Subject(subject.under(&self.root))
    }

    /// The pump of this side of a stream with `client`.
    pub(crate) fn pump(
        &self,
        client: &ClientName,
        stream: StreamId,
        end: Arc<PipeEnd>,
        data: DataLine,
        silence_max: Duration,
    ) -> Pump {
        let session = stream.session();
        let ctl = FromExporter::Ctl(self.name.clone(), client.clone(), session, stream);
        let line = Line {
            control: self.control().clone(),
            bulk: self.bulk.clone(),
            mark: self.mark.clone(),
            ctl: ctl.under(&self.root),
            data,
        };
        Pump {
            id: stream,
            end,
            line,
            switchboard: self.switchboard.clone(),
            stop: self.stop.clone(),
            silence_max,
            lingers: true,
            // A client is not asked: it speaks by itself, or is silent too long.
            peer: Box::new(|| -> PeerWatch { Box::pin(std::future::pending()) }),
        }
    }
}
