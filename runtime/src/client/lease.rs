//! Leases as a client has them: values that renew themselves, and end with their owner.

mod error;
mod place;
mod request;
mod ticket;
mod unit;

use std::{fmt, time::Duration};

use bus_schema::{
    Address, AdminAction, AdminAsk, Administered, Board, ClientName, ExporterName, Held,
    LeaseAction, LeaseAsk, LeaseEnd, Leased, Path, PlaceName, TicketId, codec,
    subject::{ExporterVerb, To},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::ticket::{Ticket, say};
pub(crate) use self::ticket::{Tickets, on_news};
pub use self::{
    error::LeaseError,
    place::PlaceLease,
    request::{LeaseRequest, OnWait, Waiting},
};
use super::{CallError, Client, DriverRef, Inner};

/// A lease that needs no sign of life is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// And one whose hook runs, if nothing is heard of it.
const LOOK_STARTING: Duration = Duration::from_secs(2);
/// An exporter that has gone while its hook ran is not waited for any longer than this.
const STARTING_GONE: Duration = Duration::from_secs(12);
/// The end of a lease is told by its exporter; after this time it will not be.
const SLACK: Duration = Duration::from_secs(2);

/// A reload is answered when it is done: what is in use has a minute to end, and devices are made
/// safe.
const RELOADED_WITHIN: Duration = Duration::from_secs(120);

/// Exclusive use of a subtree of one exporter. It gives its signs of life by itself.
///
/// Dropping it gives the lease back, as far as `drop` can: [`release`](Self::release) waits until
/// the exporter knows.
#[must_use = "a lease ends when it is dropped"]
pub struct Lease {
    ticket: Ticket,
    epoch: u64,
    path: Path,
    now: watch::Receiver<Leased>,
    _renewing: DropGuard,
    kept: bool,
}

impl Lease {
    /// Takes over what a ticket holds, and keeps it alive.
    fn new(ticket: Ticket, held: Held) -> Self {
        let (epoch, path) = (held.epoch, held.path.clone());
        let (told, now) = watch::channel(Leased::Held(held));
        let stop = CancellationToken::new();
        let renewing = renew(ticket.clone(), told, stop.clone());
        ticket.client().0.tasks.spawn(renewing);
        Self { ticket, epoch, path, now, _renewing: stop.drop_guard(), kept: false }
    }

    /// Its number. A call made under it is refused once it has ended.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The exporter that it is of.
    pub fn exporter(&self) -> &ExporterName {
        &self.ticket.address.exporter
    }

    /// The top of the subtree.
    pub fn address(&self) -> Address {
        Address { exporter: self.exporter().clone(), path: self.path.clone() }
    }

    /// The place that it was leased as a part of.
    pub fn place(&self) -> Option<PlaceName> {
        match &*self.now.borrow() {
            Leased::Held(held) => held.place.clone(),
            _ => None,
        }
    }

    /// Its ticket.
    pub fn ticket(&self) -> TicketId {
        self.ticket.id
    }

    /// The driver at `address`, used under this lease.
    pub fn driver(&self, address: &Address) -> DriverRef {
        self.ticket.client().driver(address).under(self.epoch)
    }

    /// How it stands, as far as this client knows.
    pub fn stands(&self) -> Leased {
        self.now.borrow().clone()
    }

    /// Resolves when it is over, with why. Cancel safe.
    pub async fn ended(&self) -> (LeaseEnd, String) {
        let mut now = self.now.clone();
        let over = now.wait_for(|now| matches!(now, Leased::Ended { .. })).await;
        match over.as_deref() {
            Ok(Leased::Ended { why, text }) => (why.clone(), text.clone()),
            _ => (LeaseEnd::Released, String::new()), // the client was closed
        }
    }

    /// Lets it last this long from now.
    ///
    /// # Errors
    ///
    /// [`LeaseError`], also if it is over.
    pub async fn renew(&self, duration: Duration) -> Result<Held, LeaseError> {
        self.ticket.hold(LeaseAction::Renew { duration_ms: ms(duration) }).await
    }

    /// Lets another client use it too.
    ///
    /// # Errors
    ///
    /// As [`renew`](Self::renew).
    pub async fn allow(&self, client: ClientName) -> Result<Held, LeaseError> {
        self.ticket.hold(LeaseAction::Allow { client, revoke: false }).await
    }

    /// Gives what is left of it to another client.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; it is still held then.
    pub async fn transfer(mut self, to: ClientName) -> Result<(), LeaseError> {
        match self.ticket.say(LeaseAction::Transfer { to }).await? {
            Leased::Refused(refusal) => Err(self.ticket.refused(refusal)),
            _ => {
                self.kept = true;
                Ok(())
            }
        }
    }

    /// Gives it back, and returns when the exporter knows.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] if the exporter does not answer; the lease then ends by its silence.
    pub async fn release(mut self) -> Result<(), LeaseError> {
        self.kept = true;
        self.ticket.say(LeaseAction::Release).await.map(drop)
    }

    /// Lets go of the value and not of the lease, which goes on by itself if it was asked for as
    /// [detached](LeaseRequest::detached).
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.kept && !matches!(*self.now.borrow(), Leased::Ended { .. }) {
            self.ticket.release_later();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("address", &self.address().to_string())
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Gives signs of life until the lease is over or let go of.
async fn renew(ticket: Ticket, told: watch::Sender<Leased>, stop: CancellationToken) {
    let client_stop = ticket.client().0.stop.clone();
    let mut heard = Instant::now();
    loop {
        let (pause, until) = terms(&told.borrow(), heard);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = client_stop.cancelled() => return,
            () = ticket.changed() => {}
            () = sleep(pause) => {}
            () = sleep_until(until) => {}
        }
        // Whoever was stopped for long hears first what has become of it.
        let by = until.max(Instant::now() + SLACK);
        let stands = match timeout_at(by, ticket.say(ticket.alive())).await {
            Ok(Ok(stands)) => stands,
            // An exporter that does not answer may be back before the lease is over.
            Ok(Err(_)) if Instant::now() < until => continue,
            // Nobody is gone because we cannot hear them.
            Ok(Err(_)) | Err(_)
                if is_starting(&told.borrow()) && !ticket.client().0.control().is_connected() =>
            {
                heard = Instant::now();
                continue;
            }
            Ok(Err(_)) | Err(_) => {
                let text = "its time is over, and its exporter does not answer".to_owned();
                Leased::Ended { why: LeaseEnd::Expired, text }
            }
        };
        heard = Instant::now();
        let over = matches!(stands, Leased::Ended { .. });
        told.send_replace(stands);
        if over {
            return;
        }
    }
}

fn is_starting(stands: &Leased) -> bool {
    matches!(stands, Leased::Held(Held { starting: true, .. }))
}

/// When a lease is asked about next, and when it is over without an answer.
fn terms(stands: &Leased, heard: Instant) -> (Duration, Instant) {
    let Leased::Held(held) = stands else { return (LOOK_EVERY, heard + LOOK_EVERY) };
    let left = Duration::from_millis(held.left_ms) + SLACK;
    match held {
        // Nothing can be done with it yet: there is nothing to keep.
        Held { starting: true, .. } => (LOOK_STARTING, heard + left.min(STARTING_GONE)),
        Held { keep_alive_ms: Some(ms), .. } => (Duration::from_millis(*ms) / 3, heard + left),
        _ => (LOOK_EVERY, heard + left),
    }
}

impl Client {
    /// Commands the lease that this client holds at `address`, by whichever process it was taken.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    pub async fn command_lease(
        &self,
        address: &Address,
        action: LeaseAction,
    ) -> Result<Leased, LeaseError> {
        let ask = LeaseAsk { ticket: None, path: address.path.clone(), driver: None, action };
        match say(&self.0, address, ask).await? {
            Leased::Refused(refusal) => {
                Err(LeaseError::Refused { address: address.to_string(), refusal })
            }
            stands => Ok(stands),
        }
    }

    /// What can be leased at an exporter, who has it, and who waits.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    pub async fn board(&self, exporter: &ExporterName) -> Result<Board, LeaseError> {
        let ask =
            LeaseAsk { ticket: None, path: Path::ROOT, driver: None, action: LeaseAction::Status };
        let to = To::Exporter(ExporterVerb::Lease);
        ticket::request(&self.0, exporter, to, codec::encode(&ask)).await
    }

    /// Ends the lease at `address`, or what `ticket` is there. For admins.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; a broker that takes this client for no admin lets no answer come.
    pub async fn kick(
        &self,
        address: &Address,
        ticket: Option<TicketId>,
        reason: String,
    ) -> Result<String, LeaseError> {
        self.administer(address, AdminAction::Kick { reason, ticket }).await
    }

    /// Closes the subtree at `address` and all that lie within it: nothing is granted there until
    /// [`resume`](Self::resume). With `maintenance` this client may use it while nobody has it.
    /// For admins.
    ///
    /// # Errors
    ///
    /// As [`kick`](Self::kick).
    pub async fn drain(
        &self,
        address: &Address,
        reason: String,
        maintenance: bool,
    ) -> Result<String, LeaseError> {
        self.administer(address, AdminAction::Drain { reason, maintenance }).await
    }

    /// Opens again what [`drain`](Self::drain) has closed. For admins.
    ///
    /// # Errors
    ///
    /// As [`kick`](Self::kick).
    pub async fn resume(&self, address: &Address) -> Result<String, LeaseError> {
        self.administer(address, AdminAction::Resume).await
    }

    /// Makes an exporter read its configuration anew. For admins.
    ///
    /// # Errors
    ///
    /// As [`kick`](Self::kick); the refusal of a configuration says what is wrong with it.
    pub async fn reload(&self, exporter: &ExporterName) -> Result<String, LeaseError> {
        let ask = AdminAsk { path: Path::ROOT, driver: None, action: AdminAction::Reload };
        let to = To::Exporter(ExporterVerb::Admin);
        // Answered when it is done, and a device may take its time to be made safe.
        let asked = self.0.ask_exporter(exporter, to, codec::encode(&ask), RELOADED_WITHIN).await;
        let answer = asked.map_err(|error| match error {
            CallError::NoDriver { .. } => LeaseError::NoExporter { exporter: exporter.to_string() },
            CallError::TimedOut { .. } => LeaseError::Silent { exporter: exporter.to_string() },
            other => LeaseError::Bus(other.to_string()),
        })?;
        match codec::decode(answer.payload()) {
            Ok(Administered::Done { text }) => Ok(text),
            Ok(Administered::Refused(refusal)) => {
                Err(LeaseError::Refused { address: exporter.to_string(), refusal })
            }
            Err(error) => Err(LeaseError::Garbled(error.to_string())),
        }
    }

    async fn administer(
        &self,
        address: &Address,
        action: AdminAction,
    ) -> Result<String, LeaseError> {
        let ask = AdminAsk { path: address.path.clone(), driver: None, action };
        let to = To::Exporter(ExporterVerb::Admin);
        match ticket::request(&self.0, &address.exporter, to, codec::encode(&ask)).await? {
            Administered::Done { text } => Ok(text),
            Administered::Refused(refusal) => {
                Err(LeaseError::Refused { address: address.to_string(), refusal })
            }
        }
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
