//! What a client tells of the blocks of a file while it stores them.

use bytes::{Buf as _, BytesMut};

use crate::Sha256;

/// News of a file that is being stored ([`LentFrom::Storing`](crate::LentFrom::Storing)), of which
/// a stream has two for each block, both in the order of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockNews {
    /// The next block has this digest, and may not be stored yet: 00, and the digest.
    Digest(Sha256),
    /// The next block is stored: 01.
    Stored,
}

/// What comes is no news of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("news of its blocks begin with 00 or 01, not {0:02x}")]
pub struct BlockNewsError(u8);

const DIGEST: u8 = 0;
const STORED: u8 = 1;

impl BlockNews {
    /// Adds its bytes to `to`.
    pub fn write(self, to: &mut Vec<u8>) {
        match self {
            Self::Digest(digest) => {
                to.push(DIGEST);
                to.extend_from_slice(&digest.0);
            }
            Self::Stored => to.push(STORED),
        }
    }

    /// Takes the first from `from`; none, and nothing taken, if its rest has not come yet.
    ///
    /// # Errors
    ///
    /// [`BlockNewsError`].
    pub fn take(from: &mut BytesMut) -> Result<Option<Self>, BlockNewsError> {
        match from.first() {
            None => Ok(None),
            Some(&STORED) => {
                from.advance(1);
                Ok(Some(Self::Stored))
            }
            Some(&DIGEST) => {
                let Some(digest) = from.get(1..=size_of::<Sha256>()) else { return Ok(None) };
                let digest = Sha256(digest.try_into().expect("as long as a digest"));
                from.advance(1 + size_of::<Sha256>());
                Ok(Some(Self::Digest(digest)))
            }
            Some(&other) => Err(BlockNewsError(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_read_back_however_they_are_cut_and_nothing_else_does() {
        let news = [
            BlockNews::Digest(Sha256([7; 32])),
            BlockNews::Stored,
            BlockNews::Digest(Sha256::ZEROS),
            BlockNews::Stored,
        ];
        let mut bytes = Vec::new();
        news.iter().for_each(|news| news.write(&mut bytes));
        assert_eq!((bytes.len(), bytes[0], bytes[33]), (2 * 33 + 2, 0, 1));
        for cut in 0..bytes.len() {
            let (mut rest, mut read) = (BytesMut::from(&bytes[..cut]), Vec::new());
            read.extend(std::iter::from_fn(|| BlockNews::take(&mut rest).unwrap()));
            rest.extend_from_slice(&bytes[cut..]);
            read.extend(std::iter::from_fn(|| BlockNews::take(&mut rest).unwrap()));
            assert!(read == news && rest.is_empty(), "cut at {cut}: {read:?}");
        }
        let error = BlockNews::take(&mut BytesMut::from(&[0x2a][..])).unwrap_err();
        assert_eq!(error.to_string(), "news of its blocks begin with 00 or 01, not 2a");
    }
}
