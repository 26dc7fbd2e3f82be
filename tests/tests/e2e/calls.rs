//! Every way a call can end.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bus_schema::{
    CallId, FaultKind, RefusalCode, Session, codec,
    message::{Call, Form, Outcome, Replies, Reply, Unknown},
    subject::{DriverVerb, Inbox},
};
use bus_tests::{Lab, TestDriver, TestDriverClient};
use bytes::Bytes;
use futures_util::StreamExt as _;
use runtime::{CallError, DriverRef};

const GRACE: Duration = Duration::from_secs(10);

type Bench = TestDriverClient<DriverRef>;

/// One test driver, served, and a client of it.
pub(crate) async fn bench() -> anyhow::Result<(Lab, TestDriver, runtime::Exporter, Bench)> {
    let lab = Lab::new().await?;
    let driver = lab.driver();
    let exporter = lab.serve(driver.clone()).await?;
    let client = lab.client("alice").await?;
    let bench = lab.bench(&client);
    Ok((lab, driver, exporter, bench))
}

/// Makes a call until it is not refused because the driver is being restarted.
async fn when_restarted<T, F>(call: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    loop {
        match call().await {
            Err(CallError::Refused { refusal, .. }) if refusal.code == RefusalCode::Restarting => {
                tokio::task::yield_now().await;
            }
            other => return other,
        }
    }
}

#[tokio::test]
async fn a_driver_that_is_not_there_is_known_at_once() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let client = lab.client("alice").await?;
    // With this deadline the test ends only if the broker's own answer is enough.
    let far = client.driver(&lab.address()).with_deadline(Duration::from_secs(24 * 3600));
    let mut fastest = Duration::MAX; // the others wait for what else this machine does
    for _ in 0..10 {
        let asked = Instant::now();
        let error = TestDriverClient::new(far.clone()).echo(Bytes::new()).await.unwrap_err();
        fastest = fastest.min(asked.elapsed());
        assert!(matches!(error, CallError::NoDriver { .. }), "{error}");
        assert!(!error.may_have_acted());
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_device_fault_is_an_answer() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let error = bench.fail().await.unwrap_err();
    assert!(error.may_have_acted());
    let CallError::Fault { fault, .. } = error else { panic!("{error}") };
    assert_eq!((fault.kind, fault.text.as_str()), (FaultKind::Device, "the relay is stuck"));
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_driver_that_panicked_is_restarted_and_what_waited_for_it_is_refused()
-> anyhow::Result<()> {
    let (lab, driver, exporter, bench) = bench().await?;
    let mut calls = Box::pin(futures_util::future::join3(
        bench.hold("first".to_owned()),
        bench.explode(),
        bench.count(),
    ));
    // What is sent after them is answered after they were let in: both wait for the turn then.
    tokio::select! {
        biased;
        ended = &mut calls => panic!("they ended: {ended:?}"),
        answered = bench.fail_beside() => drop(answered.unwrap_err()),
    }
    driver.release.add_permits(1);
    let (held, exploded, waited) = calls.await;
    held?;
    let CallError::Fault { fault, .. } = exploded.unwrap_err() else { panic!("no fault") };
    assert_eq!(fault.kind, FaultKind::Panic);
    assert!(fault.text.contains("boom"), "{fault}");
    let CallError::Refused { refusal, .. } = waited.unwrap_err() else { panic!("it ran") };
    assert_eq!(refusal.code, RefusalCode::Restarting);
    assert_eq!(lab.counted(), Vec::<String>::new());
    when_restarted(|| bench.echo(Bytes::new())).await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_crash_loop_ends_in_a_failed_driver_with_its_last_error() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let failed = loop {
        match bench.explode().await.unwrap_err() {
            CallError::Fault { fault, .. } => assert_eq!(fault.kind, FaultKind::Panic),
            CallError::Refused { refusal, .. } if refusal.code == RefusalCode::Failed => {
                break refusal;
            }
            CallError::Refused { refusal, .. } => {
                assert_eq!(refusal.code, RefusalCode::Restarting);
            }
            other => panic!("{other}"),
        }
    };
    assert!(failed.text.contains("boom"), "{failed}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_call_that_waits_at_its_deadline_never_starts_and_a_running_one_is_stopped()
-> anyhow::Result<()> {
    let (lab, driver, exporter, bench) = bench().await?;
    let other = lab.client("bob").await?;
    let hasty = other.driver(&lab.address()).with_deadline(Duration::from_millis(300));
    let hasty = TestDriverClient::new(hasty);

    // One that runs is told by its token.
    let error = hasty.hold("running".to_owned()).await;
    driver.events.happened("cancelled running").await;
    drop(error);

    let holding = bench.hold("long".to_owned());
    let late = async {
        driver.events.happened("begin long").await;
        let error = hasty.hold("late".to_owned()).await.unwrap_err();
        let CallError::Refused { refusal, .. } = &error else { panic!("{error}") };
        assert_eq!(refusal.code, RefusalCode::Busy);
        assert!(refusal.text.contains("busy with hold"), "{refusal}");
        assert!(!error.may_have_acted());
        driver.release.add_permits(1);
    };
    let (held, ()) = tokio::join!(holding, late);
    held?;
    bench.echo(Bytes::new()).await?;
    assert!(!driver.events.all().contains(&"begin late".to_owned()));
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_the_next_gets_the_turn() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    tokio::select! {
        result = bench.hold("dropped".to_owned()) => panic!("it ended: {result:?}"),
        () = driver.events.happened("begin dropped") => {}
    }
    driver.events.happened("cancelled dropped").await;
    bench.echo(Bytes::new()).await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_blocks_keeps_its_turn_until_it_has_really_ended() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    tokio::select! {
        result = bench.block("blocking".to_owned()) => panic!("it ended: {result:?}"),
        () = driver.events.happened("begin blocking") => {}
    }
    // The call was dropped and its future ends 5 s later; the code goes on.
    let next = bench.hold("next".to_owned());
    let meanwhile = async {
        let beside = bench.hold_beside("beside".to_owned());
        tokio::select! {
            result = beside => panic!("it ended: {result:?}"),
            () = driver.events.happened("begin beside") => {}
        }
        driver.events.happened("cancelled beside").await;
        assert!(!driver.events.all().contains(&"begin next".to_owned()));
        driver.release.add_permits(1);
        driver.events.happened("end blocking").await;
        driver.events.happened("begin next").await;
        driver.release.add_permits(1);
    };
    let (next, ()) = tokio::join!(next, meanwhile);
    next?;
    let order = driver.events.all();
    let at = |what: &str| order.iter().position(|event| event == what);
    assert!(at("end blocking") < at("begin next"), "{order:?}");
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn exclusive_calls_run_in_order_of_arrival_and_concurrent_ones_do_not_wait()
-> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let calls = async {
        tokio::join!(
            bench.hold("a".to_owned()),
            bench.hold("b".to_owned()),
            bench.hold("c".to_owned()),
            bench.hold_beside("d".to_owned()),
        )
    };
    let release = async {
        driver.events.happened("begin a").await;
        driver.events.happened("begin d").await;
        driver.release.add_permits(4);
    };
    let (ended, ()) = tokio::join!(calls, release);
    let (a, b, c, d) = ended;
    assert_eq!([a?, b?, c?, d?], ["a", "b", "c", "d"]);
    let events = driver.events.all();
    let exclusive: Vec<_> = events.iter().filter(|event| !event.ends_with('d')).collect();
    assert_eq!(exclusive, ["begin a", "end a", "begin b", "end b", "begin c", "end c"]);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn an_open_streaming_call_does_not_block_an_exclusive_call() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let mut flood = bench.flood(10).await?;
    for _ in 0..10 {
        bench.count().await?;
        assert_eq!(flood.next().await.expect("it has no end")?.len(), 10);
    }
    drop(flood);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn forty_mebibytes_travel_each_way_and_more_than_64_are_refused() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let body: Bytes = (0..40 << 20).map(|at| (at / 1000 + at) as u8).collect::<Vec<_>>().into();
    let back = bench.echo(body.clone()).await?;
    assert!(back == body, "it came back as it went");
    drop((back, body));

    let too_large = bench.echo(vec![0; (64 << 20) + 1].into()).await.unwrap_err();
    assert!(matches!(too_large, CallError::Unsendable(_)), "{too_large}");
    assert!(!too_large.may_have_acted());
    let too_large = bench.produce((64 << 20) + 1).await.unwrap_err();
    let CallError::Fault { fault, .. } = &too_large else { panic!("{too_large}") };
    assert_eq!(fault.kind, FaultKind::TooLarge);
    assert!(fault.text.contains("over the limit of 67108864"), "{too_large}");
    assert!(too_large.may_have_acted());
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_full_queue_is_busy_and_says_its_bound() -> anyhow::Result<()> {
    let (_lab, driver, exporter, bench) = bench().await?;
    let max = bus_schema::limits::CALLS_PER_DRIVER_MAX;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..max {
        let bench = bench.clone();
        calls.spawn(async move { bench.hold_beside("full".to_owned()).await });
    }
    while driver.events.all().len() < max {
        tokio::task::yield_now().await;
    }
    let error = bench.echo(Bytes::new()).await.unwrap_err();
    let CallError::Refused { refusal, .. } = error else { panic!("{error}") };
    assert_eq!((refusal.code, refusal.limit), (RefusalCode::Busy, Some(max as u64)));
    driver.release.add_permits(max);
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    bench.echo(Bytes::new()).await?;
    exporter.shutdown(GRACE).await?;
    Ok(())
}

/// A call of `count` as another implementation would write it.
fn count(counter: u64) -> Call {
    Call {
        id: Some(CallId { session: Session(9), counter }),
        args: Bytes::from_static(&[0x90]),
        ..Call::default()
    }
}

#[tokio::test]
async fn replies_that_come_together_reach_each_its_call() -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let (peer, client) = (lab.peer().await?, lab.client("bob").await?);
    let bench = lab.bench(&client);
    let mut requests = peer.listen(&peer.subject("bob", DriverVerb::Call, "echo")).await?;
    let (one, two) = (bench.echo("one".into()), bench.echo("two".into()));
    let exporter = async {
        let mut replies = vec![("0000000000000000".to_owned(), "nobody waits for it".into())];
        let mut to = String::new();
        while replies.len() < 3 {
            let request = requests.next().await.expect("a request");
            let call: Call = codec::decode(&request.payload)?;
            anyhow::ensure!(call.together);
            to = request.reply.expect("a reply subject").to_string();
            let (_, token) = Inbox::split(&to).expect("it has tokens");
            let result: (Bytes,) = rmp_serde::from_slice(&call.args)?;
            let outcome = Outcome::Result(rmp_serde::to_vec(&result.0)?.into());
            replies.push((token.to_owned(), codec::encode(&Reply { outcome })));
        }
        peer.send(&to, None, None, codec::encode(&Replies { replies })).await
    };
    let (one, two, exporter) = tokio::join!(one, two, exporter);
    exporter?;
    assert_eq!((&*one?, &*two?), (&b"one"[..], &b"two"[..]));
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn of_many_calls_at_once_each_gets_its_own_result() -> anyhow::Result<()> {
    let (_lab, _, exporter, bench) = bench().await?;
    let calls = (0..500_u32).map(|at| {
        let bench = bench.clone();
        async move { (at, bench.echo(at.to_be_bytes().to_vec().into()).await) }
    });
    for (at, result) in futures_util::future::join_all(calls).await {
        assert_eq!(&*result?, &at.to_be_bytes());
    }
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn one_id_is_executed_once() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let subject = peer.subject("bob", DriverVerb::Call, "count");
    let send = async |call: Call| -> anyhow::Result<Outcome> {
        let answer = peer.request("bob", &subject, codec::encode(&call)).await?;
        Ok(codec::decode::<Reply>(&answer.payload)?.outcome)
    };
    let first = send(count(5)).await?;
    assert!(matches!(first, Outcome::Result(_)), "{first:?}");
    assert_eq!(send(count(5)).await?, first);
    assert_eq!(send(Call { attempt: 1, age_ms: 10, ..count(5) }).await?, first);
    assert_eq!(lab.counted(), ["bob 0000000000000009-5"]);

    let other = Call { form: Form::Words, args: vec![0x91, 0xa1, b'x'].into(), ..count(5) };
    let Outcome::Refused(refusal) = send(other).await? else { panic!("not refused") };
    assert_eq!(refusal.code, RefusalCode::IdReused);

    send(Call { done_below: 7, ..count(7) }).await?;
    assert_eq!(send(count(6)).await?, Outcome::Unknown(Unknown::Dropped));
    assert_eq!(lab.counted().len(), 2);

    // Another run of the exporter remembers nothing, and says so.
    exporter.shutdown(GRACE).await?;
    let exporter = lab.serve(lab.driver()).await?;
    let repeat = Call { attempt: 1, age_ms: 60_000, done_below: 7, ..count(7) };
    assert_eq!(send(repeat).await?, Outcome::Unknown(Unknown::Forgotten));
    assert_eq!(lab.counted().len(), 2);
    exporter.shutdown(GRACE).await?;
    Ok(())
}

#[tokio::test]
async fn a_plain_nats_client_calls_in_json_and_reads_errors_in_headers() -> anyhow::Result<()> {
    let (lab, _, exporter, _) = bench().await?;
    let peer = lab.peer().await?;
    let ask = async |method: &str, body: &'static str| {
        peer.request("bob", &peer.subject("bob", DriverVerb::Call, method), body).await
    };
    let answer = ask("count", "").await?;
    assert_eq!(&answer.payload[..], br#"{"result":null}"#);
    let code = |answer: &async_nats::Message| {
        let headers = answer.headers.as_ref()?;
        Some(headers.get("Nats-Service-Error-Code")?.as_str().to_owned())
    };
    assert_eq!(code(&ask("nothing", "{}").await?).as_deref(), Some("404"));
    assert_eq!(code(&ask("echo", r#"{"args":[1,2]}"#).await?).as_deref(), Some("400"));
    assert_eq!(code(&ask("echo", r#"{"args":"#).await?).as_deref(), Some("400"));
    assert_eq!(code(&ask("flood", "{}").await?).as_deref(), Some("405"));
    let failed = ask("fail", "{}").await?;
    assert_eq!(code(&failed).as_deref(), Some("500"));
    let error: serde_json::Value = serde_json::from_slice(&failed.payload)?;
    assert_eq!(error["error"]["kind"], "fault");
    assert_eq!(error["error"]["text"], "the relay is stuck");
    assert_eq!(lab.counted().len(), 1);
    // As `nats req` does it: the inbox is nobody's, and neither does the broker know anybody.
    let by_hand = peer.nats.request(peer.subject("bob", DriverVerb::Call, "count"), "".into());
    assert_eq!(&by_hand.await?.payload[..], br#"{"result":null}"#);
    exporter.shutdown(GRACE).await?;
    Ok(())
}
