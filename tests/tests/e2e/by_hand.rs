//! What a client of another make gets that does not keep to the protocol.

use std::time::Duration;

use bus_schema::{
    CallId, ClientName, Session, StreamId, codec,
    message::{Ack, Form, Open, Opened},
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
async fn a_peer_that_never_sent_what_it_says_it_sent_is_asked_once_a_second()
-> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let stream = StreamId(u128::from(SESSION.0) << 64 | 1);
    let bob: ClientName = "bob".parse()?;
    let ctl = FromExporter::Ctl("bench".parse()?, bob, SESSION, stream).under(&lab.root);
    let mut acks = peer.listen(&ctl).await?;
    open(&peer, stream).await?;

    let boast = Ack { limit: 1 << 19, sent: 100, finished: true, ..Ack::default() };
    let ctl = peer.say("bob", To::Stream(ExporterVerb::Ctl, stream));
    peer.send(&ctl, None, None, codec::encode(&boast)).await?;
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
