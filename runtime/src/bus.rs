//! A connection to the broker. The only module that names `async_nats`.

mod certificate;
mod checkup;
mod denial;
pub mod floor;
mod options;
mod streams;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{ConnectErrorKind, ConnectOptions, HeaderMap, StatusCode, connection::State};
use bus_schema::{ExporterName, Root, subject::Inbox};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Instant, sleep, timeout},
};

pub(crate) use self::denial::{Denial, Denials};
pub(crate) use self::streams::captured;
pub use self::streams::{Keep, StreamsKeep};
use self::streams::{check_streams, make_streams};
pub use self::{
    certificate::{Certificate, Unseen},
    checkup::Checkup,
    denial::{Action, TurnedAway},
};
pub(crate) use async_nats::Subject;

/// How often a state that sends no event is looked at. async-nats' events may be lost (they pass
/// a full channel by `try_send`), so nothing is based on them.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One connection. Cheap to clone.
///
/// Nothing is handed to async-nats while it is disconnected: it would be sent after the
/// reconnect, when the caller may long have given up. Publishing waits instead, and what waits
/// can be dropped.
#[derive(Clone)]
pub(crate) struct Conn {
    nats: async_nats::Client,
    pub(crate) denials: Denials,
    /// Whether we proved who we are, and not only that we know a token that all share.
    proved: bool,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("state", &self.nats.connection_state()).finish_non_exhaustive()
    }
}

/// Why the broker could not be reached or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No connection came about.
    #[error("cannot connect to the broker at {server}: {source}")]
    Connect {
        /// Its URL.
        server: String,
        /// What async-nats says.
        source: async_nats::ConnectError,
    },
    /// The broker let us in no more, or never did.
    #[error("the broker does not let us in: {0}")]
    TurnedAway(#[from] TurnedAway),
    /// The broker does not let us do this.
    #[error("not allowed by the broker: {who} may not {action} {subject}")]
    Denied {
        /// Who we are.
        who: String,
        /// What we wanted.
        action: Action,
        /// Where.
        subject: String,
    },
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] crate::SettingsError),
    /// The connection was closed for good.
    #[error("the connection to the broker is closed")]
    Closed,
    /// The broker has been away for too long.
    #[error("the broker has been away for {0:?}")]
    Away(Duration),
    /// A subscription's sentinel did not come back.
    #[error("the broker did not confirm a subscription within {0:?}")]
    Unconfirmed(Duration),
    /// The broker is not as it must be.
    #[error("{0}")]
    Unfit(String),
}

impl BusError {
    /// Whether it is the encryption that did not come about.
    pub fn is_about_tls(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        // A certificate that is not accepted comes as an I/O error, with rustls' words in it.
        source.kind() == ConnectErrorKind::Tls || source.to_string().contains("certificate")
    }

    /// Whether the broker's certificate has ended.
    pub fn is_about_an_old_certificate(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        source.to_string().contains("certificate expired")
    }
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Whether it has JetStream.
    pub jetstream: bool,
    /// Whether it asks for a proof of identity.
    pub asks_who_one_is: bool,
    /// Whether it takes encrypted connections only.
    pub asks_for_tls: bool,
    /// The largest message it takes.
    pub max_payload: usize,
}

/// A message as it came in.
#[derive(Debug)]
pub(crate) struct Incoming(async_nats::Message);

impl Incoming {
    pub(crate) fn subject(&self) -> &str {
        self.0.subject.as_str()
    }

    pub(crate) fn reply(&self) -> Option<&str> {
        self.0.reply.as_ref().map(|reply| reply.as_str())
    }

    /// The same, to be kept.
    pub(crate) fn reply_subject(&self) -> Option<&Subject> {
        self.0.reply.as_ref()
    }

    pub(crate) fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    pub(crate) fn into_payload(self) -> Bytes {
        self.0.payload
    }

    /// Its body; the message has it no more.
    pub(crate) fn take_payload(&mut self) -> Bytes {
        std::mem::take(&mut self.0.payload)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.as_ref()?.get(name).map(|value| value.as_str())
    }

    /// Whether the broker says that nobody listens on the subject of the request.
    pub(crate) fn is_no_responders(&self) -> bool {
        self.0.status == Some(StatusCode::NO_RESPONDERS)
    }

    /// The status of an answer without a body (404: JetStream has no such message).
    pub(crate) fn status(&self) -> Option<u16> {
        self.0.status.map(|status| status.as_u16())
    }

    /// Whether this answer is a stored message: then JetStream said it, whoever's it is.
    pub(crate) fn is_from_jetstream(&self) -> bool {
        self.header("Nats-Stream").is_some()
    }

    /// Whether `exporter` said this, which its subject names: its reply subject is an inbox of that
    /// exporter. JetStream can be made to publish on any subject, and names no such reply subject.
    pub(crate) fn is_of(&self, exporter: &ExporterName, root: &Root) -> bool {
        self.reply().is_some_and(|reply| Inbox::is_of_exporter(reply, root, exporter))
    }
}

/// A subscription. Dropping it unsubscribes.
#[derive(Debug)]
pub(crate) struct Subscription(async_nats::Subscriber);

impl Subscription {
    /// The next message; `None` when the connection was closed. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        self.0.next().await.map(Incoming)
    }

    /// The next message, if one is here.
    pub(crate) fn ready(&mut self) -> Option<Incoming> {
        self.0.next().now_or_never().flatten().map(Incoming)
    }
}

impl Conn {
    /// Connects to the first of `servers` that lets us.
    async fn connect(
        servers: &[String],
        options: ConnectOptions,
        proved: bool,
    ) -> Result<Self, BusError> {
        let denials = Denials::default();
        let noting = denials.clone();
        let options = options.event_callback(move |event| {
            noting.on_event(&event);
            std::future::ready(())
        });
        let connecting = options.subscription_capacity(SUBSCRIPTION_CAPACITY).connect(servers);
        let nats = connecting.await.map_err(|source| match source.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                BusError::TurnedAway(TurnedAway::Unknown)
            }
            // Credentials that end in this moment are told of after the greeting, in words.
            _ => match TurnedAway::read(&source.to_string()) {
                Some(why) => BusError::TurnedAway(why),
                None => BusError::Connect { server: servers.join(", "), source },
            },
        })?;
        Ok(Self { nats, denials, proved })
    }

    /// Largest message the broker takes, headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.nats.max_payload()
    }

    /// Whether the broker asked for a proof of something: strangers are kept out.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.nats.server_info().auth_required
    }

    /// Whether the broker knows its users apart. If not, the client's name in a subject is what
    /// anybody says it is. (A token is the same for all.)
    pub(crate) fn vouches(&self) -> bool {
        self.is_authenticated() && self.proved
    }

    /// The broker's version and whether it has JetStream.
    pub(crate) fn server(&self) -> (String, bool) {
        let info = self.nats.server_info();
        (info.version, info.jetstream)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.nats.connection_state() == State::Connected
    }

    /// Counts connections: it has moved if there was a reconnect in between.
    pub(crate) fn connects(&self) -> u64 {
        self.nats.statistics().connects.load(Ordering::Relaxed)
    }

    /// Bytes that were read and written so far.
    pub(crate) fn bytes(&self) -> [u64; 2] {
        let counted = self.nats.statistics();
        [&counted.in_bytes, &counted.out_bytes].map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// Waits until there is a connection. Cancel safe.
    pub(crate) async fn connected(&self) {
        if !self.is_connected() {
            // Boxed, as is all that is rare: every call carries the size of its largest path.
            Box::pin(self.reconnected()).await;
        }
    }

    /// Waits until there is a connection, unless the broker lets us in no more. Cancel safe.
    pub(crate) async fn reached(&self) -> Result<(), BusError> {
        if self.is_connected() {
            return Ok(());
        }
        Box::pin(async {
            while !self.is_connected() {
                if let Some(why) = self.denials.turned_away() {
                    return Err(why.into());
                }
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
        .await
    }

    async fn reconnected(&self) {
        while !self.is_connected() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Publishes once there is a connection. Cancel safe: what was not handed over is not sent.
    pub(crate) async fn publish(
        &self,
        subject: impl Into<Subject>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        self.connected().await;
        self.nats.publish(subject.into(), payload).await.map_err(|_| BusError::Closed)
    }

    /// Publishes a request once there is a connection. Cancel safe, as [`publish`](Self::publish).
    pub(crate) async fn request(
        &self,
        subject: impl Into<Subject>,
        reply: impl Into<Subject>,
        payload: Bytes,
    ) -> Result<(), BusError> {
        self.connected().await;
        let sent = self.nats.publish_with_reply(subject.into(), reply.into(), payload);
        sent.await.map_err(|_| BusError::Closed)
    }

    /// Publishes what has no answer, with the [mark](bus_schema::subject::Inbox::mark_of_exporter)
    /// of whoever says it. Cancel safe, as [`publish`](Self::publish).
    pub(crate) async fn say(
        &self,
        subject: impl Into<Subject>,
        mark: &Subject,
        payload: Bytes,
    ) -> Result<(), BusError> {
        self.request(subject, mark.clone(), payload).await
    }

    /// Publishes with headers, for JetStream and for the service API's errors.
    pub(crate) async fn publish_with(
        &self,
        subject: impl Into<Subject>,
        reply: Option<String>,
        headers: &[(&'static str, &str)],
        payload: Bytes,
    ) -> Result<(), BusError> {
        self.connected().await;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, one_line(value).as_str());
        }
        let subject = subject.into();
        let sent = match reply {
            Some(reply) => {
                self.nats.publish_with_reply_and_headers(subject, reply, map, payload).await
            }
            None => self.nats.publish_with_headers(subject, map, payload).await,
        };
        sent.map_err(|_| BusError::Closed)
    }

    /// One question that is answered to an inbox of NATS's own form.
    pub(crate) async fn ask(
        &self,
        subject: String,
        body: Bytes,
        patience: Duration,
    ) -> Result<Incoming, BusError> {
        let inbox = self.nats.new_inbox();
        self.asked(subject, inbox, body, patience, "this user").await
    }

    /// One question that is answered to `reply`; `who` is told if the broker does not allow it.
    pub(crate) async fn asked(
        &self,
        subject: String,
        reply: String,
        body: Bytes,
        patience: Duration,
        who: &str,
    ) -> Result<Incoming, BusError> {
        let (mut denied, mut denied_reply) = (self.denials.listen(), self.denials.listen());
        let mut answers = self.subscribe(reply.clone()).await?;
        self.request(subject.clone(), reply.clone(), body).await?;
        tokio::select! {
            answer = timeout(patience, answers.next()) => match answer {
                Ok(answer) => answer.ok_or(BusError::Closed),
                Err(_) => Err(BusError::Unfit(format!("no answer on {subject} within {patience:?}"))),
            },
            Denial { action, subject } = denial_of(&mut denied, &subject) => {
                Err(BusError::Denied { who: who.to_owned(), action, subject })
            }
            Denial { action, subject } = denial_of(&mut denied_reply, &reply) => {
                Err(BusError::Denied { who: who.to_owned(), action, subject })
            }
        }
    }

    /// Subscribes. The broker may not know of it yet when this returns: see
    /// [`confirm`](Self::confirm).
    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscription, BusError> {
        self.nats.subscribe(subject).await.map(Subscription).map_err(|_| BusError::Closed)
    }

    /// Waits until the broker has processed every subscription so far: a sentinel sent to `own`
    /// has come back. (`flush` of async-nats is not a round trip.) `who` and `subjects` are told
    /// if the broker did not allow one of them.
    pub(crate) async fn confirm(
        &self,
        own: String,
        who: &str,
        subjects: &[&str],
    ) -> Result<(), BusError> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut denied = self.denials.listen();
        let mut sentinel = self.subscribe(own.clone()).await?;
        let deny = |action, subject: &str| {
            let (who, subject) = (who.to_owned(), subject.to_owned());
            Err(BusError::Denied { who, action, subject })
        };
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            self.publish(own.clone(), Bytes::new()).await?;
            tokio::select! {
                came = timeout(PATIENCE / 10, sentinel.next()) => {
                    if came.is_ok_and(|came| came.is_some()) {
                        // The broker told of a denial before, but by another way.
                        tokio::task::yield_now().await;
                        let denied = subjects.iter().find(|subject| self.denials.was_denied(subject));
                        return denied.map_or(Ok(()), |subject| deny(Action::Subscribe, subject));
                    }
                }
                denial = denial_of(&mut denied, &own) => return deny(denial.action, &own),
                why = self.denials.until_turned_away() => return Err(why.into()),
            }
        }
        Err(BusError::Unconfirmed(PATIENCE))
    }

    /// Waits until what was published has been written to the socket.
    pub(crate) async fn flush(&self) {
        if self.is_connected() {
            // An error means that the connection is gone, and then there is nothing to wait for.
            let _ = timeout(Duration::from_secs(2), self.nats.flush()).await;
        }
    }

    /// Delivers what is on its way, then closes.
    pub(crate) async fn close(&self) {
        self.flush().await;
        let _ = self.nats.drain().await;
    }
}

/// Waits until something is denied at `subject`. Cancel safe.
async fn denial_of(denied: &mut tokio::sync::broadcast::Receiver<Denial>, subject: &str) -> Denial {
    loop {
        match denied.recv().await {
            Ok(denial) if denial.subject == subject => return denial,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            // The sender lives as long as the connection: not before who waits here.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Messages that one subscription may hold. async-nats drops past it without a word; every
/// subject's own bound (queued calls, credit) is lower.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// A header is one line, and short (ADR-4).
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// A random number for ids and reply tokens.
pub(crate) fn random() -> u64 {
    rand::random()
}

/// Two connections of one process: control, and bulk opened when data first moves. No rule relies
/// on order between them.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    pub(crate) control: Conn,
    bulk: Arc<tokio::sync::OnceCell<Conn>>,
    settings: Arc<crate::Settings>,
    name: Arc<str>,
}

impl Bus {
    /// The variables by which another program of this host reaches the same broker in the same way.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        self.settings.variables()
    }

    /// Opens the control connection.
    pub(crate) async fn connect(settings: crate::Settings, name: &str) -> Result<Self, BusError> {
        let control = settings.connect(&format!("{name} control")).await?;
        let bulk = Arc::default();
        Ok(Self { control, bulk, settings: Arc::new(settings), name: name.into() })
    }

    /// The bulk connection, opened if it is not yet.
    pub(crate) async fn bulk(&self) -> Result<&Conn, BusError> {
        let name = format!("{} bulk", self.name);
        self.bulk.get_or_try_init(|| self.settings.connect(&name)).await
    }

    /// Closes both.
    pub(crate) async fn close(&self) {
        if let Some(bulk) = self.bulk.get() {
            bulk.close().await;
        }
        self.control.close().await;
    }
}

impl crate::Settings {
    /// Opens a connection that says `name` of itself.
    pub(crate) async fn connect(&self, name: &str) -> Result<Conn, BusError> {
        let proved = !matches!(self.auth, crate::Auth::Token(_));
        match Conn::connect(&self.servers, self.options()?.name(name), proved).await {
            // The broker does not say why, and the credentials themselves may.
            Err(BusError::TurnedAway(TurnedAway::Unknown))
                if self.identity()?.is_some_and(|identity| identity.is_expired()) =>
            {
                Err(TurnedAway::Expired.into())
            }
            connected => connected,
        }
    }

    /// What the broker says of itself to whoever connects.
    ///
    /// # Errors
    ///
    /// [`BusError::Connect`].
    pub async fn server(&self) -> Result<ServerInfo, BusError> {
        let conn = self.connect("jmp-bus").await?;
        let (version, jetstream) = conn.server();
        let asks_who_one_is = conn.is_authenticated();
        let max_payload = conn.max_payload();
        let asks_for_tls = conn.nats.server_info().tls_required;
        conn.close().await;
        Ok(ServerInfo { version, jetstream, asks_who_one_is, asks_for_tls, max_payload })
    }

    /// Makes the JetStream streams of `root`, or finds them as they must be: what a deployment
    /// does once, and a private broker at every start.
    ///
    /// # Errors
    ///
    /// [`BusError::Unfit`] if the broker has no JetStream, or a stream is another's.
    pub async fn make_streams(&self, root: &bus_schema::Root) -> Result<(), BusError> {
        make_streams(self, root, None, None).await
    }

    /// As [`make_streams`](Self::make_streams); streams that are there keep so much from now on.
    ///
    /// # Errors
    ///
    /// As [`make_streams`](Self::make_streams).
    pub async fn keep_in_streams(
        &self,
        root: &bus_schema::Root,
        keep: StreamsKeep,
    ) -> Result<(), BusError> {
        make_streams(self, root, Some(keep), None).await
    }

    /// As [`make_streams`](Self::make_streams), each on so many nodes of a cluster.
    ///
    /// # Errors
    ///
    /// As [`make_streams`](Self::make_streams).
    pub(crate) async fn make_streams_on(
        &self,
        root: &bus_schema::Root,
        replicas: u8,
    ) -> Result<(), BusError> {
        make_streams(self, root, None, Some(replicas)).await
    }

    /// What is wrong with the JetStream streams of `root`, a line each; none if all is well.
    ///
    /// # Errors
    ///
    /// [`BusError`] if the broker cannot be asked.
    pub async fn check_streams(&self, root: &bus_schema::Root) -> Result<Vec<String>, BusError> {
        let conn = self.connect("jmp-bus doctor").await?;
        let problems = check_streams(&conn, root, &self.asker()?).await;
        conn.close().await;
        problems
    }
}
