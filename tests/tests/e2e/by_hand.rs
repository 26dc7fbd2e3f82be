//! What a client of another make gets that does not keep to the protocol.

use std::time::Duration;

use bus_schema::{
    CallId, ClientName, Refusal, RefusalCode, Session, StreamId, codec,
    message::{Ack, Call, Cancel, Form, Open, Opened, Outcome, Parts, Reply, Reset, ResetCode},
    subject::{DriverVerb, ExporterVerb, FromExporter, To},
};
use bus_tests::Peer;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::calls::bench;

const GRACE: Duration = Duration::from_secs(10);
const SESSION: Session = Session(0xab);

/// Opens `reflect` as bob, who grants and gets half a megabyte.
async fn open(peer: &Peer, stream: StreamId) -> anyhow::Result<()> {
    let open = Open {
        id: CallId { session: SESSION, counter: 1 },
        stream,
        credit: 1 << 19,
        attempt: 0,
        age_ms: 0,
        deadline_ms: 30_000,
        done_below: 0,
        epoch: None,
        form: Form::Typed,
        args: Bytes::new(),
        detached: false,
    };
    let subject = peer.subject("bob", DriverVerb::Open, "reflect");
    let answer = peer.request("bob", &subject, codec::encode(&open)).await?;
    let opened: Opened = codec::decode(&answer.payload)?;
    anyhow::ensure!(matches!(opened, Opened::Open { .. }), "{opened:?}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_never_sent_what_it_says_it_sent_is_asked_once_a_second() -> anyhow::Result<()>
{
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let stream = StreamId(u128::from(SESSION.0) << 64 | 1);
    let bob: ClientName = "bob".parse()?;
    let ctl = FromExporter::Ctl("bench".parse()?, bob, SESSION, stream).under(&lab.root);
    let mut acks = peer.listen(&ctl).await?;
    open(&peer, stream).await?;

    let boast = Ack { limit: 1 << 19, sent: 100, finished: true, ..Ack::default() };
    let ctl = peer.say("bob", To::Stream(ExporterVerb::Ctl, stream));
    peer.tell(&ctl, codec::encode(&boast)).await?;
    let until = Instant::now() + Duration::from_millis(3_500);
    let mut asked = Vec::new();
    while let Ok(Some(message)) = timeout_at(until, acks.next()).await {
        asked.push(codec::decode::<Ack>(&message.payload)?.again);
    }
    let again = asked.iter().filter(|again| **again).count();
    assert!((2..=5).contains(&again) && asked.len() <= 10, "{asked:?}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

fn call_in_parts(counter: u64, stream: StreamId) -> Bytes {
    codec::encode(&Call {
        id: Some(CallId { session: SESSION, counter }),
        deadline_ms: 60_000,
        parts: Some(Parts { stream, bytes: 100 }),
        ..Call::default()
    })
}

fn refusal_of(answer: &[u8]) -> anyhow::Result<RefusalCode> {
    match codec::decode::<Reply>(answer)?.outcome {
        Outcome::Refused(refusal) => Ok(refusal.code),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test]
async fn arguments_that_are_on_their_way_keep_nobody_waiting_and_can_be_taken_back()
-> anyhow::Result<()> {
    let (lab, _, exporter, bench) = bench().await?;
    let peer = lab.peer().await?;
    let stream = StreamId(u128::from(SESSION.0) << 64 | 1);
    let bob: ClientName = "bob".parse()?;
    let ctl = FromExporter::Ctl("bench".parse()?, bob, SESSION, stream).under(&lab.root);
    let mut ctl = peer.listen(&ctl).await?;
    let reply = peer.inbox("bob");
    let mut answers = peer.listen(&reply).await?;

    let subject = peer.subject("bob", DriverVerb::Call, "echo");
    peer.send(&subject, Some(&reply), None, call_in_parts(1, stream)).await?;
    let invited = ctl.next().await.expect("an invitation");
    assert!(codec::decode::<Ack>(&invited.payload)?.limit >= 100);
    bench.count().await?; // somebody else's turn

    let cancel = Cancel { ids: vec![CallId { session: SESSION, counter: 1 }] };
    peer.request("bob", &peer.ask("bob", ExporterVerb::Cancel), codec::encode(&cancel)).await?;
    let answer = answers.next().await.expect("an answer");
    assert_eq!(refusal_of(&answer.payload)?, RefusalCode::Expired);
    let reset = loop {
        let message = ctl.next().await.expect("a reset");
        if let Ok(reset) = codec::decode::<Reset>(&message.payload) {
            break reset;
        }
    };
    assert_eq!(reset.code, ResetCode::Cancelled);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn arguments_on_a_stream_of_another_session_are_refused() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let subject = peer.subject("bob", DriverVerb::Call, "echo");
    let answer = peer.request("bob", &subject, call_in_parts(1, StreamId(1))).await?;
    assert_eq!(refusal_of(&answer.payload)?, RefusalCode::Malformed);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// What a call of bob's to `echo` with these arguments is refused with.
async fn refused(peer: &Peer, deadline_ms: u64, args: &'static [u8]) -> anyhow::Result<Refusal> {
    let call =
        codec::encode(&Call { deadline_ms, args: Bytes::from_static(args), ..Call::default() });
    let subject = peer.subject("bob", DriverVerb::Call, "echo");
    let answer = peer.request("bob", &subject, call).await?;
    match codec::decode::<Reply>(&answer.payload)?.outcome {
        Outcome::Refused(refusal) => Ok(refusal),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test]
async fn a_wrong_typed_argument_is_refused_with_what_was_expected_and_what_came()
-> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    for (args, said) in [
        (&b"\x91\x05"[..], "argument 1 (body): expected bytes, got 5"),
        (b"\x91\x82\xa1x\x01\xa1y\x02", "argument 1 (body): expected bytes, got a map of 2"),
        (b"\x91\xcb\x3f\xf8\0\0\0\0\0\0", "argument 1 (body): expected bytes, got 1.5"),
        (b"\x91\xc1", "argument 1 (body): expected bytes, got bytes that are no value"),
        (b"\x92\xa1x\xa1x", "takes 1 argument(s), got 2"),
        (b"\x81\xa1x\x01", "arguments are an array"),
    ] {
        let refusal = refused(&peer, 1_000, args).await?;
        assert_eq!(refusal.code, RefusalCode::BadArguments);
        assert!(refusal.text.starts_with(said), "{refusal}");
        assert!(refusal.text.contains("the method is echo(body: bytes) -> bytes"), "{refusal}");
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_call_that_comes_after_its_deadline_does_not_begin() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let refusal = refused(&peer, 0, b"\x91\xc4\x01x").await?;
    assert_eq!(refusal.code, RefusalCode::Expired);
    exporter.shutdown(GRACE).await?;
    Ok(())
}
