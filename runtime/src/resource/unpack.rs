//! Decompression, on a thread of its own between the source and the driver.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
};

use bus_schema::Packing;
use bytes::{Buf as _, BytesMut};
use lzma_rust2::XzReader;
use ruzstd::decoding::{
    StreamingDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};
use tokio_util::sync::CancellationToken;

use super::{Extent, Receiver, ResourceError, Sender};
use crate::{digest::is_zeros, exporter::Core};

/// Unpacked bytes that go to the driver at once.
const PIECE_BYTES: usize = 256 << 10;
/// Memory that a decoder may take for its window or dictionary. `xz -9` wants 64 MiB, `zstd
/// --long=27` 128.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

/// Starts unpacking what comes from `packed`.
pub(super) fn start(
    core: &Core,
    packing: Packing,
    first: VecDeque<Extent>,
    packed: Receiver,
    tx: Sender,
    stop: CancellationToken,
) {
    core.tasks.spawn_blocking(move || {
        let mut source = Packed { first, packed, now: Extent::Hole(0), failed: None };
        let ended = unpack(&packing, &mut source, &tx, &stop);
        let error = match (source.failed.take(), ended) {
            (Some(error), _) => error, // what the decoder makes of it is of no interest
            (None, Err(error)) => {
                ResourceError::Unpack { packing: packing.to_string(), why: plain(&error) }
            }
            (None, Ok(())) => return,
        };
        let _ = tx.blocking_send(Err(error)); // nobody reads any more
    });
}

/// What a decoder says, in a line.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends before its end".to_owned(),
        _ => error.to_string(),
    }
}

fn unpack(
    packing: &Packing,
    source: &mut Packed,
    tx: &Sender,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 << 10, source);
    match packing {
        Packing::Gzip => copy(flate2::bufread::MultiGzDecoder::new(&mut input), tx, stop)?,
        Packing::Bzip2 => copy(bzip2::bufread::MultiBzDecoder::new(&mut input), tx, stop)?,
        Packing::Xz => {
            let kib = u32::try_from(WINDOW_BYTES_MAX >> 10).expect("it is small");
            copy(XzReader::new_mem_limit(&mut input, true, kib), tx, stop)?;
        }
        Packing::Zstd => zstd(&mut input, tx, stop)?,
        Packing::Auto | Packing::None | Packing::Other(_) => {
            unreachable!("it is no packing, or was refused")
        }
    }
    // To the end of the source, which tells only there whether all of it was right.
    match input.fill_buf()?.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other("there are bytes behind its end")),
    }
}

/// All frames of a Zstandard file, and their checksums.
fn zstd(input: &mut impl BufRead, tx: &Sender, stop: &CancellationToken) -> io::Result<()> {
    while !input.fill_buf()?.is_empty() {
        let frame = StreamingDecoder::new_with_max_window_size(&mut *input, WINDOW_BYTES_MAX);
        let mut frame = match frame {
            Ok(frame) => frame,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                io::copy(&mut input.take(length.into()), &mut io::sink())?;
                continue;
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        copy(&mut frame, tx, stop)?;
        let decoder = frame.into_frame_decoder();
        let (said, is) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
        if said.is_some() && said != is {
            return Err(io::Error::other("a checksum is wrong"));
        }
    }
    Ok(())
}

fn copy(mut unpacked: impl Read, tx: &Sender, stop: &CancellationToken) -> io::Result<()> {
    loop {
        let mut piece = BytesMut::zeroed(PIECE_BYTES);
        let mut len = 0;
        while len < piece.len() {
            match unpacked.read(&mut piece[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        piece.truncate(len);
        let extent = match (len, is_zeros(&piece)) {
            (0, _) => return Ok(()),
            (_, true) => Extent::Hole(len as u64),
            (_, false) => Extent::Data(piece.freeze()),
        };
        if stop.is_cancelled() || tx.blocking_send(Ok(extent)).is_err() {
            return Err(io::Error::other("nobody wants it any more"));
        }
    }
}

/// Packed extents as a reader that blocks.
struct Packed {
    first: VecDeque<Extent>,
    packed: Receiver,
    now: Extent,
    /// Why the source ended, if it did not end well.
    failed: Option<ResourceError>,
}

impl Read for Packed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            self.now = match self.first.pop_front() {
                Some(extent) => extent,
                None => match self.packed.blocking_recv() {
                    Some(Ok(extent)) => extent,
                    None => return Ok(0),
                    Some(Err(error)) => {
                        self.failed = Some(error);
                        return Err(io::Error::other("the source failed"));
                    }
                },
            };
        }
        let len = into.len().min(usize::try_from(self.now.len()).unwrap_or(usize::MAX));
        match &mut self.now {
            Extent::Data(bytes) => bytes.copy_to_slice(&mut into[..len]),
            Extent::Hole(zeros) => {
                into[..len].fill(0);
                *zeros -= len as u64;
            }
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    /// What comes of `packed` in pieces of `piece` bytes.
    fn unpacked(packing: &Packing, packed: &[u8], piece: usize) -> Result<Vec<u8>, String> {
        let (tx, rx) = mpsc::channel(1024);
        for piece in packed.chunks(piece) {
            tx.try_send(Ok(Extent::Data(Bytes::copy_from_slice(piece)))).unwrap();
        }
        drop(tx);
        let (first, now) = (VecDeque::new(), Extent::Hole(0));
        let mut source = Packed { first, packed: rx, now, failed: None };
        let (tx, mut rx) = mpsc::channel(1024);
        unpack(packing, &mut source, &tx, &CancellationToken::new()).map_err(|e| plain(&e))?;
        drop(tx);
        let mut all = Vec::new();
        while let Some(extent) = rx.blocking_recv() {
            match extent.unwrap() {
                Extent::Data(bytes) => all.extend_from_slice(&bytes),
                Extent::Hole(zeros) => all.resize(all.len() + usize::try_from(zeros).unwrap(), 0),
            }
        }
        Ok(all)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    /// `printf hello | xz`
    const XZ_HELLO: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21,
        0x01, 0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x04, 0x68, 0x65, 0x6c,
        0x6c, 0x6f, 0x00, 0x00, 0x00, 0x00, 0xb1, 0x37, 0xb9, 0xdb, 0xe5, 0xda, 0x1e, 0x9b, 0x00,
        0x01, 0x1d, 0x05, 0xb8, 0x2d, 0x80, 0xaf, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00,
        0x00, 0x04, 0x59, 0x5a,
    ];

    fn sample() -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..300_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        bytes.extend(vec![0; 1 << 20]);
        bytes
    }

    #[test]
    fn every_packing_is_known_by_its_first_bytes_and_unpacked() {
        let bytes = sample();
        for (packing, packed) in [
            (Packing::Gzip, gzip(&bytes)),
            (Packing::Bzip2, bzip2(&bytes)),
            (Packing::Zstd, zstd_of(&bytes)),
        ] {
            assert_eq!(Packing::sniff(&packed), Some(packing.clone()));
            assert!(unpacked(&packing, &packed, 5000).unwrap() == bytes, "{packing}");
            let twice = [&packed[..], &packed].concat();
            assert!(unpacked(&packing, &twice, 5000).unwrap().len() == 2 * bytes.len());
        }
        assert_eq!(Packing::sniff(XZ_HELLO), Some(Packing::Xz));
        assert_eq!(unpacked(&Packing::Xz, XZ_HELLO, 7).unwrap(), b"hello");
        assert_eq!(Packing::sniff(b"BZhello"), None);
        assert_eq!(Packing::sniff(&[]), None);
    }

    #[test]
    fn what_is_cut_or_damaged_or_goes_on_behind_its_end_is_an_error() {
        let bytes = sample();
        for (packing, packed) in [
            (Packing::Gzip, gzip(&bytes)),
            (Packing::Bzip2, bzip2(&bytes)),
            (Packing::Zstd, zstd_of(&bytes)),
            (Packing::Xz, XZ_HELLO.to_vec()),
        ] {
            let cut = &packed[..packed.len() - 3];
            assert!(unpacked(&packing, cut, 5000).is_err(), "{packing} that is cut");
            let mut damaged = packed.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            assert!(unpacked(&packing, &damaged, 5000).is_err(), "{packing} that is damaged");
            let more = [&packed[..], b"and more"].concat();
            assert!(unpacked(&packing, &more, 5000).is_err(), "{packing} with more behind it");
            assert!(unpacked(&packing, b"no archive at all", 5).is_err(), "no {packing}");
        }
    }
}
