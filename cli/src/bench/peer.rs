//! The responders of the bench: what runs in the other process.

use bus_schema::{Fault, Root, driver};
use bytes::Bytes;
use runtime::{
    ByteStream, Exporter, ExporterConfig, Items, Node, Settings,
    floor::{Bare, BareMessages},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};

use super::PeerKind;

/// Bytes of one chunk of the floor's stream: the size at which core NATS moves most.
pub(crate) const FLOOR_CHUNK: usize = 64 << 10;
/// Bytes of one item.
pub(crate) const ITEM: usize = 128;
/// Items that the floor packs into one message.
pub(crate) const PACKED: usize = (64 << 10) / ITEM;
/// Exporters of the fleet, and drivers of each.
pub(crate) const FLEET: (usize, usize) = (100, 100);
/// Drivers of one exporter that nobody calls.
pub(crate) const IDLE: usize = 10_000;

/// The subjects of the floor. They are no subjects of the protocol, and live beside its root.
pub(crate) fn echo_subject(root: &Root) -> String {
    format!("floor-{root}.echo")
}

pub(crate) fn many_subject(root: &Root, at: impl std::fmt::Display) -> String {
    format!("floor-{root}.many.{at}")
}

pub(crate) fn produce_subject(root: &Root) -> String {
    format!("floor-{root}.produce")
}

pub(crate) fn data_subject(root: &Root) -> String {
    format!("floor-{root}.data")
}

/// A subject that JetStream captures, as it captures records.
pub(crate) fn stored_subject(root: &Root) -> String {
    bus_schema::subject::FromExporter::out_all(root).replace(".*.", ".floor.").replace('>', "items")
}

/// Where the floor orders parts to be fetched.
pub(crate) fn fetch_subject(root: &Root) -> String {
    format!("floor-{root}.fetch")
}

/// A subject that JetStream captures, as it captures blocks.
pub(crate) fn part_subject(root: &Root, at: usize) -> String {
    bus_schema::subject::Stored::all(root).replace('>', &format!("floor.{at}"))
}

/// The driver that is called.
pub(crate) struct BenchDriver;

#[driver]
impl BenchDriver {
    /// Gives bytes back.
    #[export]
    async fn echo(&self, bytes: Bytes) -> Bytes {
        bytes
    }

    /// Gives a text back.
    #[export]
    async fn echo_text(&self, text: String) -> String {
        text
    }

    /// Gives `count` items of `size` bytes.
    #[export]
    async fn items(&self, count: u64, size: u64, items: Items<Bytes>) -> Result<(), Fault> {
        let item = Bytes::from(vec![0x5a; usize::try_from(size).unwrap_or(0)]);
        for _ in 0..count {
            items.send(item.clone()).await?;
        }
        Ok(())
    }

    /// Sends `bytes` bytes.
    #[export]
    async fn source(&self, bytes: u64, mut stream: ByteStream) -> std::io::Result<()> {
        let mut source = tokio::io::repeat(0x5a).take(bytes);
        let mut block = vec![0; FLOOR_CHUNK];
        loop {
            match source.read(&mut block).await? {
                0 => return stream.shutdown().await,
                n => stream.write_all(&block[..n]).await?,
            }
        }
    }

    /// Sends back what comes.
    #[export]
    async fn loop_back(&self, stream: ByteStream) -> std::io::Result<()> {
        let (mut read, mut write) = tokio::io::split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await
    }
}

/// Serves as one side's responder until standard input is closed. `ready` is called when it can
/// be asked.
///
/// # Errors
///
/// A broker that cannot be reached.
pub async fn serve_as(
    kind: PeerKind,
    settings: Settings,
    root: Root,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let mut exporters = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut state = None;
    match kind {
        PeerKind::Floor => {
            let bare = Bare::connect(&settings).await?;
            let echo = (bare.clone(), echo_subject(&root));
            tasks.spawn(async move { echo.0.echo(echo.1).await });
            let many = (bare.clone(), many_subject(&root, "*"));
            tasks.spawn(async move { many.0.echo(many.1).await });
            let orders = bare.subscribe(produce_subject(&root)).await?;
            let fetches = bare.subscribe(fetch_subject(&root)).await?;
            tasks.spawn(fetch(bare.clone(), fetches, root.clone()));
            tasks.spawn(produce(bare, orders, root));
        }
        PeerKind::Bus => {
            // Gone with this process, or with the next bench if this one is killed.
            let dir = state.insert(runtime::ScratchDir::new("bench")?).path().to_owned();
            let disk = actors::FileStorage::new(super::files::medium(&dir)?)?;
            let node = Node::of("bench", BenchDriver).with_child("disk", Node::of("storage", disk));
            let config = ExporterConfig::new("bench-bus".parse()?, node);
            // Leases are written down, as they are wherever boards are served.
            let config = ExporterConfig { root, state_dir: Some(dir), ..config };
            exporters.push(Exporter::start(config, settings).await?);
        }
        PeerKind::FloorIdle => {
            let bare = Bare::connect(&settings).await?;
            let mut idle = Vec::with_capacity(IDLE);
            for at in 0..IDLE {
                idle.push(bare.subscribe_only(many_subject(&root, at)).await?);
            }
            bare.round_trip().await;
            tasks.spawn(async move {
                let _kept = idle;
                std::future::pending().await
            });
        }
        PeerKind::Idle => {
            let node = with_children(IDLE);
            let config = ExporterConfig::new("bench-idle".parse()?, node);
            exporters.push(Exporter::start(ExporterConfig { root, ..config }, settings).await?);
        }
        PeerKind::Fleet => {
            let (count, drivers) = FLEET;
            for at in 0..count {
                let node = with_children(drivers);
                let config = ExporterConfig::new(format!("bench-{at}").parse()?, node);
                let config = ExporterConfig { root: root.clone(), ..config };
                exporters.push(Exporter::start(config, settings.clone()).await?);
            }
        }
    }
    ready();
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await?;
    drop(state); // it was there as long as its exporter
    Ok(())
}

fn with_children(drivers: usize) -> Node {
    (0..drivers).fold(Node::of("bench", BenchDriver), |node, child| {
        node.with_child(format!("d{child}"), Node::of("bench", BenchDriver))
    })
}

/// Fetches as many parts as the requester orders, and says how many bytes came.
async fn fetch(bare: Bare, mut orders: BareMessages, root: Root) -> Result<(), runtime::BusError> {
    // As many as blocks have on their way.
    const IN_FLIGHT: usize = 32;
    let stream = bus_schema::subject::Streams::of(&root).files;
    let get = |at| bus_schema::subject::Streams::direct_get(&stream, &part_subject(&root, at));
    while let Some((order, reply)) = orders.next_request().await {
        let parts = String::from_utf8_lossy(&order).parse().unwrap_or(0);
        let bytes = bare.fetch_many(get, parts, IN_FLIGHT).await?;
        if let Some(reply) = reply {
            bare.publish(reply, bytes.to_string().into()).await?;
        }
    }
    Ok(())
}

/// Produces what the requester orders: `stored one|packed N`, or `chunks N`.
async fn produce(
    bare: Bare,
    mut orders: BareMessages,
    root: Root,
) -> Result<(), runtime::BusError> {
    // Enough to keep JetStream busy and far below any limit.
    const IN_FLIGHT: usize = 512;
    while let Some((order, reply)) = orders.next_request().await {
        let order = String::from_utf8_lossy(&order).into_owned();
        let (what, count) = order.rsplit_once(' ').unwrap_or((&order, "0"));
        let count: usize = count.parse().unwrap_or(0);
        match what {
            "one" => {
                let item = Bytes::from(vec![0x5a; ITEM]);
                bare.store(stored_subject(&root), item, count, IN_FLIGHT).await?;
            }
            "packed" => {
                let packed = Bytes::from(vec![0x5a; ITEM * PACKED]);
                bare.store(stored_subject(&root), packed, count / PACKED, IN_FLIGHT / 8).await?;
            }
            _ => {
                let chunk = Bytes::from(vec![0x5a; FLOOR_CHUNK]);
                for _ in 0..count {
                    bare.publish(data_subject(&root), chunk.clone()).await?;
                }
            }
        }
        if let Some(reply) = reply {
            bare.publish(reply, Bytes::from_static(b"done")).await?;
        }
    }
    Ok(())
}
