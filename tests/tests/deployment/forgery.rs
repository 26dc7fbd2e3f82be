//! What permissions cannot prevent: messages on another's subject that JetStream, or an exporter,
//! was made to publish. Each is dropped unread, and the exporter's log says so; what the broker
//! can deny, it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use async_nats::{Client, HeaderMap};
use bus_schema::{
    Board, DriverId, Event, EventKind, Path, Presence, Root, State, codec,
    message::Data,
    permission::Role,
    subject::{DriverVerb, ExporterVerb, FromClient, FromExporter, Streams, SubjectSet, To},
};
use bus_tests::{Deployment, TestDriver, TestDriverClient, bare_call, settled};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::{Change, LeaseRequest, Since, Tail};
use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{life, log};

const GRACE: Duration = Duration::from_secs(10);
/// What the accomplice may write.
const RECORD: &str = "jmp.v1.x.rogue.tree.0";

/// The subject on which `client` counts at `bench`.
fn counting(deployment: &Deployment, client: &str) -> anyhow::Result<String> {
    let exporter = "bench".parse()?;
    let id = DriverId::at(&exporter, &Path::ROOT);
    let to = To::Driver(DriverVerb::Call, id, "count".parse()?);
    Ok(FromClient { client: client.parse()?, exporter, to }.under(&deployment.root))
}

struct Scene {
    deployment: Deployment,
    exporter: runtime::Exporter,
    alice: Client,
    rogue: Client,
    /// Where a call of bob's would go.
    target: String,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        Self::on(Deployment::start().await?).await
    }

    async fn on(deployment: Deployment) -> anyhow::Result<Self> {
        log::keep();
        let driver = TestDriver::new(deployment.dir.path().join("count"));
        let exporter = life::serve(&deployment, "bench", driver).await?;
        let alice = deployment.nats(Role::Client, "alice").await?;
        let rogue = deployment.nats(Role::Exporter, "rogue").await?;
        let target = counting(&deployment, "bob")?;
        Ok(Self { deployment, exporter, alice, rogue, target })
    }

    async fn say(
        &self,
        who: &Client,
        subject: &str,
        reply: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<()> {
        let (subject, reply) = (subject.to_owned(), reply.to_owned());
        who.publish_with_reply(subject, reply, body.into()).await?;
        Ok(())
    }

    /// Stores a message under the only subject that the attacker's accomplice may write. It is
    /// there when JetStream has acknowledged it.
    async fn store(&self, body: impl Into<Bytes>) -> anyhow::Result<()> {
        let reply = "jmp.v1.ix.rogue.1.2";
        let mut acks = self.rogue.subscribe(reply).await?;
        self.say(&self.rogue, RECORD, reply, body).await?;
        let ack = timeout(GRACE, acks.next()).await?.context("the connection is closed")?;
        let ack: Json = serde_json::from_slice(&ack.payload)?;
        anyhow::ensure!(ack["stream"] == "jmp_registry", "{ack}");
        Ok(())
    }

    /// Everything that was sent has been dealt with when a good call is answered.
    async fn settle(&self) -> anyhow::Result<()> {
        settled(&self.alice, "jmp.v1.i.alice.1.1".to_owned()).await?;
        settled(&self.rogue, "jmp.v1.ix.rogue.1.1".to_owned()).await?;
        let bob = life::client(&self.deployment, Role::Client, "bob").await?;
        bob.ping(self.exporter.name(), GRACE).await?;
        // By the gate of the driver, too.
        let bench = bob.driver(&"bench".parse()?);
        bench.call_raw("echo", rmp_serde::to_vec(&("x",))?.into()).await?;
        bob.close().await;
        Ok(())
    }

    /// The exporter executed nothing, and its log has this many lines about `target` more.
    async fn nothing_came_of_it(&self, what: &str) -> anyhow::Result<()> {
        self.settle().await?;
        let counted = std::fs::read_to_string(self.deployment.dir.path().join("count"));
        assert!(counted.is_err(), "{what}: executed {counted:?}");
        Ok(())
    }

    fn dropped(&self, why: &str) -> usize {
        let log = log::all();
        let is_it = |line: &&str| {
            line.contains("dropped a message unread")
                && line.contains(why)
                && line.contains(&self.target)
        };
        log.lines().filter(is_it).count()
    }
}

#[tokio::test]
async fn what_jetstream_is_made_to_publish_is_dropped_and_logged() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let target = scene.target.clone();
    scene.store(bare_call()).await?;

    let get = "$JS.API.DIRECT.GET.jmp_registry";
    scene.say(&scene.alice, &format!("{get}.{RECORD}"), &target, "").await?;
    scene.nothing_came_of_it("the last message of a subject").await?;
    let by_body = format!(r#"{{"last_by_subj":"{RECORD}"}}"#);
    scene.say(&scene.alice, get, &target, by_body).await?;
    scene.nothing_came_of_it("the last message, asked for in the body").await?;
    let bare = format!(r#"{{"last_by_subj":"{RECORD}","no_hdr":true}}"#);
    scene.say(&scene.alice, get, &target, bare).await?;
    scene.nothing_came_of_it("the same without headers").await?;
    let all = r#"{"multi_last":["jmp.v1.x.rogue.>"]}"#;
    scene.say(&scene.alice, get, &target, all).await?;
    scene.nothing_came_of_it("many at once").await?;
    // An acknowledgement goes where the publisher says.
    scene.say(&scene.rogue, RECORD, &target, bare_call()).await?;
    scene.nothing_came_of_it("an acknowledgement").await?;
    assert!(scene.dropped("it has no reply subject") >= 5, "{}", log::all());
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}

/// What JetStream has, as an admin sees it: the last message of each subject of each stream.
async fn stored(
    deployment: &Deployment,
) -> anyhow::Result<BTreeMap<String, BTreeMap<String, Bytes>>> {
    let admin = deployment.nats(Role::Admin, "root").await?;
    let inbox = "jmp.v1.i.root.1.0000000000000001";
    let mut answers = admin.subscribe(inbox).await?;
    let mut ask = async |subject: String, body: &str| {
        let body = Bytes::from(body.to_owned());
        admin.publish_with_reply(subject, inbox, body).await?;
        let answer = timeout(GRACE, answers.next()).await?.context("the connection is closed")?;
        anyhow::Ok(answer.payload)
    };
    let mut all = BTreeMap::new();
    let names: Json = serde_json::from_slice(&ask("$JS.API.STREAM.NAMES".to_owned(), "").await?)?;
    for name in names["streams"].as_array().context("no streams")? {
        let name = name.as_str().context("a stream has a name")?;
        let info = ask(Streams::info(name), r#"{"subjects_filter":">"}"#).await?;
        let info: Json = serde_json::from_slice(&info)?;
        let mut messages = BTreeMap::new();
        for (subject, _) in info["state"]["subjects"].as_object().into_iter().flatten() {
            let last = ask(Streams::direct_get(name, subject), "").await?;
            messages.insert(subject.clone(), last);
        }
        all.insert(name.to_owned(), messages);
    }
    Ok(all)
}

/// JetStream answers where its asker says; what it is made to say there is neither obeyed nor
/// stored: it has an account of its own, into which nothing of its own comes back.
#[tokio::test]
async fn what_jetstream_is_made_to_publish_is_no_request_and_no_record() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let eve = scene.deployment.nats(Role::Observer, "eve").await?;
    nothing_comes_of_lures(&scene, [&scene.alice, &eve, &scene.rogue]).await?;
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}

/// An answer that a leaf hears is a message from the hub there, and no answer of JetStream.
#[tokio::test]
async fn nor_is_it_where_a_leaf_hears_it() -> anyhow::Result<()> {
    let (deployment, leaf) = Deployment::start_with_leaf().await?;
    let scene = Scene::on(deployment).await?;
    let eve = scene.deployment.nats(Role::Observer, "eve").await?;
    let at_leaf = async |role, name| scene.deployment.nats_at(&leaf, role, name).await;
    let alice = at_leaf(Role::Client, "alice").await?;
    let (far_eve, rogue) =
        (at_leaf(Role::Observer, "eve").await?, at_leaf(Role::Exporter, "rogue").await?);
    let linked = async {
        while !has_come_back(&alice, "jmp.v1.i.alice.1").await? {}
        anyhow::Ok(())
    };
    timeout(GRACE, linked).await.context("the leaf is not linked")??;
    nothing_comes_of_lures(&scene, [&scene.alice, &eve, &scene.rogue]).await?;
    nothing_comes_of_lures(&scene, [&alice, &far_eve, &rogue]).await?;
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}

/// Whether JetStream answers; it has dealt with what was asked before then.
async fn has_come_back(asker: &Client, inbox: &str) -> anyhow::Result<bool> {
    let reply = format!("{inbox}.00000000000000aa");
    let mut answers = asker.subscribe(reply.clone()).await?;
    let get = Streams::direct_get("jmp_registry", "jmp.v1.x.bench.presence");
    asker.publish_with_reply(get, reply, Bytes::new()).await?;
    let answer = timeout(GRACE, answers.next()).await?.context("the connection is closed")?;
    Ok(answer.status.is_none())
}

/// Makes JetStream say everything that it can be made to say, everywhere where it would be heard.
async fn nothing_comes_of_lures(
    scene: &Scene,
    [alice, eve, rogue]: [&Client; 3],
) -> anyhow::Result<()> {
    let root = &scene.deployment.root;
    // What the accomplice stores is what JetStream would be asked for, or what would be recorded.
    let mine = r#"{"name":"mine","subjects":["mine.>"]}"#;
    scene.store(mine).await?;
    let before = stored(&scene.deployment).await?;
    assert_eq!(before.len(), 6, "{before:?}");

    let registry = Streams::of(root).registry;
    let (many, last) =
        (Streams::direct_get_many(&registry), Streams::direct_get(&registry, RECORD));
    let none = Streams::direct_get(&registry, "jmp.v1.x.rogue.tree.1");
    for lure in &lures(root, before.keys()) {
        for who in [alice, eve] {
            for body in [
                format!(r#"{{"last_by_subj":"{RECORD}"}}"#),
                format!(r#"{{"last_by_subj":"{RECORD}","no_hdr":true}}"#),
                format!(r#"{{"multi_last":["{RECORD}"]}}"#),
                r#"{"multi_last":["jmp.v1.x.none.>"]}"#.to_owned(),
                r#"{"next_by_subj":"jmp.v1.x.none.>"}"#.to_owned(),
                "garbage".to_owned(),
            ] {
                scene.say(who, &many, lure, body).await?;
            }
        }
        for who in [alice, eve, rogue] {
            scene.say(who, &last, lure, "").await?;
            scene.say(who, &last, lure, r#"{"no_hdr":true}"#).await?;
            scene.say(who, &none, lure, "").await?;
        }
        // What the broker traces of a message, where its sender wants it.
        for (who, subject) in [(alice, "jmp.v1.i.alice.1.2"), (rogue, RECORD)] {
            let mut trace = HeaderMap::new();
            trace.insert("Nats-Trace-Dest", lure.as_str());
            who.publish_with_headers(subject, trace, Bytes::from_static(mine.as_bytes())).await?;
        }
        // An acknowledgement, and a refusal.
        scene.say(rogue, RECORD, lure, mine).await?;
        let mut impossible = HeaderMap::new();
        impossible.insert("Nats-Expected-Last-Subject-Sequence", "999999");
        let body = Bytes::from_static(mine.as_bytes());
        let refused = rogue.publish_with_reply_and_headers(RECORD, lure.clone(), impossible, body);
        refused.await?;
    }
    assert!(has_come_back(alice, "jmp.v1.i.alice.1").await?);
    assert!(has_come_back(eve, "jmp.v1.i.eve.1").await?);
    rogue.flush().await?;
    scene.settle().await?;
    // The first to look comes behind what the broker still had to do for the lures.
    stored(&scene.deployment).await?;
    let after = stored(&scene.deployment).await?;
    let names = |all: &BTreeMap<String, BTreeMap<String, Bytes>>| {
        let of = |(stream, subjects): (&String, &BTreeMap<String, Bytes>)| {
            (stream.clone(), subjects.keys().cloned().collect::<Vec<_>>())
        };
        all.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(names(&before), names(&after));
    for (subject, last) in after.values().flatten().filter(|(subject, _)| *subject != RECORD) {
        // Messages of the protocol begin with its version; JetStream says JSON, or nothing.
        assert_eq!(last.first(), Some(&1), "{subject}: {last:?}");
    }
    Ok(())
}

/// Where JetStream would be obeyed, or recorded as somebody's word.
fn lures<'s>(root: &Root, streams: impl Iterator<Item = &'s String>) -> Vec<String> {
    let mut lures = vec!["$JS.API.STREAM.CREATE.mine".to_owned(), "$JS.API.INFO".to_owned()];
    for stream in streams {
        lures.extend(["DELETE", "PURGE"].map(|verb| format!("$JS.API.STREAM.{verb}.{stream}")));
    }
    let digest = "0".repeat(64);
    let records = [
        "x.bench.presence",
        "x.bench.tree.7",
        "x.bench.board",
        "x.bench.event.lease",
        "x.bench.log.exporter",
        "x.bench.out.bob.1.1.1.1",
        &format!("x.bench.interface.{digest}"),
        &format!("f.bob.m.{digest}"),
        &format!("f.bob.b.{digest}.0"),
        "x.other.presence",
        "a.place.rig",
    ];
    lures.extend(records.map(|record| format!("{root}.v1.{record}")));
    lures
}

/// Nor is it the word of the one whom its subject names, for those who hear it live. The attackers
/// know all that can be known: an observer tells them which streams there are.
#[tokio::test]
async fn what_jetstream_is_made_to_publish_is_nobodys_word() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let root = &scene.deployment.root;
    let eve = scene.deployment.nats(Role::Observer, "eve").await?;
    let mut seen = eve.subscribe(SubjectSet::OfExporters.pattern(root, "")).await?;
    settled(&eve, "jmp.v1.i.eve.1.1".to_owned()).await?;

    // What bob hears: of exporters, of what happens, and of a stream of his.
    let bob = life::client(&scene.deployment, Role::Client, "bob").await?;
    let mut exporters = bob.registry().watch().await?;
    let mut boards = bob.registry().watch_boards().await?;
    let mut events = bob.follow_events(None, Since::Ever).await?;
    let here = exporters.next().await.context("bench is there")?;
    let Change::Here(presence) = here else { anyhow::bail!("{here:?}") };
    let up = next(&mut events).await?;
    let bench = TestDriverClient::new(bob.driver(&"bench".parse()?));
    let mut stream = bench.reflect().await?;
    let mut heard = [0; 5];
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut heard).await?;
    let down = async {
        loop {
            let message = seen.next().await.context("the connection is closed")?;
            match FromExporter::read(root, &message.subject) {
                Ok(FromExporter::Down(_, _, _, id)) => return anyhow::Ok((message.subject, id)),
                _ => continue,
            }
        }
    };
    let (down, id) = timeout(GRACE, down).await??;

    let of_bob = FromClient {
        client: "bob".parse()?,
        exporter: "bench".parse()?,
        to: To::Stream(ExporterVerb::Up, id),
    };
    let data = Data { at: 5, data: "FORGED".into(), ..Data::default() };
    let left = Presence { state: State::Left, beat: presence.beat + 1, ..presence };
    let event = Event { number: up.number + 1, reason: "FORGED".to_owned(), ..up };
    let incarnation = event.incarnation;
    let board = Board { incarnation, required: true, units: Vec::new(), at: None, more: 0 };
    let forged = [
        (of_bob.under(root), data.encode()),
        (down.to_string(), data.encode()),
        (format!("{root}.v1.x.bench.presence"), codec::encode(&left)),
        (format!("{root}.v1.x.bench.event.{}", event.kind), codec::encode(&event)),
        (format!("{root}.v1.x.bench.board"), codec::encode(&board)),
    ];
    let get = Streams::direct_get("jmp_registry", RECORD);
    for (subject, message) in &forged {
        scene.store(message.clone()).await?;
        scene.say(&scene.alice, &get, subject, r#"{"no_hdr":true}"#).await?;
        scene.say(&scene.alice, &get, subject, "").await?;
        assert!(has_come_back(&scene.alice, "jmp.v1.i.alice.1").await?);
    }
    // Eve, who believes everything, did see them: all but what goes to the exporter.
    let mut lured = BTreeSet::new();
    let seeing = async {
        while lured.len() < forged.len() - 1 {
            let message = seen.next().await.context("the connection is closed")?;
            let is_lured = |(subject, body): &&(String, Bytes)| {
                *subject == *message.subject && *body == message.payload
            };
            lured.extend(forged.iter().find(is_lured).map(|(subject, _)| subject));
        }
        anyhow::Ok(())
    };
    let in_time = timeout(GRACE, seeing).await;
    in_time.with_context(|| format!("eve has seen {lured:?} only"))??;

    // What comes next is true.
    stream.write_all(b"world").await?;
    timeout(GRACE, stream.read_exact(&mut heard)).await??;
    assert_eq!(&heard, b"world");
    let lease = bob.lease(&"bench".parse()?, &LeaseRequest::default()).await?;
    let granted = next(&mut events).await?;
    assert_eq!((granted.kind, granted.reason.contains("FORGED")), (EventKind::LeaseGranted, false));
    let (_, leased) = timeout(GRACE, boards.next()).await?.context("a board was shown")?;
    assert_ne!(leased, board);
    drop(lease);
    bob.close().await;
    let name = scene.exporter.name().clone();
    scene.exporter.shutdown(GRACE).await?;
    let changes = async {
        loop {
            match exporters.next().await {
                Some(Change::Gone(..)) | None => return,
                Some(Change::Changed(presence)) => assert_eq!(presence.exporter, name),
                Some(Change::Here(presence)) => panic!("it was gone before: {presence:?}"),
            }
        }
    };
    timeout(GRACE, changes).await?;
    Ok(())
}

async fn next(events: &mut Tail<Event>) -> anyhow::Result<Event> {
    let said = timeout(GRACE, events.next()).await??;
    Ok(said.context("the connection is closed")?.message)
}

#[tokio::test]
async fn what_the_broker_can_deny_of_it_is_denied() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let target = scene.target.clone();
    let consumer = r#"{"stream_name":"jmp_registry","config":{"deliver_subject":"jmp.v1.c.bob.call.bench._._","ack_policy":"none"}}"#;
    for (subject, body) in [
        ("$JS.API.STREAM.INFO.jmp_registry", ""),
        ("$JS.API.INFO", ""),
        ("$JS.API.CONSUMER.MSG.NEXT.jmp_registry.c", ""),
        ("$JS.API.CONSUMER.CREATE.jmp_registry", consumer),
        ("$JS.API.CONSUMER.CREATE.jmp_registry.c.jmp.v1.x.>", consumer),
        ("$JS.API.DIRECT.GET.jmp_out", r#"{"seq":1}"#),
        ("$JS.API.DIRECT.GET.jmp_out.jmp.v1.x.bench.out.bob.1.1.1.0", ""),
        ("$JS.API.STREAM.MSG.GET.jmp_registry", r#"{"seq":1}"#),
    ] {
        scene.say(&scene.alice, subject, &target, body).await?;
        scene.nothing_came_of_it(subject).await?;
        let denied = scene.deployment.denied("client alice", "Publish", subject);
        assert!(denied, "{subject}: {}", scene.deployment.log());
    }
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn an_exporter_is_lured_nowhere() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    // Alice asks as herself, and wants the answer somewhere else.
    let own = counting(&scene.deployment, "alice")?;
    let ask = FromClient {
        client: "alice".parse()?,
        exporter: "bench".parse()?,
        to: To::Exporter(ExporterVerb::Ping),
    };
    let ask = ask.under(&scene.deployment.root);
    let lures = [
        "jmp.v1.i.bob.1.1",
        &scene.target,
        "jmp.v1.x.bench.presence",
        "jmp.v1.ix.bench.1.1",
        "jmp.v1.ix.rogue.1.1",
        "_INBOX.x.1",
        "$JS.API.STREAM.PURGE.jmp_registry",
    ];
    for lure in lures {
        scene.say(&scene.alice, &own, lure, bare_call()).await?;
        scene.say(&scene.alice, &ask, lure, codec::encode(&bus_schema::message::Ping {})).await?;
        scene.say(&scene.alice, "$SRV.PING", lure, "").await?;
        scene.nothing_came_of_it(lure).await?;
    }
    let about_alice = log::all()
        .lines()
        .filter(|line| line.contains("dropped a message unread") && line.contains(&own))
        .count();
    assert!(about_alice >= lures.len(), "{about_alice}: {}", log::all());
    let purged = scene.deployment.denied("jmp-bus exporter bench control", "Publish", lures[6]);
    assert!(!purged, "it did not even try");
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn headers_that_would_wipe_or_hide_records_do_nothing() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let mut rollup = HeaderMap::new();
    rollup.insert("Nats-Rollup", "all");
    let reply = "jmp.v1.ix.rogue.1.3".to_owned();
    let sent = scene.rogue.publish_with_reply_and_headers(
        "jmp.v1.x.rogue.presence",
        reply,
        rollup,
        Bytes::new(),
    );
    sent.await?;
    scene.settle().await?;
    let alice = life::client(&scene.deployment, Role::Client, "alice").await?;
    let exporters = alice.registry().exporters().await?;
    assert_eq!(exporters.len(), 1, "bench is still there");
    alice.close().await;
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
}
