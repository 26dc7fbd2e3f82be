//! A client in another language, written from PROTOCOL.md alone: it proves the document.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bus_schema::{Fault, FaultKind, driver};
use runtime::{Auth, ByteStream, Items, LocalBroker, serve};
use tokio::{
    io::{AsyncWriteExt as _, copy, split},
    process::Command,
};

/// The seed's example, and what a second client should have seen besides.
#[derive(Default)]
struct Example {
    counted: AtomicU64,
}

#[driver]
impl Example {
    /// Gives the message back.
    #[export]
    fn echo(&self, message: String) -> String {
        message
    }

    /// Says how long it would wait.
    #[export]
    async fn wait(&self, gap: Duration, #[default(1)] times: u32) -> Duration {
        gap * times
    }

    /// Fails.
    #[export]
    async fn fail(&self, text: String) -> Result<(), Fault> {
        Err(Fault::device(text))
    }

    /// Counts its calls.
    #[export]
    async fn count(&self) -> u64 {
        self.counted.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives the message back ten times.
    #[export]
    async fn echo_generator(&self, message: String, items: Items<String>) -> Result<(), Fault> {
        for _ in 0..10 {
            items.send(message.clone()).await?;
        }
        Ok(())
    }

    /// Gives two items, then fails.
    #[export]
    async fn break_off(&self, items: Items<u32>) -> Result<(), Fault> {
        items.send(1).await?;
        items.send(2).await?;
        Err(Fault::new(FaultKind::Io, "torn"))
    }

    /// Gives every byte back, and then says goodbye.
    #[export]
    async fn reflect(&self, stream: ByteStream) -> io::Result<()> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.write_all(b"bye").await?;
        write.shutdown().await
    }
}

#[tokio::test]
async fn a_client_written_from_the_document_alone_gets_along() -> anyhow::Result<()> {
    let served = serve(Example::default()).await.map_err(anyhow::Error::from_boxed)?;
    let settings = LocalBroker::shared().await?.connect_settings();
    let Auth::Token(token) = &settings.auth else { anyhow::bail!("the local broker has a token") };
    let server = settings.servers[0].trim_start_matches("nats://");
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second_client.py"))
        .args([server, token.expose(), served.client().root().as_str()])
        .arg(served.exporter().name().as_str())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all is as PROTOCOL.md says\n");
    served.shutdown().await?;
    Ok(())
}
