//! Garbage on every subject of PROTOCOL.md: bodies that are no messages, real messages cut at every
//! length, and other versions. A new row of the table of subjects is tried without a change here,
//! or fails for a token that this does not know.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use async_nats::{Message, Subscriber};
use bus_schema::{
    CallId, DriverId, RefusalCode, Session, codec,
    message::{Opened, Outcome, Reply},
    subject::DriverVerb,
};
use bus_tests::{Lab, Peer};
use futures_util::StreamExt as _;
use runtime::{ByteStream, Client};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::calls::bench;

const PROTOCOL: &str = include_str!("../../../bus-schema/PROTOCOL.md");
const GRACE: Duration = Duration::from_secs(10);
/// Longer samples are cut up to here: the heads are what differs.
const CUT_BYTES_MAX: usize = 200;

/// The subjects of the table in §3, as it spells them.
fn rows() -> Vec<&'static str> {
    let section = PROTOCOL.split("## 3. Subjects").nth(1).expect("there is a section 3");
    let table = section.split("\n### ").next().unwrap_or(section);
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.collect()
}

/// What the letters of the table stand for in a running lab.
struct Names {
    root: String,
    session: String,
    stream: String,
    driver: String,
}

impl Names {
    fn subject(&self, row: &str) -> String {
        if row.starts_with("$SRV") {
            return "$SRV.PING".to_owned();
        }
        // Requests are tried as another client; what is said to a client, to one that listens.
        let client = if row.contains(".c.C.") { "bob" } else { "alice" };
        let token = |token: &str| match token {
            "…" => format!("{}.v1", self.root),
            "C" => client.to_owned(),
            "E" => "bench".to_owned(),
            "S" => self.session.clone(),
            "T" => self.stream.clone(),
            "D" => self.driver.clone(),
            "<method>" | "<any>" => "count".to_owned(),
            "<other>" => "shout".to_owned(),
            "<counter>" => "1".to_owned(),
            "<n>" | "<part>" => "0".to_owned(),
            "<digest>" => "0".repeat(32),
            "<sha256>" => "0".repeat(64),
            "<16 hex>" | "<incarnation>" => "0123456789abcdef".to_owned(),
            "<kind>" => "up".to_owned(),
            "<source>" => "exporter".to_owned(),
            "<name>" | "<place>" => "some".to_owned(),
            unknown if unknown.starts_with('<') => panic!("{row}: what is {unknown}?"),
            word => word.to_owned(),
        };
        row.split('.').map(token).collect::<Vec<_>>().join(".")
    }
}

/// All that passes until a message comes to `until`.
async fn passed(wire: &mut Subscriber, until: &str) -> Vec<Message> {
    let mut passed = Vec::new();
    while let Some(message) = wire.next().await
        && message.subject.as_str() != until
    {
        passed.push(message);
    }
    passed
}

fn garbage(samples: &BTreeMap<u8, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    for sample in samples.values() {
        bodies.extend((1..sample.len().min(CUT_BYTES_MAX)).map(|len| sample[..len].to_vec()));
        for version in [0, 2, 255] {
            bodies.push([&[version], &sample[1..sample.len() - 1]].concat());
        }
    }
    for kind in 0..=u8::MAX {
        for body in [&[0x80][..], &[0xc1], &[0xdf, 0xff, 0xff, 0xff, 0xff], &[0x91; 600]] {
            bodies.push([&[1, kind], body].concat());
        }
    }
    bodies.extend([vec![255; 300], b"{".to_vec(), b"{\"args\":7}".to_vec()]);
    bodies.push("[".repeat(100_000).into_bytes());
    bodies.push(format!("{{\"args\":{}", "[".repeat(100_000)).into_bytes());
    bodies
}

/// A client that has done everything once, and has a stream open.
struct Live {
    client: Client,
    stream: ByteStream,
    names: Names,
    /// One message of every kind that passed.
    samples: BTreeMap<u8, Vec<u8>>,
}

async fn live(lab: &Lab, peer: &Peer) -> anyhow::Result<Live> {
    let mut wire = peer.listen(&format!("{}.>", lab.root)).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    let mut numbers = bench.numbers(3).await?;
    while numbers.next().await.transpose()?.is_some() {}
    let mut stream = bench.reflect().await?;
    stream.write_all(b"x").await?;
    assert_eq!(stream.read_u8().await?, b'x');
    client.ping(&"bench".parse()?, GRACE).await?;
    drop(tokio::time::timeout(Duration::from_millis(1), bench.hold("cancelled".to_owned())).await);
    bench.count().await?;
    let sentinel = peer.inbox("bob");
    peer.send(&sentinel, None, None, "").await?;
    let passed = passed(&mut wire, &sentinel).await;
    let names = passed.iter().find_map(|message| {
        let tokens: Vec<_> = message.subject.split('.').collect();
        let [root, _, "x", _, "down", _, session, stream] = tokens[..] else { return None };
        let driver = DriverId::at(&"bench".parse().ok()?, &bus_schema::Path::ROOT).to_string();
        let [root, session, stream] = [root, session, stream].map(str::to_owned);
        Some(Names { root, session, stream, driver })
    });
    let mut samples = BTreeMap::new();
    for message in &passed {
        if let [1, kind, ..] = message.payload[..] {
            samples.entry(kind).or_insert_with(|| message.payload.to_vec());
        }
    }
    Ok(Live { client, stream, names: names.context("nothing came down the stream")?, samples })
}

#[tokio::test]
async fn garbage_on_every_subject_of_the_protocol_harms_nothing() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let Live { client, stream, names, samples } = live(&lab, &peer).await?;
    let rows = rows();
    assert!(rows.len() > 15, "{rows:?}");
    let bodies = garbage(&samples);
    for row in &rows {
        let subject = names.subject(row);
        let reply = match row {
            row if row.contains(".c.C.") => Some(peer.inbox("bob")),
            row if row.contains(".x.E.") => Some(peer.mark(&subject)),
            _ => None,
        };
        for body in &bodies {
            peer.send(&subject, reply.as_deref(), None, body.clone()).await?;
        }
        peer.nats.flush().await?;
    }
    // Requests of one client are read in order: when this is answered, all of it was.
    let echo = peer.subject("bob", DriverVerb::Call, "echo");
    peer.request("bob", &echo, r#"{"args":[""]}"#).await?;
    let executed = lab.counted();
    assert!(
        executed.iter().all(|line| line == "bob " || line.starts_with("alice ")),
        "{executed:?}"
    );
    let bench = lab.bench(&client);
    bench.count().await?;
    drop(stream); // what was said in its name may have broken it, and nothing else
    let mut stream = bench.reflect().await?;
    stream.write_all(b"y").await?;
    assert_eq!(stream.read_u8().await?, b'y');
    let id = CallId { session: Session(1), counter: 1 };
    assert!(client.attach(&"alice".parse()?, id, false).await.is_err());
    client.registry().exporters().await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// Sends `sample` as a version `version` and gives the code that it is refused with.
async fn refused(
    peer: &Peer,
    verb: DriverVerb,
    mut body: Vec<u8>,
    version: u8,
) -> anyhow::Result<RefusalCode> {
    body[0] = version;
    body.pop(); // a newer one that can be read is read
    let answer = peer.request("bob", &peer.subject("bob", verb, "count"), body).await?;
    let refusal = match verb {
        DriverVerb::Call => match codec::decode::<Reply>(&answer.payload)?.outcome {
            Outcome::Refused(refusal) => refusal,
            other => anyhow::bail!("{other:?}"),
        },
        DriverVerb::Open => match codec::decode::<Opened>(&answer.payload)? {
            Opened::Refused(refusal) => refusal,
            other => anyhow::bail!("{other:?}"),
        },
    };
    Ok(refusal.code)
}

#[tokio::test]
async fn another_version_is_refused_as_that() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let Live { samples, .. } = live(&lab, &peer).await?;
    for (verb, kind) in [(DriverVerb::Call, 0x01), (DriverVerb::Open, 0x10)] {
        for (version, wanted) in [
            (0, RefusalCode::WrongVersion),
            (1, RefusalCode::Malformed),
            (2, RefusalCode::WrongVersion),
            (255, RefusalCode::WrongVersion),
        ] {
            let code = refused(&peer, verb, samples[&kind].clone(), version).await?;
            assert_eq!(code, wanted, "{verb:?} of version {version}");
        }
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}
