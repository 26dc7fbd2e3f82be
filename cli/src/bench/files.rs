//! A flash to a file, beside the same bytes moved into JetStream and then out of it, with nothing
//! around them.

use std::{fs::File, time::Instant};

use actors::{MediumConfig, StorageClient};
use bytes::Bytes;
use runtime::{Lend, Put};

use super::{
    Sides,
    peer::{fetch_subject, part_subject},
    row::{Row, Target, measure},
    streams::mib_per_second,
};

/// Bytes of one part: those that blocks are stored in.
const PART: usize = 512 << 10;
/// Parts on their way at once, as with blocks.
const AT_ONCE: usize = 32;

/// Stores an image that nobody has seen before, and writes it to a file at the exporter.
pub(crate) async fn flash(sides: &Sides) -> anyhow::Result<Row> {
    let parts = sides.scaled(256);
    let (root, client) = (&sides.bench.root, &sides.client);
    let dir = tempfile::tempdir()?;
    let (image, back) = (dir.path().join("image"), dir.path().join("back"));
    let disk = StorageClient::new(client.driver(&"bench-bus/disk".parse()?));
    let seeds = std::cell::Cell::new(1_u64);
    let next = || {
        seeds.set(seeds.get() + 1);
        noise(parts * PART, seeds.get())
    };
    let floor = || {
        let bytes = Bytes::from(next());
        async move {
            let began = Instant::now();
            let part = |at: usize| bytes.slice(at * PART..(at + 1) * PART);
            sides.bare.store_each(|at| part_subject(root, at), part, parts, AT_ONCE).await?;
            let fetched = sides.bare.request(fetch_subject(root), parts.to_string().into()).await?;
            anyhow::ensure!(fetched == (parts * PART).to_string(), "{fetched:?} came");
            Ok(mib_per_second(parts * PART, began.elapsed()))
        }
    };
    let bus = || {
        // What lies on a disk was written there some time ago: nobody waits for that now.
        let written = std::fs::write(&image, next()).and_then(|()| File::open(&image)?.sync_all());
        let (image, disk) = (&image, &disk);
        async move {
            written?;
            let began = Instant::now();
            let storing = client.store(Put::new(image)).await?;
            disk.write(Lend::from(&storing), 0, false).await?;
            storing.stored().await?;
            Ok(mib_per_second(parts * PART, began.elapsed()))
        }
    };
    let row = measure(sides, &sides.bus_peer, "flash", "MiB/s", Target::AtLeast(0.8), floor, bus);
    let row = row.await?;
    disk.read(Lend::writer(tokio::fs::File::create(&back).await?), 0, None).await?;
    let is_same = std::fs::read(back)? == std::fs::read(image)?;
    anyhow::ensure!(is_same, "the medium does not have the image");
    Ok(row)
}

/// The medium that the exporter writes to.
pub(crate) fn medium(dir: &std::path::Path) -> std::io::Result<MediumConfig> {
    let path = dir.join("disk");
    std::fs::write(&path, b"")?;
    Ok(MediumConfig { path, size: None })
}

/// Bytes that no packer makes smaller.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
