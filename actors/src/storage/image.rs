//! Images on their way to a medium and back.

use std::sync::Arc;

use bus_schema::{Fault, Packing};
use ring::digest::{Context as Sha256, SHA256};
use runtime::{Context, Extent, Resource, ResourceWriter};
use tokio::io::AsyncWriteExt as _;

use super::{Written, medium::Medium, meter::Meter};

/// Bytes that are read from a medium at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Extents that are written at once, if they are there.
const RUN_MAX: usize = 16;
/// What was written is brought onto the medium in such steps, while more is on its way: progress is
/// that of the medium, and not of the host's memory, but for two of them.
const SYNC_BYTES: u64 = 16 << 20;
/// Zeros that are hashed at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes an image. It is on the medium when this returns, and was not damaged on its way.
pub(crate) async fn write(
    cx: &Context,
    meter: &Meter,
    mut source: Resource,
    medium: Medium,
    offset: u64,
    verify: bool,
) -> Result<Written, Fault> {
    let info = source.info().await?;
    if let Some(bytes) = info.bytes {
        medium.check_room(offset, bytes)?; // before anything is overwritten
    }
    let medium = Arc::new(medium);
    let doing = meter.begin("write", info.bytes);
    // What came was checked on its way, and what is lent with its digest has it when its end has
    // come. To hash it once more takes longer than to write it.
    let known = source.sha256().filter(|_| info.packing == Packing::None);
    let mut hasher = (verify && known.is_none()).then(|| Sha256::new(&SHA256));
    let (mut at, mut holes, mut synced, mut syncing) = (offset, 0, offset, None);
    while let Some(first) = source.next().await? {
        // What is here goes along: to change threads may take longer than to write.
        let mut run = vec![first];
        while run.len() < RUN_MAX
            && let Some(extent) = source.ready()
        {
            run.push(extent);
        }
        holes += run.iter().filter(|extent| is_hole(extent)).map(Extent::len).sum::<u64>();
        let (to, hashed) = (medium.clone(), hasher.take());
        (at, hasher) = cx.blocking(move || write_run(&to, &run, at, hashed)).await?;
        if at - synced >= SYNC_BYTES {
            if let Some(before) = syncing.take() {
                before.await?;
            }
            let to = medium.clone();
            syncing = Some(cx.blocking(move || to.sync_data()));
            synced = at;
        }
        doing.at(at - offset);
        stop_if_cancelled(cx, "write", at - offset)?;
    }
    drop(doing);
    if let Some(before) = syncing {
        before.await?; // an error is told once, and this may be who is told
    }
    let syncing = medium.clone();
    let ended = cx.blocking(move || {
        if offset == 0 {
            syncing.end_at(at)?;
        }
        syncing.sync()
    });
    ended.await?;
    let bytes = at - offset;
    let sha256 = hasher.map(hex).or(known.map(|known| known.to_string()));
    if verify {
        medium.forget_cache();
        let there = hash(cx, meter, "verify", &medium, offset, bytes).await?;
        if sha256.as_ref() != Some(&there) {
            let wanted = sha256.unwrap_or_default();
            let text =
                format!("the medium does not have what was written: SHA-256 {there}, not {wanted}");
            return Err(Fault::device(text));
        }
    }
    Ok(Written { bytes, holes, sha256, verified: verify })
}

/// Writes the next extents of an image. Gives where they end.
fn write_run(
    to: &Medium,
    run: &[Extent],
    mut at: u64,
    mut hasher: Option<Sha256>,
) -> Result<(u64, Option<Sha256>), Fault> {
    for extent in run {
        match extent {
            Extent::Data(bytes) => {
                hasher.iter_mut().for_each(|sha256| sha256.update(bytes));
                to.write(bytes, at)?;
            }
            Extent::Hole(zeros) => {
                hasher.iter_mut().for_each(|sha256| update_zeros(sha256, *zeros));
                to.zero(at, *zeros)?;
            }
        }
        at += extent.len();
    }
    Ok((at, hasher))
}

fn is_hole(extent: &Extent) -> bool {
    matches!(extent, Extent::Hole(_))
}

/// The part of a medium that is asked for, or to its end.
pub(crate) fn range(medium: &Medium, offset: u64, length: Option<u64>) -> Result<u64, Fault> {
    let size = medium.size()?;
    let rest = size.checked_sub(offset).ok_or_else(|| {
        Fault::argument(format_args!("byte {offset} is behind the end: there are {size}"))
    })?;
    match length {
        None => Ok(rest),
        Some(length) if length <= rest => Ok(length),
        Some(length) => {
            let text = format!("{length} bytes from {offset} go behind the end: there are {size}");
            Err(Fault::argument(text))
        }
    }
}

/// Reads `bytes` bytes of a medium into a resource.
pub(crate) async fn read(
    cx: &Context,
    meter: &Meter,
    mut target: ResourceWriter,
    medium: Medium,
    offset: u64,
    bytes: u64,
) -> Result<u64, Fault> {
    let medium = Arc::new(medium);
    let doing = meter.begin("read", Some(bytes));
    let mut done = 0;
    while done < bytes {
        let piece = piece(cx, &medium, offset + done, bytes - done).await?;
        target.write_all(&piece).await?;
        done += piece.len() as u64;
        doing.at(done);
        stop_if_cancelled(cx, "read", done)?;
    }
    target.finish().await?;
    Ok(done)
}

/// The SHA-256 of a part of a medium.
pub(crate) async fn hash(
    cx: &Context,
    meter: &Meter,
    what: &str,
    medium: &Arc<Medium>,
    offset: u64,
    bytes: u64,
) -> Result<String, Fault> {
    let doing = meter.begin(what, Some(bytes));
    let (mut done, mut sha256) = (0, Sha256::new(&SHA256));
    while done < bytes {
        let piece = piece(cx, medium, offset + done, bytes - done).await?;
        done += piece.len() as u64;
        sha256 = cx
            .blocking(move || {
                sha256.update(&piece);
                sha256
            })
            .await;
        doing.at(done);
        stop_if_cancelled(cx, what, done)?;
    }
    Ok(hex(sha256))
}

/// Makes a part of a medium zeros.
pub(crate) async fn erase(
    cx: &Context,
    meter: &Meter,
    medium: Medium,
    offset: u64,
    bytes: u64,
) -> Result<(), Fault> {
    let medium = Arc::new(medium);
    let doing = meter.begin("erase", Some(bytes));
    let mut done = 0;
    while done < bytes {
        let (now, at) = ((bytes - done).min(64 * PIECE_BYTES), offset + done);
        let erased = medium.clone();
        cx.blocking(move || erased.zero(at, now)).await?;
        done += now;
        doing.at(done);
        stop_if_cancelled(cx, "erase", done)?;
    }
    cx.blocking(move || medium.sync()).await
}

async fn piece(cx: &Context, medium: &Arc<Medium>, at: u64, left: u64) -> Result<Vec<u8>, Fault> {
    let (medium, len) =
        (medium.clone(), usize::try_from(left.min(PIECE_BYTES)).expect("it is small"));
    let piece = cx.blocking(move || medium.read(at, len)).await?;
    match piece.is_empty() {
        false => Ok(piece),
        true => {
            Err(Fault::device(format_args!("the medium ends at byte {at}, {left} bytes early")))
        }
    }
}

fn stop_if_cancelled(cx: &Context, what: &str, done: u64) -> Result<(), Fault> {
    match cx.is_cancelled() {
        false => Ok(()),
        true => {
            let text = format!("{what} was stopped after {done} bytes; what is there is of no use");
            Err(Fault::new(bus_schema::FaultKind::Cancelled, text))
        }
    }
}

fn update_zeros(sha256: &mut Sha256, mut zeros: u64) {
    while zeros > 0 {
        let now = zeros.min(ZEROS.len() as u64);
        sha256.update(&ZEROS[..usize::try_from(now).expect("it is small")]);
        zeros -= now;
    }
}

fn hex(sha256: Sha256) -> String {
    sha256.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
