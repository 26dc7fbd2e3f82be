//! A client: who uses drivers.

mod attach;
mod calls;
mod delivery;
mod driver;
mod error;
mod items;
mod lease;
mod mailroom;
mod open;
mod outbox;
mod parts;

use std::{fmt, sync::Arc, time::Duration};

use bus_schema::{
    Address, ClientName, DriverId, ExporterName, HookId, Incarnation, Root, Session, codec,
    message::{Ping, Pong},
    subject::{CLAIMANT, ExporterVerb, FromClient, Inbox, To},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::calls::Calls;
pub(crate) use self::mailroom::Mailroom;
pub(crate) use self::parts::{plug, speak};
pub use self::{
    attach::Attached,
    driver::DriverRef,
    error::CallError,
    items::{ItemBytes, ItemStream},
    lease::{Lease, LeaseError, LeaseRequest, OnWait, PlaceLease, Waiting},
    open::StartedCall,
};
use crate::{
    Found, Settings,
    bus::{Bus, BusError, Conn, Subject, random},
    stream::{Budget, Switchboard},
};

/// A connection of one client to the bus. Cheap to clone; the last clone's end closes it.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) root: Root,
    pub(crate) name: ClientName,
    pub(crate) session: Session,
    /// The exporter that it is a hook of: it hears no other.
    pub(crate) only: Option<ExporterName>,
    pub(crate) inbox: Inbox,
    /// The reply subject of what has no answer.
    pub(crate) mark: Subject,
    pub(crate) bus: Bus,
    pub(crate) calls: Calls,
    pub(crate) mailroom: Mailroom,
    outbox: outbox::Outbox,
    pub(crate) tickets: lease::Tickets,
    pub(crate) switchboard: Switchboard,
    pub(crate) budget: Budget,
    /// Set when the bulk connection and its subscriptions are there.
    bulk: tokio::sync::OnceCell<Conn>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Client {
    /// Connects as `name` under `root`.
    ///
    /// # Errors
    ///
    /// [`BusError`] if the broker cannot be reached or does not let this client subscribe.
    pub async fn connect(
        settings: Settings,
        root: Root,
        name: ClientName,
    ) -> Result<Self, BusError> {
        let session = Session(random());
        let inbox = Inbox::of_client(&root, &name, session);
        Self::open(settings, root, name, session, inbox, None).await
    }

    /// Connects as a process of a hook of `exporter`: see PROTOCOL.md §14.5. It may use the drivers of its own subtree, until the hook has ended.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_as_hook(
        settings: Settings,
        root: Root,
        exporter: ExporterName,
        hook: HookId,
    ) -> Result<Self, BusError> {
        let own = u32::try_from(random() >> 32).expect("half of it");
        let session = Session::of_hook(hook, own);
        let name = CLAIMANT.parse().expect("a name");
        let inbox = Inbox::of_exporter(&root, &exporter, Incarnation(session.0));
        Self::open(settings, root, name, session, inbox, Some(exporter)).await
    }

    async fn open(
        settings: Settings,
        root: Root,
        name: ClientName,
        session: Session,
        inbox: Inbox,
        only: Option<ExporterName>,
    ) -> Result<Self, BusError> {
        let bus = Bus::connect(settings, &format!("jmp-bus client {name}")).await?;
        let stop = CancellationToken::new();
        let mark = match &only {
            Some(exporter) => Inbox::mark_of_exporter(&root, exporter),
            None => Inbox::mark_of_client(&root, &name),
        };
        let inner = Arc::new(Inner {
            calls: Calls::new(session),
            mailroom: Mailroom::default(),
            outbox: outbox::Outbox::default(),
            tickets: lease::Tickets::default(),
            switchboard: Switchboard::default(),
            budget: Budget::default(),
            bulk: tokio::sync::OnceCell::new(),
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            root,
            name,
            session,
            only,
            inbox,
            mark: mark.into(),
            bus,
            stop,
        });
        mailroom::open(&inner).await?;
        inner.tasks.spawn(outbox::post(Arc::downgrade(&inner), inner.stop.clone()));
        inner.tasks.spawn(calls::ask_about_silent_ones(Arc::downgrade(&inner), inner.stop.clone()));
        Ok(Self(inner))
    }

    /// Its name.
    pub fn name(&self) -> &ClientName {
        &self.0.name
    }

    /// The exporter that it is a hook of, if it is one.
    pub fn is_hook_of(&self) -> Option<&ExporterName> {
        self.0.only.as_ref()
    }

    /// The first token of its subjects.
    pub fn root(&self) -> &Root {
        &self.0.root
    }

    /// The driver at `address`. Nothing is asked of anybody: an address is a subject.
    pub fn driver(&self, address: &Address) -> DriverRef {
        let id = DriverId::at(&address.exporter, &address.path);
        DriverRef::new(self.clone(), address.exporter.clone(), id, Some(address.clone()))
    }

    /// A driver that the registry knows, whatever its UUID.
    pub fn driver_found(&self, found: &Found) -> DriverRef {
        let Found { exporter, record } = found;
        DriverRef::new(self.clone(), exporter.clone(), record.id, found.address().ok())
    }

    /// A driver of `exporter` by its UUID.
    pub fn driver_by_id(&self, exporter: ExporterName, id: DriverId) -> DriverRef {
        DriverRef::new(self.clone(), exporter, id, None)
    }

    /// Asks an exporter whether it is there.
    ///
    /// # Errors
    ///
    /// [`CallError::NoDriver`] if nobody listens under that name, [`CallError::TimedOut`] if
    /// nobody answers within `patience`.
    pub async fn ping(
        &self,
        exporter: &ExporterName,
        patience: Duration,
    ) -> Result<Pong, CallError> {
        let to = To::Exporter(ExporterVerb::Ping);
        let answer = self.0.ask_exporter(exporter, to, codec::encode(&Ping {}), patience).await?;
        codec::decode(answer.payload()).map_err(|error| CallError::Garbled(error.to_string()))
    }

    /// The broker's version, and whether it has JetStream.
    pub fn server(&self) -> (String, bool) {
        self.0.bus.control.server()
    }

    /// Largest message that the broker takes, in bytes.
    pub fn max_payload(&self) -> usize {
        self.0.control().max_payload()
    }

    /// Whether the broker asked for a proof of something: strangers are kept out.
    pub fn is_authenticated(&self) -> bool {
        self.0.bus.control.is_authenticated()
    }

    /// Whether the broker knows its users apart. A token is the same for all.
    pub fn is_vouched_for(&self) -> bool {
        self.0.bus.control.vouches()
    }

    /// Delivers what is on its way, then closes.
    pub async fn close(self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        // Streams that still have something to say get a moment for it.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.0.tasks.wait()).await;
        self.0.bus.close().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.0.name)
            .field("root", &self.0.root)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn control(&self) -> &Conn {
        &self.bus.control
    }

    /// The bulk connection with its subscriptions, opened when data first moves.
    pub(crate) async fn bulk(self: &Arc<Self>) -> Result<&Conn, BusError> {
        self.bulk.get_or_try_init(|| async { mailroom::open_bulk(self).await.cloned() }).await
    }

    /// The subject of something asked of an exporter, or of one of its drivers.
    pub(crate) fn subject(&self, exporter: &ExporterName, to: To) -> String {
        let subject = FromClient { client: self.name.clone(), exporter: exporter.clone(), to };
        subject.under(&self.root)
    }
}
