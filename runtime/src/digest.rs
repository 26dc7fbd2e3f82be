//! SHA-256.

use bus_schema::Sha256;
use ring::digest::{Context, SHA256, digest};

/// The digest of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Sha256 {
    as_ours(digest(&SHA256, bytes))
}

/// The digest of bytes that come bit by bit.
#[derive(Clone)]
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// As many zeros.
    pub(crate) fn update_zeros(&mut self, mut zeros: u64) {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        while zeros > 0 {
            let now = zeros.min(ZEROS.len() as u64);
            self.0.update(&ZEROS[..usize::try_from(now).expect("at most 64 KiB")]);
            zeros -= now;
        }
    }

    pub(crate) fn finish(self) -> Sha256 {
        as_ours(self.0.finish())
    }
}

fn as_ours(digest: ring::digest::Digest) -> Sha256 {
    Sha256(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zeros(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(16);
    words.by_ref().all(|word| u128::from_ne_bytes(word.try_into().expect("chunks of 16")) == 0)
        && words.remainder().iter().all(|byte| *byte == 0)
}
