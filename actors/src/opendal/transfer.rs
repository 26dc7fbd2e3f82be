//! Bytes between a tree and the bus.

use std::ops::Range;

use ::opendal::{Operator, Writer};
use bus_schema::{Fault, FaultKind};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use md5::Digest as _;
use runtime::{Context, Extent, Resource, ResourceWriter};
use tokio::io::AsyncWriteExt as _;

use super::{HashAlgorithm, fault};

/// Bytes that go to a storage at once: S3 takes parts of 5 MiB and more.
pub(super) const PIECE_BYTES: usize = 8 << 20;
/// Bytes that are read from it at once.
const READ_BYTES: usize = 1 << 20;
/// Zeros of a hole that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes a whole file. Nobody sees it before it is whole.
pub(super) async fn write(
    cx: &Context,
    operator: &Operator,
    path: &str,
    source: Resource,
) -> Result<u64, Fault> {
    let mut writer = writer(operator, path).await?;
    let written = fill(cx, &mut writer, path, source).await;
    let closed = match written {
        Ok(bytes) => writer.close().await.map(|_| bytes).map_err(|error| fault(path, &error)),
        Err(error) => Err(error),
    };
    if closed.is_err() {
        let _ = writer.abort().await; // the first error says more
    }
    closed
}

pub(super) async fn writer(operator: &Operator, path: &str) -> Result<Writer, Fault> {
    let writer = operator.writer_with(path).chunk(PIECE_BYTES).await;
    writer.map_err(|error| fault(path, &error))
}

/// Writes what was lent, as it was lent, to its end.
pub(super) async fn fill(
    cx: &Context,
    writer: &mut Writer,
    path: &str,
    source: Resource,
) -> Result<u64, Fault> {
    let (mut source, mut bytes) = (source.as_lent(), 0);
    while let Some(extent) = unless_cancelled(cx, source.next()).await?? {
        bytes += extent.len();
        for piece in pieces(extent) {
            let written = unless_cancelled(cx, writer.write(piece)).await?;
            written.map_err(|error| fault(path, &error))?;
        }
    }
    Ok(bytes)
}

/// The bytes of an extent; a hole as many small ones.
fn pieces(extent: Extent) -> Box<dyn Iterator<Item = Bytes> + Send> {
    match extent {
        Extent::Data(bytes) => Box::new(std::iter::once(bytes)),
        Extent::Hole(zeros) => {
            let (whole, rest) = (zeros / ZEROS.len() as u64, zeros % ZEROS.len() as u64);
            let last = Bytes::from_static(&ZEROS[..rest as usize]);
            let pieces = (0..whole).map(|_| Bytes::from_static(&ZEROS));
            Box::new(pieces.chain((rest > 0).then_some(last)))
        }
    }
}

/// Reads a part of a file to where it is wanted.
pub(super) async fn read(
    cx: &Context,
    operator: &Operator,
    path: &str,
    range: Range<u64>,
    mut to: ResourceWriter,
) -> Result<u64, Fault> {
    let mut bytes = 0;
    if !range.is_empty() {
        let reader = operator.reader_with(path).chunk(READ_BYTES).await;
        let stream = reader.map_err(|error| fault(path, &error))?.into_bytes_stream(range.clone());
        let mut stream = stream.await.map_err(|error| fault(path, &error))?;
        while let Some(piece) = unless_cancelled(cx, stream.try_next()).await?? {
            bytes += piece.len() as u64;
            unless_cancelled(cx, to.write_all(&piece)).await??;
        }
    }
    let wanted = range.end - range.start;
    if bytes != wanted {
        let text = format!("{path}: {bytes} bytes came, and {wanted} were to come");
        return Err(Fault::new(FaultKind::Io, text));
    }
    to.finish().await?;
    Ok(bytes)
}

pub(super) async fn hash(
    cx: &Context,
    operator: &Operator,
    path: &str,
    algorithm: HashAlgorithm,
) -> Result<String, Fault> {
    let reader = operator.reader_with(path).chunk(READ_BYTES).await;
    let stream = reader.map_err(|error| fault(path, &error))?.into_bytes_stream(..).await;
    let mut stream = stream.map_err(|error| fault(path, &error))?;
    let mut digest = Digest::new(algorithm);
    while let Some(piece) = unless_cancelled(cx, stream.try_next()).await?? {
        digest = cx.blocking(move || digest.update(&piece)).await;
    }
    Ok(digest.hex())
}

/// A digest in the making.
enum Digest {
    Md5(md5::Md5),
    Sha256(ring::digest::Context),
}

impl Digest {
    fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Md5 => Self::Md5(md5::Md5::new()),
            HashAlgorithm::Sha256 => {
                Self::Sha256(ring::digest::Context::new(&ring::digest::SHA256))
            }
        }
    }

    fn update(mut self, bytes: &[u8]) -> Self {
        match &mut self {
            Self::Md5(md5) => md5.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
        self
    }

    fn hex(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Md5(md5) => hex(&md5.finalize()),
            Self::Sha256(sha256) => hex(sha256.finish().as_ref()),
        }
    }
}

async fn unless_cancelled<T>(cx: &Context, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::select! {
        biased;
        () = cx.cancelled() => Err(Fault::new(FaultKind::Cancelled, "it was stopped")),
        done = work => Ok(done),
    }
}
