//! Calls that go to one exporter together, in one message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    CallId, DriverId, Path, RefusalCode, Session, codec,
    limits::CALLS_PER_DRIVER_MAX,
    message::{Call, Calls, Outcome, Replies, Reply},
    subject::{DriverVerb, ExporterVerb, FromClient, Inbox},
};
use bus_tests::{Lab, Peer, TestDriver};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::join_all};
use runtime::{CallError, Exporter, Node};
use tokio::task::JoinSet;

const GRACE: Duration = Duration::from_secs(10);

/// What was said by `calls`, as long as this lives: messages, and calls in them.
struct Spy {
    messages: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Spy {
    async fn on(lab: &Lab) -> anyhow::Result<Self> {
        let peer = lab.peer().await?;
        let subject =
            FromClient::exporter_wildcard(&lab.root, &"bench".parse()?, ExporterVerb::Calls);
        let mut heard = peer.listen(&subject).await?;
        let (messages, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, mut task) = ((messages.clone(), calls.clone()), JoinSet::new());
        task.spawn(async move {
            let _peer = peer;
            while let Some(message) = heard.next().await {
                let together = Calls::decode(&message.payload).expect("a client's message");
                counted.0.fetch_add(1, Ordering::Relaxed);
                counted.1.fetch_add(together.len(), Ordering::Relaxed);
            }
        });
        Ok(Self { messages, calls, _task: task })
    }
}

/// A driver `bench` with three more below it.
async fn boards(lab: &Lab) -> anyhow::Result<(TestDriver, Exporter)> {
    let driver = lab.driver();
    let board = || Node::of("test", driver.clone());
    let tree = board().with_child("a", board()).with_child("b", board()).with_child("c", board());
    Ok((driver, lab.serve(tree).await?))
}

#[tokio::test]
async fn many_calls_go_together_and_each_is_executed_once() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (_driver, exporter) = boards(&lab).await?;
    let spy = Spy::on(&lab).await?;
    let client = lab.client("alice").await?;
    let paths = ["", "/a", "/b", "/c"];
    let calls = (0..400_usize).map(|at| {
        let address = format!("bench{}", paths[at % 4]);
        let driver = client.driver(&address.parse().expect("an address"));
        async move { driver.call_raw("count", Bytes::from_static(&[0x90])).await }
    });
    for ended in join_all(calls).await {
        ended?;
    }
    let all = lab.counted();
    let each: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!((each.len(), all.len()), (400, 400), "each call once");
    let (messages, calls) =
        (spy.messages.load(Ordering::Relaxed), spy.calls.load(Ordering::Relaxed));
    assert!(calls > 300 && messages * 4 < calls, "{messages} messages with {calls} calls");
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_told_of_and_the_others_are_called() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (_driver, exporter) = boards(&lab).await?;
    let client = lab.client("alice").await?;
    let calls = (0..60_usize).map(|at| {
        let address = if at % 3 == 0 { "bench/none" } else { "bench/a" };
        let driver = client.driver(&address.parse().expect("an address"));
        async move { (at, driver.call_raw("count", Bytes::from_static(&[0x90])).await) }
    });
    for (at, ended) in join_all(calls).await {
        match ended {
            Err(CallError::NoDriver { .. }) if at % 3 == 0 => {}
            ended => drop(ended?),
        }
    }
    assert_eq!(lab.counted().len(), 40);
    // An exporter that is not there at all: nobody waits until he is asked about.
    let peer = lab.peer().await?;
    let asks = |exporter| FromClient::exporter_wildcard(&lab.root, exporter, ExporterVerb::Ask);
    let mut asked = peer.listen(&asks(&"nowhere".parse()?)).await?;
    let none = client.driver(&"nowhere/a".parse()?);
    let calls = (0..40).map(|_| none.call_raw("count", Bytes::from_static(&[0x90])));
    for ended in join_all(calls).await {
        assert!(matches!(ended, Err(CallError::NoDriver { .. })), "{ended:?}");
    }
    peer.listen(&peer.inbox("bob")).await?; // a round trip
    assert!(asked.next().now_or_never().is_none(), "they were asked about");
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn an_exporter_of_an_earlier_version_is_sent_each_call_by_itself() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (peer, client) = (lab.peer().await?, lab.client("alice").await?);
    let bench = lab.bench(&client);
    let mut requests = peer.listen(&peer.subject("alice", DriverVerb::Call, "echo")).await?;
    let exporter = async {
        let mut served = 0;
        while served < 40 {
            let request = requests.next().await.expect("a request");
            let call: Call = codec::decode(&request.payload)?;
            let result: (Bytes,) = rmp_serde::from_slice(&call.args)?;
            let outcome = Outcome::Result(rmp_serde::to_vec(&result.0)?.into());
            let reply = request.reply.expect("a reply subject").to_string();
            peer.send(&reply, None, None, codec::encode(&Reply { outcome })).await?;
            served += 1;
        }
        anyhow::Ok(())
    };
    let calls = join_all((0..40_u8).map(|at| bench.echo(vec![at].into())));
    let (ended, exporter) = tokio::join!(calls, exporter);
    exporter?;
    for (at, ended) in ended.into_iter().enumerate() {
        assert_eq!(&*ended?, &[at as u8]);
    }
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_any_more_is_not_sent() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (_driver, exporter) = boards(&lab).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    // Polled once each, and dropped before anybody else has run.
    let calls: Vec<_> = (0..100).map(|_| bench.count()).collect();
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    drop(calls);
    bench.echo(Bytes::new()).await?;
    let counted = lab.counted().len();
    assert!(counted < 10, "{counted} were executed: more than went by themselves");
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// A message of other calls, as another implementation would write it.
async fn send(
    peer: &Peer,
    calls: Vec<(String, String, Bytes)>,
) -> anyhow::Result<async_nats::Subscriber> {
    let reply = peer.inbox("mallory");
    let (inbox, _) = Inbox::split(&reply).expect("it has tokens");
    let answers = peer.listen(&format!("{inbox}.*")).await?;
    let subject = peer.ask("mallory", ExporterVerb::Calls);
    peer.send(&subject, Some(&reply), None, codec::encode(&Calls { calls })).await?;
    Ok(answers)
}

#[tokio::test]
async fn what_is_none_in_a_message_of_calls_is_dropped_and_the_rest_counts() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (_driver, exporter) = boards(&lab).await?;
    let peer = lab.peer().await?;
    let driver = DriverId::at(&"bench".parse()?, &Path::ROOT);
    let tail = |method: &str| format!("{driver}.{method}");
    let call = |counter| {
        let id = Some(CallId { session: Session(9), counter });
        codec::encode(&Call { id, args: Bytes::from_static(&[0x90]), ..Call::default() })
    };
    let token = |n: u64| format!("{n:016x}");
    let nobody = "00000000-0000-5000-8000-000000000000.count";
    let victim = Inbox::of_client(&lab.root, &"alice".parse()?, Session(1));
    let mut robbed = peer.listen(&victim.wildcard()).await?;
    let calls = vec![
        (tail("count"), token(1), call(1)),
        (tail("count"), "*".to_owned(), call(2)),
        (tail("count"), victim.token(7), call(3)),
        ("no.method.at.all".to_owned(), token(4), call(4)),
        (String::new(), token(5), call(5)),
        (tail("count"), token(6), call(1)),
        (tail("none"), token(7), call(7)),
        (tail("count"), token(8), Bytes::from_static(b"garbage")),
        (nobody.to_owned(), token(9), call(9)),
        (tail("count"), token(10), call(10)),
    ];
    let mut answers = send(&peer, calls).await?;
    let mut said = std::collections::BTreeMap::new();
    while (6..=10).any(|token| !said.contains_key(&token)) {
        let answer = tokio::time::timeout(GRACE, answers.next()).await?.expect("an answer");
        let (_, first) = Inbox::split(&answer.subject).expect("tokens");
        let replies = match Replies::is(&answer.payload) {
            true => Replies::decode(&answer.payload)?,
            false => vec![(first, answer.payload.clone())],
        };
        for (token, reply) in replies {
            let outcome = Reply::decode(&reply)?.outcome;
            said.insert(u64::from_str_radix(token, 16)?, outcome);
        }
    }
    let code = |at: u64| match &said[&at] {
        Outcome::Refused(refusal) => refusal.code.clone(),
        other => panic!("{at}: {other:?}"),
    };
    assert!(said.keys().all(|token| [1, 6, 7, 8, 9, 10].contains(token)), "{said:?}");
    // The repeat of call 1 is answered where it was last asked, and was not executed again.
    assert!(matches!(said[&6], Outcome::Result(_)) && matches!(said[&10], Outcome::Result(_)));
    assert_eq!((code(7), code(9)), (RefusalCode::UnknownMethod, RefusalCode::NoDriver));
    assert_eq!(code(8), RefusalCode::Malformed);
    assert_eq!(lab.counted().len(), 2);
    let nothing = tokio::time::timeout(Duration::from_millis(200), robbed.next()).await;
    assert!(nothing.is_err(), "an answer went to another client");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn code_that_blocks_delays_nothing_that_came_together_with_it() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (driver, exporter) = boards(&lab).await?;
    let peer = lab.peer().await?;
    let tail = |path: &str, method: &str| {
        let path: Path = path.parse().expect("a path");
        format!("{}.{method}", DriverId::at(exporter.name(), &path))
    };
    let call = |counter, args: &'static [u8]| {
        let id = Some(CallId { session: Session(9), counter });
        codec::encode(&Call { id, args: Bytes::from_static(args), ..Call::default() })
    };
    let (blocked, counted) = ("0000000000000001", "0000000000000002");
    let calls = vec![
        (tail("a", "block"), blocked.to_owned(), call(1, b"\x91\xa1x")),
        (tail("b", "count"), counted.to_owned(), call(2, b"\x90")),
    ];
    let mut answers = send(&peer, calls).await?;
    for token in [counted, blocked] {
        let answer = tokio::time::timeout(GRACE, answers.next()).await?.expect("an answer");
        let outcome = Reply::decode(&answer.payload)?.outcome;
        assert!(matches!(outcome, Outcome::Result(_)), "{outcome:?}");
        assert_eq!(Inbox::split(&answer.subject).expect("tokens").1, token);
        driver.release.add_permits(1);
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn more_calls_than_may_wait_at_a_driver_are_told_that_it_is_busy() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (driver, exporter) = boards(&lab).await?;
    let (client, more) = (lab.client("alice").await?, 100);
    let bench = lab.bench(&client);
    let calls = (0..CALLS_PER_DRIVER_MAX + more).map(|at| bench.hold(at.to_string()));
    let release = async {
        driver.events.happened("begin 0").await;
        driver.release.add_permits(CALLS_PER_DRIVER_MAX);
    };
    let (ended, ()) = tokio::join!(join_all(calls), release);
    let busy = ended.iter().filter(|ended| match ended {
        Err(CallError::Refused { refusal, .. }) => refusal.code == RefusalCode::Busy,
        _ => false,
    });
    let (busy, done) = (busy.count(), ended.iter().filter(|ended| ended.is_ok()).count());
    assert_eq!(busy + done, CALLS_PER_DRIVER_MAX + more, "every one is answered");
    assert!(done >= CALLS_PER_DRIVER_MAX, "{done} were executed");
    client.close().await;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn one_message_of_calls_to_one_driver_is_served_in_its_order() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (driver, exporter) = boards(&lab).await?;
    let peer = lab.peer().await?;
    let tail = format!("{}.hold", DriverId::at(&"bench".parse()?, &"a".parse()?));
    let calls = (0..50_u64).map(|at| {
        let id = Some(CallId { session: Session(9), counter: at + 1 });
        let args = rmp_serde::to_vec(&(at.to_string(),)).expect("a list of text").into();
        (tail.clone(), format!("{at:016x}"), codec::encode(&Call { id, args, ..Call::default() }))
    });
    driver.release.add_permits(50);
    let _answers = send(&peer, calls.collect()).await?;
    driver.events.happened("end 49").await;
    let begun: Vec<_> =
        driver.events.all().into_iter().filter(|event| event.starts_with("begin")).collect();
    let wanted: Vec<_> = (0..50).map(|at| format!("begin {at}")).collect();
    assert_eq!(begun, wanted);
    exporter.shutdown(GRACE).await?;
    Ok(())
}
