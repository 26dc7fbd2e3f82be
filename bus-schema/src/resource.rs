//! What a client lends to a driver: the argument that says where the data is, and how files lie
//! in JetStream.
//!
//! A file is a [`Manifest`] and blocks, all named by their SHA-256 and all under the name of the
//! client that published them, so that nobody can put anything in the place of another's.

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize, de};

use crate::{
    Describe, IdError, StreamId, Type,
    codec::{self, DecodeError, Message, Raw},
    fault::words,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, BLOCK_PARTS_MAX, BLOCKS_INLINE_MAX, FILE_BYTES_MAX,
        LENT_HEADERS_MAX, LENT_TEXT_BYTES_MAX,
    },
};

/// An argument of the type [`Type::Resource`]: data that is lent for the time of one call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lent {
    /// Where it is, or where it goes.
    pub from: LentFrom,
    /// Its name, for people and for servers that need one: that of a file, without directories.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its length as it is lent, before it is unpacked, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its media type, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Its SHA-256 as it is lent, if that is known. It is checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// How it is compressed.
    #[serde(default = "Packing::auto", skip_serializing_if = "Packing::is_auto")]
    pub packing: Packing,
}

/// Where lent data is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LentFrom {
    /// In JetStream: the file of the caller whose manifest has this digest.
    File(Sha256),
    /// It is being stored by the caller: a stream, as the next, of [news](crate::BlockNews) of its
    /// blocks (all but the last of [`BLOCK_BYTES_MAX`]).
    Storing(StreamId),
    /// It comes from the caller: a stream in one direction, as that of arguments in parts.
    Stream(StreamId),
    /// It goes to the caller: the driver writes it.
    Sink(Sink),
    /// The exporter fetches it.
    Url(LentUrl),
}

/// A stream from the driver to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    /// The stream.
    pub stream: StreamId,
    /// Bytes that may be sent from the start.
    pub credit: u64,
}

/// Where to fetch, and with which credentials. Its `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LentUrl {
    /// `http:` or `https:`.
    pub url: String,
    /// Headers of the request. They go to the origin of `url` and to no other.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

words! {
    /// How lent data is compressed.
    Packing {
        /// As its first bytes say.
        Auto = "auto",
        /// It is taken as it is.
        None = "none",
        /// gzip (RFC 1952).
        Gzip = "gzip",
        /// xz.
        Xz = "xz",
        /// bzip2.
        Bzip2 = "bzip2",
        /// Zstandard (RFC 8878).
        Zstd = "zstd",
    }
}

impl Packing {
    fn auto() -> Self {
        Self::Auto
    }

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    /// What the first bytes of compressed data say, if they say anything. Six are enough.
    pub fn sniff(first: &[u8]) -> Option<Self> {
        match first {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Bzip2),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Lent {
    /// Lent data from `from`, of which nothing else is known.
    pub fn new(from: LentFrom) -> Self {
        Self {
            from,
            name: String::new(),
            bytes: None,
            content_type: None,
            sha256: None,
            packing: Packing::Auto,
        }
    }

    /// What a bare URL lends.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn url(url: &str) -> Result<Self, String> {
        let lent =
            Self::new(LentFrom::Url(LentUrl { url: url.to_owned(), headers: BTreeMap::new() }));
        lent.check().map(|()| lent)
    }

    /// Refuses what is out of bounds, or a packing or an origin that nobody knows.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let text = |what: &str, text: &str| match text.len() <= LENT_TEXT_BYTES_MAX {
            true => Ok(()),
            false => Err(format!("its {what} is longer than {LENT_TEXT_BYTES_MAX} bytes")),
        };
        text("name", &self.name)?;
        text("content type", self.content_type.as_deref().unwrap_or_default())?;
        if let Packing::Other(word) = &self.packing {
            let known: Vec<_> = Packing::KNOWN.iter().map(Packing::as_str).collect();
            return Err(format!("no packing {word:?}: there are {}", known.join(", ")));
        }
        match &self.from {
            LentFrom::Url(from) => from.check(),
            LentFrom::Storing(_) => match self.bytes {
                None => Err("a file that is being stored has a length".to_owned()),
                Some(bytes) if bytes > FILE_BYTES_MAX => {
                    Err(format!("a file of {bytes} bytes is over {FILE_BYTES_MAX}"))
                }
                Some(_) => Ok(()),
            },
            LentFrom::File(_) | LentFrom::Stream(_) | LentFrom::Sink(_) => Ok(()),
        }
    }
}

impl LentUrl {
    fn check(&self) -> Result<(), String> {
        let Self { url, headers } = self;
        if url.len() > LENT_TEXT_BYTES_MAX {
            return Err(format!("its URL is longer than {LENT_TEXT_BYTES_MAX} bytes"));
        }
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(format!("{} is no http:// or https:// URL", self.shown()));
        }
        if url.chars().any(|c| c.is_control() || c == ' ') {
            return Err("its URL has a space or control character in it: encode it".to_owned());
        }
        if headers.len() > LENT_HEADERS_MAX {
            return Err(format!("{} headers are more than {LENT_HEADERS_MAX}", headers.len()));
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        for (name, value) in headers {
            let good = !name.is_empty() && name.chars().all(token);
            if !good || name.len() + value.len() > LENT_TEXT_BYTES_MAX {
                return Err(format!(
                    "{:?} is no header",
                    name.chars().take(80).collect::<String>()
                ));
            }
            if value.chars().any(char::is_control) {
                return Err(format!("the value of header {name} has a control character in it"));
            }
        }
        Ok(())
    }

    /// The URL as it may be shown: without user, password, query and fragment.
    pub fn shown(&self) -> String {
        let plain = self.url.split(['?', '#']).next().unwrap_or_default();
        let plain: String = plain.chars().take(200).collect();
        match plain.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').map_or((rest, None), |(h, p)| (h, Some(p)));
                let host = host.rsplit('@').next().unwrap_or_default();
                let path = path.map(|path| format!("/{path}")).unwrap_or_default();
                format!("{scheme}://{host}{path}")
            }
            None => plain.rsplit('@').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Debug for LentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("LentUrl").field("url", &self.shown()).field("headers", &names).finish()
    }
}

impl Describe for Lent {
    fn describe() -> Type {
        Type::Resource
    }
}

/// A SHA-256, written as 64 hex digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// In a list of blocks: the block is all zeros and stored nowhere.
    pub const ZEROS: Self = Self([0; 32]);
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0_u8; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 0xf)];
        }
        f.write_str(std::str::from_utf8(&text).expect("hex digits are text"))
    }
}

impl FromStr for Sha256 {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::new("SHA-256 (64 hex digits in lower case)", text);
        let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.bytes().all(digits) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What a file is made of. It is stored under the SHA-256 of its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The file's name, without directories.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of all of it, if whoever stored it says so. Then that is checked, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256>,
    /// The length of each block but the last.
    pub block_bytes: u64,
    /// The SHA-256 of each block, 32 bytes each; 32 zeros for a block of zeros.
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub blocks: Bytes,
    /// The block that holds `blocks`, if they are too many for one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Sha256>,
}

impl Message for Manifest {
    const KIND: u8 = 0x50;
    const NAME: &str = "manifest";
}

impl Manifest {
    /// How many blocks the file has.
    pub fn count(&self) -> u64 {
        self.bytes.div_ceil(self.block_bytes.max(1))
    }

    /// The length of block `at`.
    pub fn len_of(&self, at: u64) -> u64 {
        self.bytes.saturating_sub(at * self.block_bytes).min(self.block_bytes)
    }

    /// Refuses what is out of bounds or cannot be.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.bytes > FILE_BYTES_MAX {
            return Err(format!("a file of {} bytes is over {FILE_BYTES_MAX}", self.bytes));
        }
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&self.block_bytes) {
            let range = format!("{BLOCK_BYTES_MIN} to {BLOCK_BYTES_MAX}");
            return Err(format!("blocks of {} bytes are not of {range}", self.block_bytes));
        }
        if self.name.len() > LENT_TEXT_BYTES_MAX {
            return Err(format!("its name is longer than {LENT_TEXT_BYTES_MAX} bytes"));
        }
        let count = self.count();
        match self.list {
            Some(_) if count * 32 > BLOCK_BYTES_MAX || !self.blocks.is_empty() => {
                Err("its list of blocks is too long, or there twice".to_owned())
            }
            Some(_) => Ok(()),
            None if count > BLOCKS_INLINE_MAX => Err(format!("{count} blocks need a list")),
            None => self.digests(&self.blocks).map(drop),
        }
    }

    /// The digests in `list`, one for each block.
    ///
    /// # Errors
    ///
    /// That their number is not that of the blocks.
    pub fn digests(&self, list: &[u8]) -> Result<Vec<Sha256>, String> {
        let count = self.count();
        if list.len() as u64 != count * 32 {
            return Err(format!("{} bytes are no list of {count} digests", list.len()));
        }
        let digest = |chunk: &[u8]| Sha256(chunk.try_into().expect("chunks of 32"));
        Ok(list.chunks_exact(32).map(digest).collect())
    }
}

/// One part of a stored block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockPart {
    /// How many parts the block has.
    pub parts: u32,
    /// Length of the whole block, once it is decoded.
    pub bytes: u64,
    /// How the parts together are encoded.
    pub coding: Coding,
    /// This part of that.
    pub data: Bytes,
}

/// How a block is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coding {
    /// As it is.
    #[default]
    Plain,
    /// As one LZ4 block, without frame or length.
    Lz4,
}

impl BlockPart {
    /// The kind byte.
    pub const KIND: u8 = 0x51;
    /// Its name in errors.
    pub const NAME: &str = "block";

    /// The bytes of the message. The payload is copied once.
    pub fn encode(&self) -> Bytes {
        let Self { parts, bytes, coding, data } = self;
        let head = Self::head(*parts, *bytes, *coding, data.len());
        [&head, &data[..]].concat().into()
    }

    /// The beginning of the message, behind which nothing comes but the payload, of `len` bytes.
    pub fn head(parts: u32, bytes: u64, coding: Coding, len: usize) -> Vec<u8> {
        #[derive(Serialize)]
        struct Head {
            parts: u32,
            bytes: u64,
            coding: Coding,
        }
        let len = u32::try_from(len).expect("a part is smaller than 4 GiB");
        let mut message = Vec::with_capacity(64);
        message.extend_from_slice(&[codec::version::CURRENT, Self::KIND]);
        rmp_serde::encode::write_named(&mut message, &Head { parts, bytes, coding })
            .expect("messages are made of types that MessagePack has");
        message[2] += 1; // the payload is one more entry of the map
        message.extend_from_slice(b"\xa4data\xc6");
        message.extend_from_slice(&len.to_be_bytes());
        message
    }

    /// The message in `bytes`; its payload is a slice of them, not a copy.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], as [`codec::decode`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            parts: u32,
            bytes: u64,
            #[serde(default)]
            coding: Coding,
            #[serde(default, borrow)]
            data: Raw<'a>,
        }
        let (theirs, body) = codec::open(bytes, Self::KIND, Self::NAME)?;
        let part: Borrowed<'_> = codec::read(theirs, body, Self::NAME)?;
        let Borrowed { parts, bytes: whole, coding, data } = part;
        Ok(Self { parts, bytes: whole, coding, data: bytes.slice_ref(data.0) })
    }

    /// Refuses what is out of bounds.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=BLOCK_PARTS_MAX).contains(&self.parts) {
            return Err(format!("{} parts are not 1 to {BLOCK_PARTS_MAX}", self.parts));
        }
        match self.bytes <= BLOCK_BYTES_MAX {
            true => Ok(()),
            false => Err(format!("a block of {} bytes is over {BLOCK_BYTES_MAX}", self.bytes)),
        }
    }
}
