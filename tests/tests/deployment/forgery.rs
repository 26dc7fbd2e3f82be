//! What permissions cannot prevent: messages on another's subject that JetStream, or an exporter,
//! was made to publish. Each is dropped unread, and the exporter's log says so; what the broker
//! can deny, it does.

use std::time::Duration;

use async_nats::{Client, HeaderMap};
use bus_schema::{
    DriverId, Path, codec,
    permission::Role,
    subject::{DriverVerb, ExporterVerb, FromClient, To},
};
use bus_tests::{Deployment, TestDriver, bare_call, settled};
use bytes::Bytes;

use crate::{life, log};

const GRACE: Duration = Duration::from_secs(10);

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
        log::keep();
        let deployment = Deployment::start().await?;
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
    // A call, stored under the only subject that the attacker's accomplice may write.
    let record = "jmp.v1.x.rogue.tree.0";
    let stored = bare_call();
    scene.rogue.publish_with_reply(record, "jmp.v1.ix.rogue.1.2".to_owned(), stored).await?;
    scene.settle().await?;

    let get = "$JS.API.DIRECT.GET.jmp_registry";
    scene.say(&scene.alice, &format!("{get}.{record}"), &target, "").await?;
    scene.nothing_came_of_it("the last message of a subject").await?;
    let by_body = format!(r#"{{"last_by_subj":"{record}"}}"#);
    scene.say(&scene.alice, get, &target, by_body).await?;
    scene.nothing_came_of_it("the last message, asked for in the body").await?;
    let bare = format!(r#"{{"last_by_subj":"{record}","no_hdr":true}}"#);
    scene.say(&scene.alice, get, &target, bare).await?;
    scene.nothing_came_of_it("the same without headers").await?;
    let all = r#"{"multi_last":["jmp.v1.x.rogue.>"]}"#;
    scene.say(&scene.alice, get, &target, all).await?;
    scene.nothing_came_of_it("many at once").await?;
    // An acknowledgement goes where the publisher says.
    scene.say(&scene.rogue, record, &target, bare_call()).await?;
    scene.nothing_came_of_it("an acknowledgement").await?;
    assert!(scene.dropped("it has no reply subject") >= 5, "{}", log::all());
    scene.exporter.shutdown(GRACE).await?;
    Ok(())
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
