//! Tickets: what a client asked for, and the news of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus_schema::{
    Address, ExporterName, Held, LeaseAction, LeaseAsk, LeaseNews, Leased, Path, Refusal, TicketId,
    codec::{self, Message},
    subject::{ExporterVerb, FromExporter, To},
};
use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Client, Inner, LeaseError};
use crate::{
    bus::{BusError, Incoming, random},
    client::{CallError, mailroom},
};

/// An answer that does not come is asked for again after this time …
const ASK_AGAIN: Duration = Duration::from_millis(1500);
/// … and this often: commands are idempotent.
const ASKS_MAX: u32 = 5;
/// An exporter that is not there may be restarting.
const NOT_YET: Duration = Duration::from_millis(150);

/// The tickets of one client process.
#[derive(Default)]
pub(crate) struct Tickets {
    known: Mutex<HashMap<TicketId, Known>>,
    /// Set when news can come.
    listening: tokio::sync::OnceCell<()>,
}

struct Known {
    exporter: ExporterName,
    news: Arc<News>,
}

/// What was heard of a ticket without asking.
pub(super) struct News {
    newest: Mutex<u64>,
    changed: Arc<Notify>,
}

impl Tickets {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TicketId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One ticket. Cheap to clone; the last clone's end forgets it, and does not give it back.
#[derive(Clone)]
pub(super) struct Ticket(Arc<Kept>);

pub(super) struct Kept {
    inner: Arc<Inner>,
    pub(super) id: TicketId,
    pub(super) address: Address,
    news: Arc<News>,
}

impl std::ops::Deref for Ticket {
    type Target = Kept;

    fn deref(&self) -> &Kept {
        &self.0
    }
}

impl Ticket {
    /// A new one. `changed` is told of its news.
    pub(super) async fn new(
        client: &Client,
        address: Address,
        changed: Arc<Notify>,
    ) -> Result<Self, BusError> {
        let inner = client.0.clone();
        inner.tickets.listening.get_or_try_init(|| mailroom::listen_for_leases(&inner)).await?;
        let id = TicketId::new(inner.session, random());
        let news = Arc::new(News { newest: Mutex::new(0), changed });
        let known = Known { exporter: address.exporter.clone(), news: news.clone() };
        inner.tickets.lock().insert(id, known);
        Ok(Self(Arc::new(Kept { inner, id, address, news })))
    }

    pub(super) fn client(&self) -> Client {
        Client(self.inner.clone())
    }

    /// Resolves when there are news. Cancel safe.
    pub(super) async fn changed(&self) {
        self.news.changed.notified().await;
    }

    /// The sign of life that says which news were heard.
    pub(super) fn alive(&self) -> LeaseAction {
        let heard = *self.news.newest.lock().unwrap_or_else(PoisonError::into_inner);
        LeaseAction::Alive { heard }
    }

    /// Says something, and gives how the ticket stands then.
    pub(super) async fn say(&self, action: LeaseAction) -> Result<Leased, LeaseError> {
        say(&self.inner, &self.address, self.ask(action)).await
    }

    /// A command that needs the lease.
    pub(super) async fn hold(&self, action: LeaseAction) -> Result<Held, LeaseError> {
        match self.say(action).await? {
            Leased::Held(held) => Ok(held),
            Leased::Refused(refusal) => Err(self.refused(refusal)),
            other => Err(self.ended(other)),
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> LeaseError {
        LeaseError::Refused { address: self.address.to_string(), refusal }
    }

    /// The error of a ticket that has no lease and should have one.
    pub(super) fn ended(&self, stands: Leased) -> LeaseError {
        let address = self.address.to_string();
        match stands {
            Leased::Ended { why, text } => LeaseError::Ended { address, why, text },
            Leased::Refused(refusal) => LeaseError::Refused { address, refusal },
            other => LeaseError::Garbled(format!("the exporter says {other:?}")),
        }
    }

    fn ask(&self, action: LeaseAction) -> LeaseAsk {
        LeaseAsk { ticket: Some(self.id), path: self.address.path.clone(), driver: None, action }
    }

    /// Gives it back without waiting. If the message is lost it ends by its silence.
    pub(super) fn release_later(&self) {
        let (inner, exporter) = (self.inner.clone(), self.address.exporter.clone());
        let message = codec::encode(&self.ask(LeaseAction::Release));
        self.inner.tasks.spawn(async move { release(&inner, &exporter, message).await });
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.inner.tickets.lock().remove(&self.id);
    }
}

/// Gives a ticket back. A client that is closed right after still sends it.
async fn release(inner: &Arc<Inner>, exporter: &ExporterName, message: Bytes) {
    let to = To::Exporter(ExporterVerb::Lease);
    tokio::select! {
        biased;
        _ = inner.ask_exporter(exporter, to, message, ASK_AGAIN) => {}
        () = inner.stop.cancelled() => {}
    }
}

/// Says something about a lease, until it is answered.
pub(super) async fn say(
    inner: &Arc<Inner>,
    address: &Address,
    ask: LeaseAsk,
) -> Result<Leased, LeaseError> {
    let to = To::Exporter(ExporterVerb::Lease);
    request(inner, &address.exporter, to, codec::encode(&ask)).await
}

/// A request that may be made any number of times, until it is answered.
pub(super) async fn request<M: Message>(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    to: To,
    message: Bytes,
) -> Result<M, LeaseError> {
    let answer = answer(inner, exporter, to, message).await?;
    codec::decode(answer.payload()).map_err(|error| LeaseError::Garbled(error.to_string()))
}

/// The same, with an answer of whatever kind.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    to: To,
    message: Bytes,
) -> Result<Incoming, LeaseError> {
    let began = Instant::now();
    for _ in 0..ASKS_MAX {
        let asked = inner.ask_exporter(exporter, to.clone(), message.clone(), ASK_AGAIN).await;
        match asked {
            Ok(answer) => return Ok(answer),
            Err(CallError::NoDriver { .. }) => {
                let fresh = inner.calls.is_fresh(inner.control());
                if !fresh || began.elapsed() > ASK_AGAIN * ASKS_MAX {
                    return Err(LeaseError::NoExporter { exporter: exporter.to_string() });
                }
                sleep(NOT_YET).await;
            }
            Err(CallError::TimedOut { .. }) => {}
            Err(error @ (CallError::NotAllowed { .. } | CallError::TurnedAway(_))) => {
                return Err(LeaseError::NotAllowed(Box::new(error)));
            }
            Err(other) => return Err(LeaseError::Bus(other.to_string())),
        }
    }
    Err(LeaseError::Silent { exporter: exporter.to_string() })
}

/// News of a ticket. One that nobody here knows is given back: its owner has left.
pub(crate) fn on_news(inner: &Inner, message: Incoming) -> Option<()> {
    let FromExporter::Lease(exporter, _, session) =
        FromExporter::read(&inner.root, message.subject()).ok()?
    else {
        return None;
    };
    message.is_of(&exporter, &inner.root).then_some(())?;
    let LeaseNews { ticket, number, now } = codec::decode(message.payload()).ok()?;
    (ticket.session() == session).then_some(())?;
    let known = {
        let tickets = inner.tickets.lock();
        tickets.get(&ticket).map(|known| (known.exporter == exporter, known.news.clone()))
    };
    match known {
        Some((true, news)) => {
            let mut newest = news.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = number.max(*newest);
            drop(newest);
            news.changed.notify_one();
        }
        Some((false, _)) => return None,
        None => {
            let action = match now {
                Leased::Ended { .. } | Leased::Refused(_) => LeaseAction::Alive { heard: number },
                _ => LeaseAction::Release,
            };
            let ask = LeaseAsk { ticket: Some(ticket), path: Path::ROOT, driver: None, action };
            let message = codec::encode(&ask);
            let subject = inner.subject(&exporter, To::Exporter(ExporterVerb::Lease));
            let (control, reply) = (inner.control().clone(), inner.inbox.token(random()));
            inner.tasks.spawn(async move { control.request(subject, reply, message).await });
        }
    }
    Some(())
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("known", &self.lock().len()).finish_non_exhaustive()
    }
}
