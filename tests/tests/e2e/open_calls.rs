//! A stream lives as long as itself, whatever else its client does meanwhile.

use bus_schema::{Fault, driver, message::Form};
use runtime::{ByteStream, Client, Items, LocalBroker, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split},
    sync::Notify,
};

#[derive(Default)]
struct Mirror {
    go: Notify,
}

#[driver]
impl Mirror {
    /// Gives the message back.
    #[export]
    async fn echo(&self, message: String) -> String {
        message
    }

    /// Lets `two` go on.
    #[export]
    async fn go(&self) {
        self.go.notify_one();
    }

    /// Gives two items, the second when it is told to.
    #[export]
    async fn two(&self, items: Items<u32>) -> Result<(), Fault> {
        items.send(1).await?;
        self.go.notified().await;
        items.send(2).await?;
        Ok(())
    }

    /// Gives every byte back.
    #[export]
    async fn reflect(&self, stream: ByteStream) -> std::io::Result<()> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    }
}

#[tokio::test]
async fn calls_do_not_end_a_stream_that_was_opened_before_them() -> anyhow::Result<()> {
    let served = serve(Mirror::default()).await.map_err(anyhow::Error::from_boxed)?;
    let mirror = MirrorClient::new(served.driver());
    let mut stream = mirror.reflect().await?;
    for round in 0..3_u8 {
        assert_eq!(mirror.echo("hi".to_owned()).await?, "hi");
        stream.write_all(&[round]).await?;
        assert_eq!(stream.read_u8().await?, round);
    }
    stream.shutdown().await?;
    assert_eq!(stream.read_to_end(&mut Vec::new()).await?, 0);
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_detached_streaming_call_goes_on_without_its_caller() -> anyhow::Result<()> {
    let served = serve(Mirror::default()).await.map_err(anyhow::Error::from_boxed)?;
    let (mirror, root) = (MirrorClient::new(served.driver()), served.client().root().clone());
    let settings = LocalBroker::shared().await?.connect_settings();
    let caller = Client::connect(settings, root, "caller".parse()?).await?;
    let driver = caller.driver_by_id(served.exporter().name().clone(), served.driver().id());
    let mut call = driver.start("two", Form::Typed, vec![0x90].into(), None, true).await?;
    assert_eq!(call.items.next().await.expect("the first item")?[..], [1]);
    let (owner, id) = (caller.name().clone(), call.id);
    drop((call, driver));
    caller.close().await;

    mirror.go().await?;
    let mut record = served.client().attach(&owner, id, true).await?;
    let mut items = Vec::new();
    while let Some(item) = record.next().await {
        items.push(item?[0]);
    }
    assert_eq!(items, [1, 2]);
    assert_eq!(record.end().expect("it ended").fault, None);
    served.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_record_is_closed_when_its_caller_gives_the_call_up() -> anyhow::Result<()> {
    let served = serve(Mirror::default()).await.map_err(anyhow::Error::from_boxed)?;
    let driver = served.driver();
    let mut call = driver.start("two", Form::Typed, vec![0x90].into(), None, false).await?;
    assert_eq!(call.items.next().await.expect("the first item")?[..], [1]);
    let (owner, id) = (served.client().name().clone(), call.id);
    drop((call, driver));

    let mut record = served.client().attach(&owner, id, true).await?;
    assert_eq!(record.next().await.expect("the first item")?[..], [1]);
    let end = record.next().await.expect("how it ended");
    assert!(end.is_err(), "{end:?}");
    assert_eq!(
        record.end().and_then(|end| end.fault.clone()).expect("a fault").kind.as_str(),
        "cancelled"
    );
    // The method that did not look is cut off after as long as a shutdown waits for it.
    MirrorClient::new(served.driver()).go().await?;
    served.shutdown().await?;
    Ok(())
}
