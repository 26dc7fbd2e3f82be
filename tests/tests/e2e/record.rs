//! The record of a streaming call, and the registry.

use std::sync::Arc;

use bus_schema::{Fault, Target, driver, message::Form};
use runtime::{Items, serve};
use tokio::sync::Notify;

struct Counter;

#[driver]
impl Counter {
    /// Counts up to `n`.
    #[export]
    async fn count(&self, n: u64, items: Items<u64>) -> Result<(), Fault> {
        for i in 0..n {
            items.send(i).await?;
        }
        Ok(())
    }
}

fn args(n: u64) -> bytes::Bytes {
    bus_schema::encode_value(&[n]).expect("a number").into()
}

#[tokio::test]
async fn a_consumer_that_attaches_after_the_end_reads_every_item() -> anyhow::Result<()> {
    let served = serve(Counter).await.map_err(anyhow::Error::from_boxed)?;
    const N: u64 = 20_000;
    let mut call = served.driver().start("count", Form::Typed, args(N), None, false).await?;
    let mut live = 0;
    while let Some(item) = call.items.next().await {
        assert_eq!(rmp_serde::from_slice::<u64>(&item?)?, live);
        live += 1;
    }
    assert_eq!(live, N);
    assert_eq!(call.items.ended().expect("it ended").items, N);

    let owner = served.client().name().clone();
    for follow in [false, true] {
        let mut record = served.client().attach(&owner, call.id, follow).await?;
        assert_eq!(record.begin.method, "count");
        let mut replayed = 0;
        while let Some(item) = record.next().await {
            assert_eq!(rmp_serde::from_slice::<u64>(&item?)?, replayed);
            replayed += 1;
        }
        assert_eq!(replayed, N);
        assert_eq!(record.end().expect("its end is recorded").recorded, None);
    }
    drop(call);
    served.shutdown().await?;
    Ok(())
}

/// Gives half of its items, and the other half when it is let go on.
struct Halves(Arc<Notify>);

#[driver]
impl Halves {
    /// Counts up to twice `n`.
    #[export]
    async fn count(&self, n: u64, items: Items<u64>) -> Result<(), Fault> {
        for i in 0..2 * n {
            if i == n {
                self.0.notified().await;
            }
            items.send(i).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_consumer_that_attaches_in_the_middle_reads_from_the_first_item_to_the_last()
-> anyhow::Result<()> {
    const N: u64 = 5_000;
    let go_on = Arc::new(Notify::new());
    let served = serve(Halves(go_on.clone())).await.map_err(anyhow::Error::from_boxed)?;
    let mut call = served.driver().start("count", Form::Typed, args(N), None, false).await?;
    for i in 0..N {
        let item = call.items.next().await.expect("an item")?;
        assert_eq!(rmp_serde::from_slice::<u64>(&item)?, i);
    }

    let owner = served.client().name().clone();
    let mut so_far = served.client().attach(&owner, call.id, false).await?;
    let mut replayed = 0;
    while let Some(item) = so_far.next().await {
        assert_eq!(rmp_serde::from_slice::<u64>(&item?)?, replayed);
        replayed += 1;
    }
    assert_eq!(replayed, N, "a replay is what there is so far");

    let mut late = served.client().attach(&owner, call.id, true).await?;
    for i in 0..2 * N {
        if i == N {
            go_on.notify_one();
        }
        let item = late.next().await.expect("an item")?;
        assert_eq!(rmp_serde::from_slice::<u64>(&item)?, i);
    }
    assert!(late.next().await.is_none());
    assert_eq!(late.end().expect("its end").items, 2 * N);
    while let Some(item) = call.items.next().await {
        item?; // the caller takes the rest
    }
    drop((late, so_far, call));
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn the_registry_knows_the_tree_and_its_signatures() -> anyhow::Result<()> {
    let served = serve(Counter).await.map_err(anyhow::Error::from_boxed)?;
    let registry = served.client().registry();
    let exporters = registry.exporters().await?;
    assert_eq!(exporters.len(), 1, "{exporters:?}");
    let found = registry.resolve(&Target::Id(served.driver().id())).await?.expect("it is there");
    let interfaces = registry.interfaces(&found.record, &found.exporter).await?;
    let count = interfaces[0].method("count").expect("it is exported");
    assert_eq!(count.to_string(), "count(n: u64) -> stream of u64");
    assert_eq!(registry.select(&"interface=counter".parse()?).await?, [found]);
    served.shutdown().await?;
    Ok(())
}
