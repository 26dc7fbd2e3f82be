//! A broker that is killed and comes back, and an exporter that does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bus_schema::message::Unknown;
use bus_tests::{ExporterProcess, Lab, TestDriverClient};
use runtime::{BrokerOptions, CallError, Client, LocalBroker};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    sync::watch,
    task::JoinSet,
};

const EXPORTER: &str = env!("CARGO_BIN_EXE_test-exporter");
const GRACE: Duration = Duration::from_secs(10);
const CLIENTS: usize = 8;

/// What the load has done so far, so that the test acts in the middle of it.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<watch::Sender<bool>>,
    done: Arc<watch::Sender<usize>>,
}

impl Load {
    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    fn did_one(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// Waits until this much more was done.
    async fn goes_on(&self, more: usize) {
        let until = *self.done.borrow() + more;
        let mut done = self.done.subscribe();
        drop(done.wait_for(|done| *done >= until).await.expect("the load has its sender"));
    }
}

/// Calls the counter until the load is over; says how many calls had a result, and which errors.
async fn call(lab: Arc<Lab>, client: Client, load: Load) -> (usize, Vec<CallError>) {
    let bench = lab.bench(&client);
    let (mut counted, mut errors) = (0, Vec::new());
    while !load.is_over() {
        match bench.count().await {
            Ok(()) => {
                counted += 1;
                load.did_one();
            }
            Err(error) => errors.push(error),
        }
        tokio::task::yield_now().await;
    }
    client.close().await;
    (counted, errors)
}

/// Writes and reads numbered bytes until the load is over, and to the end.
async fn stream(lab: Arc<Lab>, client: Client, load: Load) -> anyhow::Result<u64> {
    let (mut read, mut write) = split(lab.bench(&client).reflect().await?);
    let (over, sent) = (load.clone(), watch::Sender::new(u64::MAX));
    let writing = async {
        let mut at = 0_u64;
        while !over.is_over() {
            write.write_all(&at.to_be_bytes()).await?;
            at += 1;
        }
        write.shutdown().await?;
        sent.send_replace(at);
        anyhow::Ok(at)
    };
    let reading = async {
        let mut at = 0_u64;
        loop {
            match read.read_u64().await {
                Ok(number) => anyhow::ensure!(number == at, "{number} came where {at} was due"),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(at),
                Err(error) => return Err(error.into()),
            }
            at += 1;
        }
    };
    let (wrote, came) = tokio::try_join!(writing, reading)?;
    anyhow::ensure!(wrote == came, "{wrote} were written, {came} came");
    client.close().await;
    Ok(came)
}

/// Reads numbers until the load is over; every one is the next.
async fn items(lab: Arc<Lab>, client: Client, load: Load) -> anyhow::Result<u64> {
    let mut numbers = lab.bench(&client).numbers(u64::MAX).await?;
    let mut at = 0;
    while !load.is_over() {
        let number = numbers.next().await.ok_or_else(|| anyhow::anyhow!("it ended"))??;
        anyhow::ensure!(number == at, "{number} came where {at} was due");
        at += 1;
    }
    drop(numbers);
    client.close().await;
    Ok(at)
}

fn assert_no_id_twice(lab: &Lab) {
    let mut seen = HashSet::new();
    for id in lab.counted() {
        assert!(seen.insert(id.clone()), "{id} was executed twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_under_load_costs_no_byte_no_item_and_no_second_execution()
-> anyhow::Result<()> {
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let lab = Arc::new(Lab::on(&broker).await?);
    let exporter = lab.serve(lab.driver()).await?;
    let load = Load::default();
    let mut calls = JoinSet::new();
    for at in 0..CLIENTS {
        calls.spawn(call(lab.clone(), lab.client(&format!("caller-{at}")).await?, load.clone()));
    }
    let mut pipes = JoinSet::new();
    pipes.spawn(stream(lab.clone(), lab.client("streamer").await?, load.clone()));
    pipes.spawn(items(lab.clone(), lab.client("reader").await?, load.clone()));

    load.goes_on(100).await;
    for _ in 0..2 {
        broker.kill().await;
        broker.start_again().await?;
        load.goes_on(100).await;
    }
    load.stop.send_replace(true);
    let mut results = 0;
    while let Some(ended) = calls.join_next().await {
        let (counted, errors) = ended?;
        results += counted;
        // What was on its way when the broker went has a result, and what was made anew waited for
        // the exporter to be back.
        assert!(errors.is_empty(), "{errors:?}");
    }
    while let Some(ended) = pipes.join_next().await {
        assert!(ended?? > 0);
    }
    assert_no_id_twice(&lab);
    assert!(lab.counted().len() >= results, "every call with a result was executed");
    exporter.shutdown(GRACE).await?;
    broker.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_and_exporter_killed_together_execute_nothing_twice() -> anyhow::Result<()> {
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let lab = Arc::new(Lab::on(&broker).await?);
    let exporter = lab.spawn(EXPORTER).await?;
    let load = Load::default();
    let mut calls = JoinSet::new();
    for at in 0..CLIENTS {
        calls.spawn(call(lab.clone(), lab.client(&format!("caller-{at}")).await?, load.clone()));
    }
    load.goes_on(100).await;
    broker.kill().await;
    exporter.kill().await?;
    broker.start_again().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    load.goes_on(100).await;
    load.stop.send_replace(true);
    let (mut results, mut unknown) = (0, 0);
    while let Some(ended) = calls.join_next().await {
        let (counted, errors) = ended?;
        results += counted;
        for error in errors {
            match error {
                CallError::OutcomeUnknown { why: Unknown::Forgotten, .. } => unknown += 1,
                CallError::NoDriver { .. } => {} // made anew, before the exporter was back
                CallError::Lost { .. } => unknown += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert_no_id_twice(&lab);
    let executed = lab.counted().len();
    assert!((results..=results + unknown).contains(&executed), "{results} {unknown} {executed}");
    exporter.kill().await?;
    broker.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_executed_before_broker_and_exporter_died_is_unknown() -> anyhow::Result<()>
{
    let mut broker = LocalBroker::start(BrokerOptions::default()).await?;
    let lab = Arc::new(Lab::on(&broker).await?);
    let exporter = lab.spawn(EXPORTER).await?;
    let client = lab.client("alice").await?;
    let mut calling = JoinSet::new();
    calling.spawn({
        let (lab, client) = (lab.clone(), client.clone());
        async move { lab.bench(&client).count_and_hang().await }
    });
    while lab.counted().is_empty() {
        tokio::task::yield_now().await;
    }
    broker.kill().await;
    exporter.kill().await?;
    broker.start_again().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    let error = calling.join_next().await.expect("it was spawned")?.unwrap_err();
    let CallError::OutcomeUnknown { why, .. } = &error else { panic!("{error}") };
    assert_eq!(*why, Unknown::Forgotten);
    assert!(error.may_have_acted());
    // The next one is executed, and the first was not executed again.
    lab.bench(&client).count().await?;
    assert_eq!(lab.counted().len(), 2);
    client.close().await;
    exporter.kill().await?;
    broker.stop().await;
    Ok(())
}

/// A lab whose exporter is a process of its own.
async fn killable() -> anyhow::Result<(Lab, ExporterProcess, Client)> {
    let lab = Lab::new().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    let client = lab.client("alice").await?;
    Ok((lab, exporter, client))
}

#[tokio::test]
async fn an_exporter_killed_in_a_call_ends_it_as_one_that_may_have_acted() -> anyhow::Result<()> {
    let (lab, exporter, client) = killable().await?;
    let bench = TestDriverClient::new(
        client.driver(&lab.address()).with_deadline(Duration::from_secs(3600)),
    );
    let calling = bench.hold("killed".to_owned());
    tokio::pin!(calling);
    // `hold` has the turn when a call beside it is answered.
    tokio::select! {
        ended = &mut calling => panic!("it ended: {ended:?}"),
        answered = bench.fail_beside() => drop(answered.unwrap_err()),
    }
    exporter.kill().await?;
    let error = calling.await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
    assert!(error.may_have_acted());
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn an_exporter_killed_in_a_stream_or_streaming_call_ends_both_in_an_error()
-> anyhow::Result<()> {
    let (lab, exporter, client) = killable().await?;
    let bench = lab.bench(&client);
    let mut numbers = bench.numbers(u64::MAX).await?;
    let mut stream = bench.reflect().await?;
    stream.write_all(b"x").await?;
    assert_eq!(stream.read_u8().await?, b'x');
    assert_eq!(numbers.next().await.expect("it has no end")?, 0);
    exporter.kill().await?;
    stream.write_all(b"y").await?;
    let broken = stream.read_u8().await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset, "{broken}");
    let error = loop {
        match numbers.next().await.expect("an error, not an end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CallError::Broken { .. }), "{error}");
    assert!(error.may_have_acted());
    client.close().await;
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_exporter_was_restarted_is_reset() -> anyhow::Result<()> {
    let (lab, exporter, client) = killable().await?;
    let mut stream = lab.bench(&client).reflect().await?;
    exporter.kill().await?;
    let exporter = lab.spawn(EXPORTER).await?;
    stream.write_all(b"x").await?;
    let broken = stream.read_u8().await.unwrap_err();
    assert!(broken.to_string().contains("no such stream"), "{broken}");
    client.close().await;
    exporter.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_second_exporter_of_a_name_is_refused_and_a_silent_one_is_taken_over()
-> anyhow::Result<()> {
    let (lab, exporter, client) = killable().await?;
    let error = lab.serve(lab.driver()).await.unwrap_err().to_string();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    assert!(error.contains("an exporter named bench is up already"), "{error}");
    assert!(error.contains(host.trim()), "{error}");
    lab.bench(&client).count().await?;

    exporter.kill().await?;
    let second = lab.serve(lab.driver()).await?;
    lab.bench(&client).count().await?;
    client.close().await;
    second.shutdown(GRACE).await?;
    Ok(())
}
