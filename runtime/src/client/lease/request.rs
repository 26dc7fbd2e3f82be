//! How a lease is come by: one, the first of many, or a set of which all are had or none.

use std::{fmt, sync::Arc, time::Duration};

use bus_schema::{
    Acquire, Address, ClientName, LeaseAction, LeaseEnd, Leased, PlaceName,
    limits::{LEASE_ALIVE, OFFER_HELD},
};
use futures_util::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Client, Lease, LeaseError, ms, ticket::Ticket};
use crate::bus::random;

/// News may be lost: how a ticket stands is asked this often. A third of what makes it be dropped.
const POLL_EVERY: Duration = Duration::from_secs(LEASE_ALIVE.as_secs() / 6);
/// The first look comes soon: the news of an offer may have been lost.
const POLL_FIRST: Duration = Duration::from_secs(1);
/// An exporter ends a wait that is over; one that has not after this time is away.
const SLACK: Duration = Duration::from_secs(2);
/// An offer is not held to its last moment: the confirmation has to arrive.
const HOLD_MAX: Duration = Duration::from_millis(OFFER_HELD.as_millis() as u64 * 7 / 10);
/// Sets that have some of each other's members let go after different times.
const HOLD_MIN: Duration = Duration::from_secs(1);
/// After that a set does not take the same offers again for a random time up to this.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct LeaseRequest {
    /// How long; without one, as the exporter's configuration says.
    pub duration: Option<Duration>,
    /// How long to wait for it; zero is not at all.
    pub wait: Duration,
    /// How urgent it is.
    pub priority: u64,
    /// It goes on to its end without signs of life.
    pub detached: bool,
    /// The place that it is leased as a part of, as lists show it: see
    /// [`Client::lease_place`].
    pub place: Option<PlaceName>,
    /// Is told how it waits.
    pub on_wait: OnWait,
}

/// How a request for a lease waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// For what.
    pub address: Address,
    /// How many are before it.
    pub before: u64,
    /// Who has it now.
    pub holder: Option<ClientName>,
    /// For how long at most.
    pub left: Option<Duration>,
}

/// Somebody who wants to hear how a request [waits](Waiting), or nobody.
#[derive(Clone, Default)]
pub struct OnWait(Option<Arc<Hear>>);

type Hear = dyn Fn(&Waiting) + Send + Sync;

impl OnWait {
    /// Calls `hear` when a wait begins, and when it changes.
    pub fn new(hear: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    fn tell(&self, waiting: &Waiting) {
        if let Some(hear) = &self.0 {
            hear(waiting);
        }
    }
}

impl fmt::Debug for OnWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnWait(..)" } else { "OnWait" })
    }
}

impl LeaseRequest {
    fn acquire(&self, confirm: bool) -> LeaseAction {
        LeaseAction::Acquire(Acquire {
            duration_ms: self.duration.map_or(0, ms),
            wait_ms: ms(self.wait),
            priority: self.priority,
            confirm,
            detached: self.detached,
            place: self.place.clone(),
        })
    }
}

impl Client {
    /// Leases the subtree of the driver at `address`. Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    pub async fn lease(
        &self,
        address: &Address,
        request: &LeaseRequest,
    ) -> Result<Lease, LeaseError> {
        let mut leases = self.leases(std::slice::from_ref(address), 1, request).await?;
        leases.pop().ok_or(LeaseError::TooFew { wanted: 1, found: 0 })
    }

    /// Leases `count` of these, whichever can be had first; all of that many, or none.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]; nothing is held then.
    pub async fn leases(
        &self,
        addresses: &[Address],
        count: usize,
        request: &LeaseRequest,
    ) -> Result<Vec<Lease>, LeaseError> {
        if addresses.len() < count {
            return Err(LeaseError::TooFew { wanted: count, found: addresses.len() });
        }
        let changed = Arc::new(Notify::new());
        let mut tickets = Vec::with_capacity(addresses.len());
        for address in addresses {
            let ticket = Ticket::new(self, address.clone(), changed.clone()).await?;
            tickets.push(Wanted { ticket, stands: None, lost: None, taken: false, told: None });
        }
        Set { wanted: tickets, count, request, changed, hold_until: None, attempts: 0 }.run().await
    }
}

/// One ticket of a set. Dropped before it became a lease, it is given back.
struct Wanted {
    ticket: Ticket,
    stands: Option<Leased>,
    /// Why it cannot be had.
    lost: Option<LeaseError>,
    /// It became a lease.
    taken: bool,
    /// What was told of its wait.
    told: Option<(u64, Option<ClientName>)>,
}

impl Wanted {
    fn is_offered(&self) -> bool {
        let offered = matches!(self.stands, Some(Leased::Offered { .. } | Leased::Held(_)));
        self.lost.is_none() && offered
    }

    fn is_held(&self) -> bool {
        self.lost.is_none() && matches!(self.stands, Some(Leased::Held(_)))
    }

    async fn say(&mut self, action: LeaseAction) {
        if self.lost.is_none() {
            let answer = self.ticket.say(action).await;
            self.hear(answer);
        }
    }

    /// Asks how it stands. An exporter that is away may be back in time; one that was restarted
    /// knows nothing of who waited, and is asked `again`.
    async fn look(&mut self, again: LeaseAction) {
        if self.lost.is_some() {
            return;
        }
        match self.ticket.say(self.ticket.alive()).await {
            Ok(Leased::Ended { why: LeaseEnd::Unknown, .. }) => self.say(again).await,
            Err(LeaseError::NoExporter { .. } | LeaseError::Silent { .. }) => {}
            answer => self.hear(answer),
        }
    }

    fn hear(&mut self, answer: Result<Leased, LeaseError>) {
        match answer {
            Ok(Leased::Ended { why: LeaseEnd::TimedOut, .. }) => {
                let (address, holder) = (self.ticket.address.to_string(), self.holder());
                self.lost = Some(LeaseError::TimedOut { address, waited: Duration::ZERO, holder });
            }
            Ok(stands @ (Leased::Ended { .. } | Leased::Refused(_))) => {
                self.lost = Some(self.ticket.ended(stands));
            }
            Ok(stands) => self.stands = Some(stands),
            Err(error) => self.lost = Some(error),
        }
    }

    fn holder(&self) -> Option<String> {
        match &self.stands {
            Some(Leased::Waiting { holder, .. }) => holder.as_ref().map(ToString::to_string),
            _ => None,
        }
    }

    /// Tells how it waits, if that has changed.
    fn tell(&mut self, on_wait: &OnWait) {
        let Some(Leased::Waiting { before, holder, left_ms }) = &self.stands else { return };
        let now = Some((*before, holder.clone()));
        if self.lost.is_none() && self.told != now {
            let left = left_ms.map(Duration::from_millis);
            let (address, before, holder) = (self.ticket.address.clone(), *before, holder.clone());
            on_wait.tell(&Waiting { address, before, holder, left });
            self.told = now;
        }
    }

    fn take_lease(&mut self) -> Option<Lease> {
        match &self.stands {
            Some(Leased::Held(held)) if self.lost.is_none() => {
                self.taken = true;
                Some(Lease::new(self.ticket.clone(), held.clone()))
            }
            _ => None,
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let was_asked_for = self.stands.is_some();
        if !self.taken && self.lost.is_none() && was_asked_for {
            self.ticket.release_later();
        }
    }
}

/// Tickets of which `count` are to become leases.
struct Set<'a> {
    wanted: Vec<Wanted>,
    count: usize,
    request: &'a LeaseRequest,
    changed: Arc<Notify>,
    /// Offers are held until then.
    hold_until: Option<Instant>,
    attempts: u32,
}

impl Set<'_> {
    async fn run(mut self) -> Result<Vec<Lease>, LeaseError> {
        let began = Instant::now();
        // One address may be confirmed in the same message.
        let confirm = self.wanted.len() == 1;
        for wanted in &mut self.wanted {
            // From here on it is given back when it is dropped.
            wanted.stands = Some(Leased::Waiting { before: 0, holder: None, left_ms: None });
        }
        let acquire = self.request.acquire(confirm);
        join_all(self.wanted.iter_mut().map(|wanted| wanted.say(acquire.clone()))).await;
        let mut poll_at = Instant::now() + POLL_FIRST;
        loop {
            self.wanted.iter_mut().for_each(|wanted| wanted.tell(&self.request.on_wait));
            self.check(began)?;
            if self.offered() >= self.count
                && let Some(leases) = self.take().await
            {
                return leases;
            }
            if self.request.wait.is_zero() {
                return Err(self.first_loss(began));
            }
            let hold_until = self.hold();
            tokio::select! {
                biased;
                () = self.changed.notified() => self.look(began).await,
                () = sleep_until(hold_until.unwrap_or(poll_at)), if hold_until.is_some() => {
                    self.let_go().await;
                }
                () = sleep_until(poll_at) => {
                    self.look(began).await;
                    if began.elapsed() > self.request.wait + SLACK {
                        return Err(self.too_long(began)); // by our clock: the exporter is away
                    }
                    let late = began + self.request.wait + SLACK;
                    poll_at = (Instant::now() + POLL_EVERY).min(late.max(Instant::now() + POLL_FIRST));
                }
            }
        }
    }

    fn offered(&self) -> usize {
        self.wanted.iter().filter(|wanted| wanted.is_offered()).count()
    }

    fn held(&self) -> usize {
        self.wanted.iter().filter(|wanted| wanted.is_held()).count()
    }

    /// Asks how each ticket stands.
    async fn look(&mut self, began: Instant) {
        let wait = self.request.wait.saturating_sub(began.elapsed());
        let left = LeaseRequest { wait, ..self.request.clone() };
        let again = left.acquire(false);
        join_all(self.wanted.iter_mut().map(|wanted| wanted.look(again.clone()))).await;
    }

    fn too_long(&self, began: Instant) -> LeaseError {
        let waits = self.wanted.iter().find(|wanted| !wanted.is_offered());
        match waits {
            Some(wanted) => LeaseError::TimedOut {
                address: wanted.ticket.address.to_string(),
                holder: wanted.holder(),
                waited: began.elapsed(),
            },
            None => self.first_loss(began),
        }
    }

    /// Confirms as many offers as are wanted. `None` if some were gone already: what was taken of
    /// the others is given back, and asked for anew.
    async fn take(&mut self) -> Option<Result<Vec<Lease>, LeaseError>> {
        // One that was confirmed with the request itself is held already.
        let missing = self.count.saturating_sub(self.held());
        let only_offered = |wanted: &&mut Wanted| wanted.is_offered() && !wanted.is_held();
        let offers = self.wanted.iter_mut().filter(only_offered).take(missing);
        join_all(offers.map(|wanted| wanted.say(LeaseAction::Confirm))).await;
        if self.held() < self.count {
            self.start_over().await;
            return None;
        }
        let leases = self.wanted.iter_mut().filter_map(Wanted::take_lease);
        let leases: Vec<_> = leases.take(self.count).collect();
        match started(&leases).await {
            Ok(()) => Some(Ok(leases)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Gives everything back, and asks for it again.
    async fn start_over(&mut self) {
        let tickets = std::mem::take(&mut self.wanted);
        for wanted in tickets {
            let client = wanted.ticket.client();
            let address = wanted.ticket.address.clone();
            let lost = wanted.lost.clone();
            drop(wanted);
            let Ok(ticket) = Ticket::new(&client, address, self.changed.clone()).await else {
                return;
            };
            let stands = Some(Leased::Waiting { before: 0, holder: None, left_ms: None });
            self.wanted.push(Wanted { ticket, stands, lost, taken: false, told: None });
        }
        let acquire = self.request.acquire(false);
        join_all(self.wanted.iter_mut().map(|wanted| wanted.say(acquire.clone()))).await;
        self.hold_until = None;
    }

    /// Until when the offers that are there are held for the others to come.
    fn hold(&mut self) -> Option<Instant> {
        self.hold_until = match self.offered() {
            0 => None,
            _ => self.hold_until.or_else(|| {
                let spread = ms(HOLD_MAX - HOLD_MIN);
                let hold = HOLD_MIN + Duration::from_millis(random() % spread);
                Some(Instant::now() + hold)
            }),
        };
        self.hold_until
    }

    /// Declines what is offered: somebody else may be able to use it. Each time the pause may be
    /// longer, so that two sets that want each other's members do not meet for ever.
    async fn let_go(&mut self) {
        self.attempts += 1;
        let longest = ms(PAUSE_FIRST).saturating_mul(u64::from(self.attempts.min(8)));
        let pause_ms = ms(PAUSE_FIRST) / 10 + random() % longest;
        let offers = self.wanted.iter_mut().filter(|wanted| wanted.is_offered());
        join_all(offers.map(|wanted| wanted.say(LeaseAction::Decline { pause_ms }))).await;
        self.hold_until = None;
    }

    /// Fails if too few can still be had.
    fn check(&self, began: Instant) -> Result<(), LeaseError> {
        let open = self.wanted.iter().filter(|wanted| wanted.lost.is_none()).count();
        match open >= self.count {
            true => Ok(()),
            false => Err(self.first_loss(began)),
        }
    }

    fn first_loss(&self, began: Instant) -> LeaseError {
        let found = self.wanted.iter().filter(|wanted| wanted.lost.is_none()).count();
        match self.wanted.iter().find_map(|wanted| wanted.lost.clone()) {
            Some(LeaseError::TimedOut { address, holder, .. }) => {
                LeaseError::TimedOut { address, holder, waited: began.elapsed() }
            }
            Some(error) => error,
            None => LeaseError::TooFew { wanted: self.count, found },
        }
    }
}

/// Waits until the hooks before the leases have ended.
async fn started(leases: &[Lease]) -> Result<(), LeaseError> {
    for lease in leases {
        let mut now = lease.now.clone();
        let ready = now.wait_for(|now| !matches!(now, Leased::Held(held) if held.starting)).await;
        let over = ready.map_or(None, |now| match &*now {
            Leased::Held(_) => None,
            other => Some(other.clone()),
        });
        if let Some(over) = over {
            return Err(lease.ticket.ended(over));
        }
    }
    Ok(())
}
