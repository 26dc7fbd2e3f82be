//! A client in another language, written from PROTOCOL.md alone: it proves the document.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bus_schema::{Fault, FaultKind, driver};
use bus_tests::Lab;
use bytes::Bytes;
use runtime::{ByteStream, Context, Items, Node};
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

    /// Gives `count` items of so many bytes.
    #[export]
    async fn flood(&self, bytes: u64, count: u64, items: Items<Bytes>) -> Result<(), Fault> {
        let item = Bytes::from(vec![7; usize::try_from(bytes).unwrap_or(1)]);
        for _ in 0..count {
            items.send(item.clone()).await?;
        }
        Ok(())
    }

    /// Waits until it is cancelled, beside others.
    #[export]
    #[method(concurrent)]
    async fn hold(&self, cx: &Context) {
        cx.cancelled().await;
    }

    /// Gives nothing until it is cancelled.
    #[export]
    async fn silence(&self, cx: &Context, items: Items<u64>) {
        cx.cancelled().await;
        drop(items);
    }

    /// Gives every byte back.
    #[export]
    async fn reflect(&self, stream: ByteStream) -> io::Result<()> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    }

    /// Gives bytes without end.
    #[export]
    async fn pour(&self, mut stream: ByteStream) -> io::Result<()> {
        loop {
            stream.write_all(&[0x55; 10_000]).await?;
        }
    }

    /// Fails at once.
    #[export]
    async fn tear(&self, stream: ByteStream) -> Result<(), Fault> {
        drop(stream);
        Err(Fault::new(FaultKind::Io, "torn"))
    }

    /// Gives every byte back, and then says goodbye.
    #[export]
    async fn part(&self, stream: ByteStream) -> io::Result<()> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.write_all(b"bye").await?;
        write.shutdown().await
    }
}

/// Runs a script of the second client against the drivers of `bench`.
async fn gets_along(script: &str, node: impl Into<Node>) -> anyhow::Result<()> {
    let lab = Lab::new().await?;
    let exporter = lab.serve(node).await?;
    let server = lab.settings.servers[0].trim_start_matches("nats://");
    let output = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script))
        .args([server, &lab.token()?, lab.root.as_str(), exporter.name().as_str()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "all is as PROTOCOL.md says\n");
    exporter.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_written_from_the_document_alone_gets_along() -> anyhow::Result<()> {
    gets_along("second_client.py", Example::default()).await
}

#[tokio::test]
async fn its_streams_keep_to_credit_and_its_payloads_and_records_are_whole() -> anyhow::Result<()> {
    gets_along("second_client_streams.py", Example::default()).await
}

#[tokio::test]
async fn it_reads_versions_and_records_leases_boards_and_is_refused_at_the_limits()
-> anyhow::Result<()> {
    let tree = (1..=4).fold(Node::of("example", Example::default()), |tree, number| {
        tree.with_child(format!("d{number}"), Node::of("example", Example::default()))
    });
    gets_along("second_client_desk.py", tree).await
}
