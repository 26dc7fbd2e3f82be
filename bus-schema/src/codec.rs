//! From messages to bytes and back: one version byte, one kind byte, then MessagePack with named
//! fields. A body that starts with `{` is JSON, from a person with a plain NATS client.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    CallId, DriverId, Refusal, RefusalCode, Session,
    limits::DEPTH_MAX,
    message::{Begin, Call, Calls, Data, End, Form, Outcome, Replies, Reply},
};

/// The versions of the wire that this code speaks.
pub mod version {
    /// The oldest that is understood.
    pub const MIN: u8 = 1;
    /// The one that is written.
    pub const CURRENT: u8 = 1;
}

/// A message that travels: its kind byte says which.
pub trait Message: Serialize + DeserializeOwned {
    /// The second byte.
    const KIND: u8;
    /// Its name in errors.
    const NAME: &str;
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Fewer than two bytes.
    #[error("{0} byte(s) are too few for a message")]
    Short(usize),
    /// A version older than this peer understands.
    #[error(
        "wire version {theirs} is too old: this peer speaks {} to {}",
        version::MIN,
        version::CURRENT
    )]
    TooOld {
        /// The version byte.
        theirs: u8,
    },
    /// A newer version whose body this peer cannot read.
    #[error(
        "wire version {theirs} is too new: this peer speaks {} to {}",
        version::MIN,
        version::CURRENT
    )]
    TooNew {
        /// The version byte.
        theirs: u8,
    },
    /// Another kind of message than this subject carries.
    #[error("expected the message {expected}, got kind {theirs:#04x}")]
    Kind {
        /// What this subject carries.
        expected: &'static str,
        /// The kind byte.
        theirs: u8,
    },
    /// The body is something else than a map with named fields.
    #[error("the {what} message is no map")]
    NoMap {
        /// The message.
        what: &'static str,
    },
    /// There is more than a message.
    #[error("there are bytes after the {what} message")]
    Trailing {
        /// The message.
        what: &'static str,
    },
    /// The body is damaged.
    #[error("the {what} message is damaged: {source}")]
    Malformed {
        /// The message.
        what: &'static str,
        /// What the decoder found.
        source: rmp_serde::decode::Error,
    },
}

impl From<&DecodeError> for Refusal {
    fn from(error: &DecodeError) -> Self {
        let code = match error {
            DecodeError::TooOld { .. } | DecodeError::TooNew { .. } => RefusalCode::WrongVersion,
            _ => RefusalCode::Malformed,
        };
        Self::new(code, error)
    }
}

/// The bytes of a message.
pub fn encode<M: Message>(message: &M) -> Bytes {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&[version::CURRENT, M::KIND]);
    rmp_serde::encode::write_named(&mut bytes, message)
        .expect("messages are made of types that MessagePack has");
    bytes.into()
}

/// The message in `bytes`.
///
/// # Errors
///
/// [`DecodeError`], which tells another version from damage.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let (theirs, body) = open(bytes, M::KIND, M::NAME)?;
    read(theirs, body, M::NAME)
}

/// Splits off version and kind, which every version of the protocol can read.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    kind: u8,
    expected: &'static str,
) -> Result<(u8, &'a [u8]), DecodeError> {
    match *bytes {
        [theirs, ..] if theirs < version::MIN => Err(DecodeError::TooOld { theirs }),
        [version, theirs, ref body @ ..] if theirs == kind => Ok((version, body)),
        [_, theirs, ..] => Err(DecodeError::Kind { expected, theirs }),
        _ => Err(DecodeError::Short(bytes.len())),
    }
}

pub(crate) fn read<'a, T: Deserialize<'a>>(
    theirs: u8,
    body: &'a [u8],
    what: &'static str,
) -> Result<T, DecodeError> {
    read_all(body, what).map_err(|error| match theirs > version::CURRENT {
        true => DecodeError::TooNew { theirs },
        false => error,
    })
}

fn read_all<'a, T: Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, DecodeError> {
    // The decoder would take a list as the fields in declared order, which is no form of the wire.
    if let Some(first) = body.first()
        && !matches!(first, 0x80..=0x8f | 0xde | 0xdf)
    {
        return Err(DecodeError::NoMap { what });
    }
    let mut de = rmp_serde::Deserializer::from_read_ref(body);
    de.set_max_depth(DEPTH_MAX * 2);
    let message =
        T::deserialize(&mut de).map_err(|source| DecodeError::Malformed { what, source })?;
    match <()>::deserialize(&mut de) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
        _ => Err(DecodeError::Trailing { what }),
    }
}

/// Whether a body is JSON by hand rather than a message: empty, or it starts with `{`.
pub fn is_json(bytes: &[u8]) -> bool {
    matches!(bytes.first(), None | Some(b'{'))
}

/// What a reply with a result begins with: version, kind, `{"outcome": {"result":`.
const RESULT_HEAD: &[u8] = b"\x01\x02\x81\xa7outcome\x81\xa6result";

impl Reply {
    /// The bytes of a reply with `result`: what [`encode`] writes, in one go.
    pub fn encode_result(result: &[u8]) -> Bytes {
        let mut bytes = Vec::with_capacity(RESULT_HEAD.len() + 5 + result.len());
        bytes.extend_from_slice(RESULT_HEAD);
        write_bin(&mut bytes, result);
        bytes.into()
    }

    /// The message in `bytes`; a result is a slice of them, not a copy.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], as [`decode`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        match bytes.strip_prefix(RESULT_HEAD).and_then(read_bin) {
            Some(result) => Ok(Self { outcome: Outcome::Result(bytes.slice_ref(result)) }),
            None => decode(bytes), // an answer of another sort, or of another writer
        }
    }
}

impl Replies {
    /// Bytes that one reply takes beside its token and itself, at most.
    pub const OVERHEAD_BYTES_MAX: usize = 1 + 5 + 5;

    /// The bytes of the message: what [`encode`] writes, from where they lie.
    pub fn encode<'a>(replies: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>) -> Bytes {
        let mut out = Vec::with_capacity(REPLIES_BYTES);
        out.extend_from_slice(&[version::CURRENT, Self::KIND, 0x81]);
        write_text(&mut out, "replies");
        let len = u32::try_from(replies.len()).expect("a message has room for fewer");
        rmp::encode::write_array_len(&mut out, len).expect("memory takes it");
        for (token, reply) in replies {
            out.push(0x92); // a list of two
            write_text(&mut out, token);
            write_bin(&mut out, reply);
        }
        out.into()
    }

    /// Whether `bytes` say that they are this message.
    pub fn is(bytes: &[u8]) -> bool {
        matches!(*bytes, [version, Self::KIND, ..] if version >= version::MIN)
    }

    /// The replies in `bytes`, as slices of them.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], as [`decode`].
    pub fn decode(bytes: &Bytes) -> Result<Vec<(&str, Bytes)>, DecodeError> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            #[serde(borrow)]
            replies: Vec<(&'a str, Raw<'a>)>,
        }
        let (theirs, body) = open(bytes, Self::KIND, Self::NAME)?;
        let Borrowed { replies } = read(theirs, body, Self::NAME)?;
        Ok(replies.into_iter().map(|(to, reply)| (to, bytes.slice_ref(reply.0))).collect())
    }
}

/// What replies to many small calls take, and those calls.
const REPLIES_BYTES: usize = 4096;

impl Calls {
    /// Bytes that one call takes beside its texts and itself, at most.
    pub const OVERHEAD_BYTES_MAX: usize = 1 + 5 + 5 + 5;

    /// The bytes of the message: what [`encode`] writes, from where they lie.
    /// Each is a driver, its method, the token of the reply subject and the call; `bytes` is about
    /// what they take.
    pub fn encode<'a>(
        calls: impl ExactSizeIterator<Item = (DriverId, &'a str, u64, &'a [u8])>,
        bytes: usize,
    ) -> Bytes {
        let mut out = Vec::with_capacity(16 + bytes);
        out.extend_from_slice(&[version::CURRENT, Self::KIND, 0x81]);
        write_text(&mut out, "calls");
        let len = u32::try_from(calls.len()).expect("a message has room for fewer");
        rmp::encode::write_array_len(&mut out, len).expect("memory takes it");
        for (driver, method, token, call) in calls {
            out.push(0x93); // a list of three
            let (mut id, mut hex) = ([0; 36], [0; 16]);
            let id = driver.text(&mut id);
            let len = u32::try_from(id.len() + 1 + method.len()).expect("names are short");
            rmp::encode::write_str_len(&mut out, len).expect("memory takes it");
            for part in [id, ".", method] {
                out.extend_from_slice(part.as_bytes());
            }
            write_text(&mut out, Session(token).text(&mut hex));
            write_bin(&mut out, call);
        }
        out.into()
    }

    /// The calls in `bytes`, as slices of them.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], as [`decode`].
    pub fn decode(bytes: &Bytes) -> Result<Vec<(&str, &str, Bytes)>, DecodeError> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            #[serde(borrow)]
            calls: Vec<(&'a str, &'a str, Raw<'a>)>,
        }
        let (theirs, body) = open(bytes, Self::KIND, Self::NAME)?;
        let Borrowed { calls } = read(theirs, body, Self::NAME)?;
        Ok(calls
            .into_iter()
            .map(|(to, token, call)| (to, token, bytes.slice_ref(call.0)))
            .collect())
    }
}

impl Call {
    /// The bytes of the message: what [`encode`] writes, without going over serde. Every call of
    /// every client passes here.
    pub fn encode(&self) -> Bytes {
        let Self { id, attempt, age_ms, deadline_ms, done_below, .. } = self;
        let Self { epoch, form, together, args, parts, .. } = self;
        let mut out = Vec::with_capacity(CALL_BYTES + args.len());
        out.extend_from_slice(&[version::CURRENT, Self::KIND, 0x80]);
        let mut field = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
            out[2] += 1; // a map of one more
            write_text(&mut out, name);
            write(&mut out);
        };
        let int = |value: u64| move |out: &mut Vec<u8>| write_int(out, value);
        if let Some(id) = id {
            field("id", &|out| write_text(out, id.text(&mut [0; CallId::TEXT_BYTES_MAX])));
        }
        if *attempt != 0 {
            field("attempt", &int(u64::from(*attempt)));
        }
        if *age_ms != 0 {
            field("age_ms", &int(*age_ms));
        }
        field("deadline_ms", &int(*deadline_ms));
        if *done_below != 0 {
            field("done_below", &int(*done_below));
        }
        if let Some(epoch) = epoch {
            field("epoch", &int(*epoch));
        }
        if *form == Form::Words {
            field("form", &|out| write_text(out, "words"));
        }
        if *together {
            field("together", &|out| rmp::encode::write_bool(out, true).expect("memory takes it"));
        }
        if !args.is_empty() {
            field("args", &|out| write_bin(out, args));
        }
        if let Some(parts) = parts {
            field("parts", &|out| {
                rmp_serde::encode::write_named(out, parts).expect("a map of text and integer");
            });
        }
        out.into()
    }
}

/// What a call takes without its arguments, as a rule.
const CALL_BYTES: usize = 160;

fn write_text(out: &mut Vec<u8>, text: &str) {
    rmp::encode::write_str(out, text).expect("memory takes it");
}

fn write_int(out: &mut Vec<u8>, value: u64) {
    rmp::encode::write_uint(out, value).expect("memory takes it");
}

fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    rmp::encode::write_bin(out, bytes).expect("memory takes it");
}

/// The one MessagePack `bin` that `bytes` are.
fn read_bin(mut bytes: &[u8]) -> Option<&[u8]> {
    let len = rmp::decode::read_bin_len(&mut bytes).ok()?;
    (bytes.len() == len as usize).then_some(bytes)
}

/// Bytes that a plain [`Data`] message adds to its payload.
pub const DATA_HEAD_BYTES: usize = 25;

impl Data {
    /// The kind byte.
    pub const KIND: u8 = 0x12;

    /// The head of a message with `len` payload bytes and nothing else, to be followed by them.
    /// This is what [`encode`](Self::encode) writes, with integers at full width so that the
    /// payload can be collected behind a gap of known size.
    pub fn head(at: u64, len: u32) -> [u8; DATA_HEAD_BYTES] {
        let mut head = *b"\x01\x12\x82\xa2at\xcf________\xa4data\xc6____";
        head[7..15].copy_from_slice(&at.to_be_bytes());
        head[21..25].copy_from_slice(&len.to_be_bytes());
        head
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Bytes {
        #[derive(Serialize)]
        struct Tail<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            begin: &'a Option<Begin>,
            #[serde(skip_serializing_if = "Option::is_none")]
            end: &'a Option<End>,
        }
        let len = u32::try_from(self.data.len()).expect("a chunk is smaller than 4 GiB");
        let mut bytes = Vec::with_capacity(DATA_HEAD_BYTES + self.data.len() + 128);
        bytes.extend_from_slice(&Self::head(self.at, len));
        bytes.extend_from_slice(&self.data);
        let more = u8::from(self.begin.is_some()) + u8::from(self.end.is_some());
        if more > 0 {
            bytes[2] = 0x82 + more;
            let tail = Tail { begin: &self.begin, end: &self.end };
            let start = bytes.len();
            rmp_serde::encode::write_named(&mut bytes, &tail)
                .expect("messages are made of types that MessagePack has");
            bytes.remove(start); // the tail's fields belong to the one map that began above
        }
        bytes.into()
    }

    /// The message in `bytes`; its payload is a slice of them, not a copy.
    ///
    /// # Errors
    ///
    /// [`DecodeError`], as [`decode`].
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            at: u64,
            #[serde(default, borrow)]
            data: Raw<'a>,
            #[serde(default)]
            begin: Option<Begin>,
            #[serde(default)]
            end: Option<End>,
        }
        let (theirs, body) = open(bytes, Self::KIND, "data")?;
        let Borrowed { at, data, begin, end } = read(theirs, body, "data")?;
        Ok(Self { at, data: bytes.slice_ref(data.0), begin, end })
    }
}

/// A MessagePack `bin` that stays where it is.
#[derive(Default)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }
        d.deserialize_bytes(Visitor).map(Raw)
    }
}
