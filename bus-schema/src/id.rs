//! Ids: the tokens of a subject that nobody chooses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};
use uuid::Uuid;

use crate::{ExporterName, Path};

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

impl IdError {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(80).collect() }
    }
}

/// The UUID of a driver, written in lower case with dashes, in subjects and in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DriverId(Uuid);

impl DriverId {
    /// The namespace of driver UUIDs: the UUIDv5 of `jmp-bus` in the URL namespace of RFC 9562.
    pub const NAMESPACE: Uuid = uuid::uuid!("752c930c-66cf-59c8-b15b-4b79e52cd9f5");

    /// The stable id of the driver at `path` of `exporter`: UUIDv5 of `exporter/path`, so that
    /// an address becomes a subject without asking anybody.
    pub fn at(exporter: &ExporterName, path: &Path) -> Self {
        let address = match path.is_root() {
            true => exporter.to_string(),
            false => format!("{exporter}/{path}"),
        };
        Self(Uuid::new_v5(&Self::NAMESPACE, address.as_bytes()))
    }

    /// The id as a UUID.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for DriverId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl DriverId {
    /// Its text, written into `room`.
    pub(crate) fn text(self, room: &mut [u8; 36]) -> &str {
        self.0.as_hyphenated().encode_lower(room)
    }
}

impl fmt::Display for DriverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for DriverId {
    type Err = IdError;

    /// Takes the one form that subjects use: 36 characters, lower case, with dashes.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let uuid = Uuid::try_parse(text).map_err(|_| IdError::new("driver id (UUID)", text))?;
        let mut canonical = Uuid::encode_buffer();
        match uuid.as_hyphenated().encode_lower(&mut canonical) == text {
            true => Ok(Self(uuid)),
            false => Err(IdError::new("driver id (UUID in lower case with dashes)", text)),
        }
    }
}

impl Serialize for DriverId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DriverId {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $digits:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $int);

        impl $name {
            /// Its text, written into `room`: subjects are made for every message.
            pub(crate) fn text(self, room: &mut [u8; $digits]) -> &str {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                for (at, byte) in room.iter_mut().rev().enumerate() {
                    *byte = HEX[((self.0 >> (4 * at)) & 0xf) as usize];
                }
                std::str::from_utf8(room).expect("hex digits are text")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.text(&mut [0; $digits]))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
                if text.len() != $digits || !text.bytes().all(digits) {
                    return Err(IdError::new($what, text));
                }
                <$int>::from_str_radix(text, 16).map(Self).map_err(|_| IdError::new($what, text))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// One run of a client process: random, so that a counter can number its calls.
    Session, u64, 16, "session (16 hex digits)"
}

hex_id! {
    /// One run of a script of an exporter: it is given 32 random bits, with which the sessions of
    /// its clients begin.
    HookId, u32, 8, "hook (8 hex digits)"
}

impl Session {
    /// A session of a client that belongs to a hook. `random` is what tells it from others.
    pub fn of_hook(hook: HookId, random: u32) -> Self {
        Self(u64::from(hook.0) << 32 | u64::from(random))
    }

    /// The hook that it belongs to, if it does to one.
    pub fn hook(self) -> HookId {
        HookId(u32::try_from(self.0 >> 32).expect("the upper half of 64 bits"))
    }
}
hex_id! {
    /// One run of an exporter process: random. Another incarnation remembers nothing.
    Incarnation, u64, 16, "incarnation (16 hex digits)"
}
hex_id! {
    /// One open stream: 128 random bits, which stand in for a reply subject on its messages. The
    /// upper half is the session of the client process.
    StreamId, u128, 32, "stream id (32 hex digits)"
}

hex_id! {
    /// One request for a lease, and what became of it: 128 random bits, the upper half the session
    /// of the client process.
    TicketId, u128, 32, "ticket (32 hex digits)"
}

impl TicketId {
    /// The ticket `random` of a client process.
    pub fn new(session: Session, random: u64) -> Self {
        Self(u128::from(session.0) << 64 | u128::from(random))
    }

    /// The client process that asked.
    pub fn session(self) -> Session {
        Session(u64::try_from(self.0 >> 64).expect("the upper half of 128 bits"))
    }
}

impl StreamId {
    /// The stream `random` of a client process. The session is its upper half, so that an
    /// exporter knows where to speak to even of a stream that it does not know.
    pub fn new(session: Session, random: u64) -> Self {
        Self(u128::from(session.0) << 64 | u128::from(random))
    }

    /// The client process that the stream belongs to.
    pub fn session(self) -> Session {
        Session(u64::try_from(self.0 >> 64).expect("the upper half of 128 bits"))
    }
}

/// One call of one client process, written `<session>-<counter>`.
///
/// The client's name is not in it: that comes from the subject, where the broker vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId {
    /// The client process.
    pub session: Session,
    /// The call within it, counted from 1.
    pub counter: u64,
}

impl CallId {
    /// Room for its text.
    pub(crate) const TEXT_BYTES_MAX: usize = 16 + 1 + 20;

    /// Its text, written into `room`: every call of every client passes here.
    pub(crate) fn text(self, room: &mut [u8; Self::TEXT_BYTES_MAX]) -> &str {
        let (session, rest) = room.split_first_chunk_mut().expect("there is room");
        self.session.text(session);
        let mut at = rest.len();
        let mut left = self.counter;
        loop {
            at -= 1;
            rest[at] = b'0' + u8::try_from(left % 10).expect("a digit");
            left /= 10;
            if left == 0 {
                break;
            }
        }
        let digits = rest.len() - at;
        rest.copy_within(at.., 1);
        rest[0] = b'-';
        std::str::from_utf8(&room[..17 + digits]).expect("digits are text")
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; Self::TEXT_BYTES_MAX]))
    }
}

impl FromStr for CallId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let no = || IdError::new("call id (session-counter)", text);
        let (session, counter) = text.split_once('-').ok_or_else(no)?;
        let plain = !counter.is_empty()
            && counter.bytes().all(|b| b.is_ascii_digit())
            && !counter.starts_with('0'); // neither 0 nor 007
        match plain {
            true => {
                Ok(Self { session: session.parse()?, counter: counter.parse().map_err(|_| no())? })
            }
            false => Err(no()),
        }
    }
}

impl Serialize for CallId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.text(&mut [0; Self::TEXT_BYTES_MAX]))
    }
}

impl<'de> Deserialize<'de> for CallId {
    fn deserialize<D: de::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_its_documentation_says() {
        assert_eq!(DriverId::NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"jmp-bus"));
    }

    #[test]
    fn ids_read_back_what_they_write() {
        let call = CallId { session: Session(0xab), counter: 7 };
        assert_eq!(call.to_string(), "00000000000000ab-7");
        assert_eq!(call.to_string().parse(), Ok(call));
        let last = CallId { session: Session(u64::MAX), counter: u64::MAX };
        assert_eq!(last.to_string(), "ffffffffffffffff-18446744073709551615");
        assert_eq!(last.to_string().parse(), Ok(last));
        assert_eq!(StreamId(1).to_string().parse(), Ok(StreamId(1)));
    }

    #[test]
    fn a_second_spelling_of_an_id_is_refused() {
        for bad in ["AB-7", "ab-07", "ab-0", "ab-", "b-7"] {
            let bad = format!("00000000000000{bad}");
            assert!(bad.parse::<CallId>().is_err(), "{bad}");
        }
        assert!("E1DE1FB6-DF32-59AE-9151-C63838EF98CF".parse::<DriverId>().is_err());
    }
}
