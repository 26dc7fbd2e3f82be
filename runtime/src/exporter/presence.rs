//! That an exporter is there: its name, claimed before anything is served, and its records in the
//! registry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use bus_schema::{
    DriverRecord, Interface, InterfaceDigest, Presence, State, TreeRecord, codec,
    limits::{CLAIM_PING, OVERHEAD_BYTES_MAX, PRESENCE_EVERY, PRESENCE_TTL},
    message::{Ping, Pong},
    subject::{CLAIMANT, ExporterVerb, FromClient, FromExporter, Streams, To},
};
use bytes::Bytes;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{ExporterError, Stopped, core::Core, lease::Word, tree::Leaf};
use crate::bus::{BusError, Incoming, random};

/// Keeps an exporter's records. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Presenter(Arc<Inner>);

struct Inner {
    shown: ArcSwap<Shown>,
    beat: AtomicU64,
    /// Digest of the tree as published.
    tree: Mutex<InterfaceDigest>,
    started_ms: u64,
}

/// What the configuration gives to be shown.
struct Shown {
    labels: BTreeMap<String, String>,
    leaves: Vec<Leaf>,
}

/// How one write to the registry ended.
enum Written {
    Yes,
    /// The record is not as expected: somebody else wrote it.
    Conflict,
    /// There is no registry (no JetStream, or its stream is missing).
    NoRegistry(String),
}

impl Presenter {
    /// Claims the name: by a conditional write, if there is a registry, and by asking whoever has
    /// it. A holder that answers keeps it; a silent one loses it.
    pub(crate) async fn claim(
        core: &Arc<Core>,
        labels: BTreeMap<String, String>,
        leaves: Vec<Leaf>,
    ) -> Result<Self, ExporterError> {
        let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let this = Self(Arc::new(Inner {
            shown: ArcSwap::from_pointee(Shown { labels, leaves }),
            beat: AtomicU64::new(0),
            tree: Mutex::new(InterfaceDigest::of(b"")),
            started_ms: u64::try_from(started_ms.as_millis()).unwrap_or(u64::MAX),
        }));
        for _attempt in 0..3 {
            let last = this.last_sequence(core).await?;
            if let Some(holder) = ping(core).await? {
                return Err(ExporterError::NameTaken {
                    name: core.name.clone(),
                    host: holder.host,
                    for_secs: holder.uptime_ms / 1000,
                });
            }
            match this.write_presence(core, State::Up, Some(last)).await? {
                Written::Yes => return Ok(this),
                Written::Conflict => continue, // two start at the same time: look again
                Written::NoRegistry(why) => {
                    tracing::warn!(
                        why,
                        "no registry: the exporter serves, and `list` cannot see it"
                    );
                    return Ok(this);
                }
            }
        }
        Err(ExporterError::NameTaken { name: core.name.clone(), host: "?".to_owned(), for_secs: 0 })
    }

    /// Says that it is there until the exporter stops; stops it if another has its name.
    pub(crate) async fn run(self, core: Arc<Core>) {
        loop {
            tokio::select! {
                biased;
                () = core.draining.cancelled() => return,
                () = sleep(PRESENCE_EVERY) => {}
            }
            if !core.control().is_connected() {
                continue;
            }
            if let Ok(Some(Presence { incarnation, host, .. })) = self.newest(&core).await
                && incarnation != core.incarnation
            {
                tracing::error!(%incarnation, host, "another exporter has this name: stopping");
                core.stop_for(Stopped::Replaced);
                return;
            }
            match self.write_presence(&core, State::Up, None).await {
                Ok(Written::Yes) => {}
                Ok(Written::Conflict) => tracing::warn!("presence not written: conflict"),
                Ok(Written::NoRegistry(why)) => tracing::debug!(why, "presence not written"),
                Err(error) => tracing::debug!(%error, "presence not written"),
            }
            // A broker that lost its store, or a driver that came back with other methods.
            let _ = self.publish_tree(&core).await;
        }
    }

    /// Shows something else from now on; the next [`publish_tree`](Self::publish_tree) says so.
    pub(crate) fn replace(&self, labels: BTreeMap<String, String>, leaves: Vec<Leaf>) {
        self.0.shown.store(Arc::new(Shown { labels, leaves }));
    }

    /// Says that nothing new is taken.
    pub(crate) async fn draining(&self, core: &Core) {
        let _ =
            timeout(Duration::from_secs(1), self.write_presence(core, State::Draining, None)).await;
    }

    /// Says goodbye.
    pub(crate) async fn left(&self, core: &Core) {
        let _ = timeout(Duration::from_secs(1), self.write_presence(core, State::Left, None)).await;
    }

    async fn presence(&self, core: &Core, state: State) -> Presence {
        let shown = self.0.shown.load_full();
        Presence {
            exporter: core.name.clone(),
            incarnation: core.incarnation,
            state,
            host: core.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.0.started_ms,
            beat: self.0.beat.fetch_add(1, Ordering::Relaxed),
            labels: shown.labels.clone(),
            drivers: u32::try_from(shown.leaves.len()).unwrap_or(u32::MAX),
            tree: *self.0.tree.lock().await,
        }
    }

    async fn write_presence(
        &self,
        core: &Core,
        state: State,
        expected: Option<u64>,
    ) -> Result<Written, BusError> {
        let presence = codec::encode(&self.presence(core, state).await);
        let subject = FromExporter::Presence(core.name.clone()).under(&core.root);
        let ttl = format!("{}s", PRESENCE_TTL.as_secs());
        let expected = expected.map(|last| last.to_string());
        let mut headers = vec![("Nats-TTL", &*ttl)];
        if let Some(last) = &expected {
            headers.push(("Nats-Expected-Last-Subject-Sequence", last));
        }
        write(core, subject, &headers, presence).await
    }

    /// The sequence of the presence record that is there, 0 if there is none.
    async fn last_sequence(&self, core: &Core) -> Result<u64, BusError> {
        let answer = read(core, FromExporter::Presence(core.name.clone())).await?;
        let sequence =
            answer.as_ref().and_then(|message| message.header("Nats-Sequence")?.parse().ok());
        Ok(sequence.unwrap_or(0))
    }

    async fn newest(&self, core: &Core) -> Result<Option<Presence>, BusError> {
        let answer = read(core, FromExporter::Presence(core.name.clone())).await?;
        Ok(answer.and_then(|message| codec::decode(message.payload()).ok()))
    }

    /// Publishes the tree and its interfaces, if they are not as published already.
    pub(crate) async fn publish_tree(&self, core: &Core) -> Result<(), BusError> {
        let mut interfaces = HashMap::<InterfaceDigest, Bytes>::new();
        let shown = self.0.shown.load_full();
        let drivers: Vec<_> =
            shown.leaves.iter().map(|leaf| describe(leaf, &mut interfaces)).collect();
        let mut whole = Vec::new();
        for driver in &drivers {
            rmp_serde::encode::write_named(&mut whole, driver).expect("records can be encoded");
        }
        let tree = InterfaceDigest::of(&whole);
        let first_part = FromExporter::Tree(core.name.clone(), 0);
        let there = read(core, first_part).await?;
        let there_is_none = there.is_none();
        let there = there.and_then(|message| codec::decode::<TreeRecord>(message.payload()).ok());
        if there.is_some_and(|record| record.tree == tree) && *self.0.tree.lock().await == tree {
            return Ok(());
        }
        if there_is_none && *self.0.tree.lock().await != InterfaceDigest::of(b"") {
            let _ = core.leases.tell(Word::Show); // the broker lost its store
        }
        for (digest, message) in interfaces {
            let subject = FromExporter::Interface(core.name.clone(), digest).under(&core.root);
            write(core, subject, &[], message).await?;
        }
        // A driver's record is a few hundred bytes; 256 of them are well below any max_payload.
        let per_part = 256.min(core.control().max_payload() / (4 * OVERHEAD_BYTES_MAX)).max(1);
        let parts = drivers.chunks(per_part);
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, drivers) in (0..count).zip(parts) {
            let record = TreeRecord { tree, parts: count, drivers: drivers.to_vec() };
            let subject = FromExporter::Tree(core.name.clone(), part).under(&core.root);
            write(core, subject, &[], codec::encode(&record)).await?;
        }
        *self.0.tree.lock().await = tree;
        self.write_presence(core, State::Up, None).await.map(drop)
    }
}

fn describe(leaf: &Leaf, interfaces: &mut HashMap<InterfaceDigest, Bytes>) -> DriverRecord {
    let of_driver = leaf.slot.tenant().map(|tenant| tenant.interfaces.to_vec()).unwrap_or_default();
    let mut names = Vec::new();
    for interface in of_driver {
        let interface: &Interface = &interface;
        let message = codec::encode(interface);
        let digest = InterfaceDigest::of(&message);
        interfaces.insert(digest, message);
        names.push((interface.name.clone(), digest));
    }
    DriverRecord {
        id: leaf.slot.id,
        path: leaf.path.to_string(),
        kind: leaf.kind.clone(),
        labels: leaf.labels.clone(),
        description: leaf.description.clone(),
        methods_description: leaf.methods_description.clone(),
        interfaces: names,
        alias_of: leaf.alias_of.as_ref().map(ToString::to_string),
    }
}

/// Asks whoever serves this name; `None` if nobody answers within [`CLAIM_PING`].
async fn ping(core: &Core) -> Result<Option<Pong>, BusError> {
    let client = CLAIMANT.parse().expect("a name");
    let to = To::Exporter(ExporterVerb::Ping);
    let subject = FromClient { client, exporter: core.name.clone(), to };
    // Our own inbox, and not that of the client: every exporter asks as the same one.
    let reply = super::recorder::ack_inbox(core).token(random());
    let mut answers = core.control().subscribe(reply.clone()).await?;
    core.control().request(subject.under(&core.root), reply, codec::encode(&Ping {})).await?;
    let Ok(Some(answer)) = timeout(CLAIM_PING, answers.next()).await else { return Ok(None) };
    Ok(codec::decode(answer.payload()).ok())
}

/// One request to JetStream with an answer to our own inbox; `None` if it does not come.
async fn ask(
    core: &Core,
    subject: String,
    headers: &[(&'static str, &str)],
    body: Bytes,
) -> Result<Option<Incoming>, BusError> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let reply = super::recorder::ack_inbox(core).token(random());
    let mut answers = core.control().subscribe(reply.clone()).await?;
    core.control().publish_with(subject, Some(reply), headers, body).await?;
    let until = Instant::now() + PATIENCE;
    Ok(tokio::time::timeout_at(until, answers.next()).await.ok().flatten())
}

/// The newest of one of this exporter's records.
pub(crate) async fn read(core: &Core, record: FromExporter) -> Result<Option<Incoming>, BusError> {
    let stream = Streams::of(&core.root).registry;
    let subject = Streams::direct_get(&stream, &record.under(&core.root));
    let answer = ask(core, subject, &[], Bytes::new()).await?;
    Ok(answer.filter(|message| message.status().is_none()))
}

async fn write(
    core: &Core,
    subject: String,
    headers: &[(&'static str, &str)],
    message: Bytes,
) -> Result<Written, BusError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        seq: Option<u64>,
        error: Option<Refused>,
    }
    #[derive(serde::Deserialize)]
    struct Refused {
        err_code: Option<u32>,
        description: Option<String>,
    }
    /// "wrong last sequence", and the same while another write of it is in flight.
    const CONFLICTS: [u32; 2] = [10071, 10164];
    let room = core.control().max_payload();
    if message.len() + OVERHEAD_BYTES_MAX > room {
        let bytes = message.len();
        let text = format!(
            "labels and descriptions make a record of {bytes} bytes, and the broker's max_payload is {room}"
        );
        return Err(BusError::Unfit(text));
    }
    let Some(answer) = ask(core, subject, headers, message).await? else {
        return Ok(Written::NoRegistry("it does not answer".to_owned()));
    };
    if answer.is_no_responders() {
        return Ok(Written::NoRegistry("no JetStream stream captures it".to_owned()));
    }
    Ok(match serde_json::from_slice::<Answer>(answer.payload()) {
        Ok(Answer { seq: Some(_), .. }) => Written::Yes,
        Ok(Answer { error: Some(Refused { err_code: Some(code), .. }), .. })
            if CONFLICTS.contains(&code) =>
        {
            Written::Conflict
        }
        Ok(Answer { error: Some(Refused { description, .. }), .. }) => {
            Written::NoRegistry(description.unwrap_or_default())
        }
        _ => Written::NoRegistry("its answer cannot be read".to_owned()),
    })
}
