//! A block of a file, in the messages that it is stored as.

use std::sync::{Mutex, PoisonError};

use bus_schema::{BlockPart, Coding, Sha256};
use bytes::{Bytes, BytesMut};

use crate::digest::{Hasher, is_zeros};

/// The start of a block that shows whether it is worth packing …
const SAMPLE_BYTES: usize = 64 << 10;
/// … which it is if the sample shrinks below this part of it.
const WORTH: (usize, usize) = (15, 16);
/// Messages that are kept to be written again: as many as are on their way at once.
const SPARE_MAX: usize = 32;

/// A block that is ready to be stored.
pub(super) struct Block {
    /// Its digest; [`Sha256::ZEROS`] if it is stored nowhere.
    pub(super) digest: Sha256,
    /// Its parts, encoded: none of zeros.
    pub(super) messages: Vec<Bytes>,
}

impl Block {
    /// Reads a block of `bytes` bytes, as `read` gives the next of them. What was read is digested
    /// while the processor has it at hand, and lies where it will be sent from.
    pub(super) fn read<E>(
        bytes: u64,
        part_bytes: usize,
        spare: &Spare,
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let count = usize::try_from(bytes).expect("a block is small").div_ceil(part_bytes);
        let (mut parts, mut hasher, mut zeros, mut left) = (Vec::new(), Hasher::new(), 0, bytes);
        for _ in 0..count {
            let len = left.min(part_bytes as u64);
            left -= len;
            let mut part = Part::plain(count, bytes, len, spare);
            read(part.payload())?;
            match is_zeros(part.payload()) {
                true => zeros += len, // nothing but zeros has no digest
                false => {
                    hasher.update_zeros(std::mem::take(&mut zeros));
                    hasher.update(part.payload());
                }
            }
            parts.push(part);
        }
        if zeros == bytes {
            spare.keep(parts);
            return Ok(Self { digest: Sha256::ZEROS, messages: Vec::new() });
        }
        hasher.update_zeros(zeros);
        let digest = hasher.finish();
        let messages = match packed(&mut parts) {
            Some(packed) => {
                spare.keep(parts);
                let parts = number(packed.len().div_ceil(part_bytes));
                let encode = |data: &[u8]| {
                    let head = BlockPart::head(parts, bytes, Coding::Lz4, data.len());
                    [&head, data].concat().into()
                };
                packed.chunks(part_bytes).map(encode).collect()
            }
            None => parts.into_iter().map(|part| part.message.freeze()).collect(),
        };
        Ok(Self { digest, messages })
    }
}

/// A message whose payload is read where it is sent from.
struct Part {
    message: BytesMut,
    head: usize,
}

impl Part {
    fn plain(count: usize, bytes: u64, len: u64, spare: &Spare) -> Self {
        let len = usize::try_from(len).expect("a part is small");
        let head = BlockPart::head(number(count), bytes, Coding::Plain, len);
        let mut message = spare.take();
        message.resize(head.len() + len, 0);
        message[..head.len()].copy_from_slice(&head);
        Self { message, head: head.len() }
    }

    fn payload(&mut self) -> &mut [u8] {
        &mut self.message[self.head..]
    }
}

/// The bytes of a block, if it is worth packing.
fn packed(parts: &mut [Part]) -> Option<Vec<u8>> {
    let (of, to) = WORTH;
    let worth = |packed: usize, plain: usize| packed * to < plain * of;
    let first = parts.first_mut()?.payload();
    let sample = &first[..first.len().min(SAMPLE_BYTES)];
    if !worth(lz4_flex::block::compress(sample).len(), sample.len()) {
        return None;
    }
    let block = parts.iter_mut().map(|part| &*part.payload()).collect::<Vec<_>>().concat();
    let packed = lz4_flex::block::compress(&block);
    worth(packed.len(), block.len()).then_some(packed)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a block has few parts")
}

/// Messages that were sent, to be written again: fresh memory costs a page fault
/// for every 4 KiB.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<BytesMut>>);

impl Spare {
    fn take(&self) -> BytesMut {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_default()
    }

    fn keep(&self, parts: Vec<Part>) {
        self.add(parts.into_iter().map(|part| part.message));
    }

    /// Keeps messages that were sent, but for those that somebody else still has.
    pub(super) fn sent(&self, messages: Vec<Bytes>) {
        self.add(messages.into_iter().filter_map(|message| message.try_into_mut().ok()));
    }

    fn add(&self, messages: impl Iterator<Item = BytesMut>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = SPARE_MAX.saturating_sub(spare.len());
        spare.extend(messages.take(room));
    }
}
