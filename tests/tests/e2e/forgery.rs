//! Messages that are not from whom they seem to be: each is dropped, and nothing is executed.

use std::time::Duration;

use bus_schema::{
    ExporterName, codec,
    message::{Ask, Call, Reset, ResetCode},
    subject::{DriverVerb, ExporterVerb, FromExporter, Streams, To},
};
use bus_tests::{Lab, bare_call};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::calls::bench;

const GRACE: Duration = Duration::from_secs(10);

/// Whatever was sent before is dealt with when a call that was sent after it is answered.
async fn settle(lab: &Lab, client: &str) -> anyhow::Result<()> {
    let peer = lab.peer().await?;
    let subject = peer.subject(client, DriverVerb::Call, "echo");
    peer.request(client, &subject, r#"{"args":[""]}"#).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_with_a_reply_that_is_not_its_clients_is_dropped() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let subject = peer.subject("alice", DriverVerb::Call, "count");
    let lured = [
        peer.inbox("bob"),
        peer.subject("bob", DriverVerb::Call, "count"),
        FromExporter::Presence("bench".parse()?).under(&lab.root),
        "$JS.ACK.x".to_owned(),
    ];
    for reply in &lured {
        let mut listening = peer.listen(reply).await?;
        peer.send(&subject, Some(reply), None, bare_call()).await?;
        peer.nats.flush().await?;
        settle(&lab, "alice").await?;
        listening.unsubscribe().await?;
        assert!(listening.next().await.is_none(), "the exporter was lured to {reply}");
    }
    peer.send(&subject, None, None, bare_call()).await?; // nobody could be answered
    peer.nats.flush().await?;
    settle(&lab, "alice").await?;
    assert_eq!(lab.counted(), Vec::<String>::new());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn what_jetstream_was_made_to_publish_is_dropped() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let subject = peer.subject("bob", DriverVerb::Call, "count");

    // A stored message as the body of somebody else's call: JetStream answers a direct get on
    // the subject that the asker names.
    let record = FromExporter::Tree("forger".parse()?, 0).under(&lab.root);
    let stored = peer.request("alice", &record, bare_call()).await?;
    assert!(stored.payload.starts_with(b"{\"stream\""), "{stored:?}");
    let get = Streams::direct_get(&Streams::of(&lab.root).registry, &record);
    let mut wire = peer.listen(&subject).await?;
    peer.send(&get, Some(&subject), None, "").await?;
    let seen = wire.next().await.expect("a message");
    assert!(seen.payload == bare_call(), "the forgery is on its way");

    // The acknowledgement of a publish, which is JSON.
    peer.send(&record, Some(&subject), None, bare_call()).await?;
    let seen = wire.next().await.expect("a message");
    assert!(seen.payload.starts_with(b"{"), "{seen:?}");

    peer.nats.flush().await?;

    settle(&lab, "bob").await?;
    assert_eq!(lab.counted(), Vec::<String>::new());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_hears_nobody_but_its_exporter() -> anyhow::Result<()> {
    let (lab, _, exporter, bench) = bench().await?;
    let peer = lab.peer().await?;
    // The wire shows the stream's id, as it would to an observer.
    let mut wire = peer.listen(&format!("{}.>", lab.root)).await?;
    peer.nats.flush().await?;
    let mut stream = bench.reflect().await?;
    stream.write_all(b"a").await?;
    assert_eq!(stream.read_u8().await?, b'a');
    let (client, session, id) = loop {
        let message = wire.next().await.expect("a message");
        if let Ok(FromExporter::Down(_, client, session, id)) =
            FromExporter::read(&lab.root, &message.subject)
        {
            break (client, session, id);
        }
    };
    let reset = codec::encode(&Reset { code: ResetCode::Fault, text: "forged".to_owned() });
    let data = bus_schema::message::Data { at: 1, data: "b".into(), begin: None, end: None };
    let rogue: ExporterName = "rogue".parse()?;
    let ctl = FromExporter::Ctl(rogue.clone(), client.clone(), session, id);
    let down = FromExporter::Down(rogue, client, session, id);
    let [ctl, down] = [ctl, down].map(|subject| subject.under(&lab.root));
    peer.tell(&ctl, reset.clone()).await?;
    peer.tell(&down, data.encode()).await?;
    // Nor does what nobody says, on the subjects of its exporter.
    let [ctl, down] = [ctl, down].map(|subject| subject.replace(".rogue.", ".bench."));
    let rogue = peer.mark(&format!("{}.v1.x.rogue", lab.root));
    for reply in [None, Some("$JS.ACK.x"), Some("_INBOX.x"), Some(&*rogue)] {
        peer.send(&ctl, reply, None, reset.clone()).await?;
        peer.send(&down, reply, None, data.encode()).await?;
    }
    // And another client cannot speak on it to the exporter.
    let ctl = peer.say("bob", To::Stream(ExporterVerb::Ctl, id));
    let up = peer.say("bob", To::Stream(ExporterVerb::Up, id));
    peer.tell(&ctl, reset.clone()).await?;
    peer.tell(&up, data.encode()).await?;
    // Nor does what JetStream was made to publish as the client's own.
    let [ctl, up] = [ctl, up].map(|subject| subject.replace(".c.bob.", ".c.alice."));
    let bobs = peer.inbox("bob");
    for reply in [None, Some("$JS.ACK.x"), Some(&*bobs)] {
        peer.send(&ctl, reply, None, reset.clone()).await?;
        peer.send(&up, reply, None, data.encode()).await?;
    }
    peer.nats.flush().await?;
    settle(&lab, "bob").await?;
    stream.write_all(b"c").await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    assert_eq!(rest, b"c");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_cannot_learn_of_or_cancel_anothers_call() -> anyhow::Result<()> {
    let (lab, driver, exporter, bench) = bench().await?;
    let peer = lab.peer().await?;
    let mut wire = peer.listen(&peer.subject("alice", DriverVerb::Call, "hold")).await?;
    peer.nats.flush().await?;
    let meddle = async {
        let seen = wire.next().await.expect("a call");
        let id = codec::decode::<Call>(&seen.payload).unwrap().id.expect("an id");
        driver.events.happened("begin mine").await;
        let cancel = codec::encode(&bus_schema::message::Cancel { ids: vec![id] });
        peer.request("bob", &peer.ask("bob", ExporterVerb::Cancel), cancel).await.unwrap();
        let ask = codec::encode(&Ask { ids: vec![id] });
        let told = peer.request("bob", &peer.ask("bob", ExporterVerb::Ask), ask).await.unwrap();
        let told = codec::decode::<bus_schema::message::Told>(&told.payload).unwrap();
        assert_eq!(told.calls, [bus_schema::message::Progress::Unknown]);
        driver.release.add_permits(1);
    };
    let (held, ()) = tokio::join!(bench.hold("mine".to_owned()), meddle);
    assert_eq!(held?, "mine");
    assert_eq!(driver.events.all(), ["begin mine", "end mine"]);
    exporter.shutdown(GRACE).await?;
    Ok(())
}
