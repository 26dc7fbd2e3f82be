//! What is said: every message of the wire. PROTOCOL.md says when.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    AdminAsk, Administered, Board, CallId, Fault, Incarnation, LeaseAsk, LeaseNews, Leased,
    Refusal, StreamId, Type,
    codec::Message,
    limits::{CHUNK_BYTES_MAX, TEXT_BYTES_MAX},
};

macro_rules! messages {
    ($($kind:literal $name:ident $text:literal),* $(,)?) => {
        $(impl Message for $name {
            const KIND: u8 = $kind;
            const NAME: &str = $text;
        })*

        /// Every kind byte with its message's name, for tests that go over all of them.
        pub const KINDS: &[(u8, &str)] = &[$(($kind, $text),)* (Data::KIND, "data")];
    };
}
messages! {
    0x01 Call "call",
    0x02 Reply "reply",
    0x03 Ask "ask",
    0x04 Told "told",
    0x05 Cancel "cancel",
    0x06 Ping "ping",
    0x07 Pong "pong",
    0x08 Replies "replies",
    0x09 Calls "calls",
    0x10 Open "open",
    0x11 Opened "opened",
    0x13 Ack "ack",
    0x14 Reset "reset",
    0x30 LeaseAsk "lease",
    0x31 Leased "leased",
    0x32 LeaseNews "lease-news",
    0x33 AdminAsk "admin",
    0x34 Administered "administered",
    0x35 Board "board",
}

/// A request for one execution of one method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Which call this is. Without an id every message is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CallId>,
    /// How often it was sent before; the same id with a higher attempt is a repeat.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// Time since it was first sent, in ms. (Durations travel, never clock times.)
    #[serde(default, skip_serializing_if = "is_default")]
    pub age_ms: u64,
    /// What is left of its deadline, in ms.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// The lowest counter of its session that the client still waits for: outcomes below it may
    /// be forgotten.
    #[serde(default, skip_serializing_if = "is_default")]
    pub done_below: u64,
    /// The lease that it is made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How the arguments are written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub form: Form,
    /// Whether the reply may come together with others, in [`Replies`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub together: bool,
    /// The arguments: a MessagePack array. Empty if they follow in parts.
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub args: Bytes,
    /// Where the arguments follow, if they are too large for a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            id: None,
            attempt: 0,
            age_ms: 0,
            deadline_ms: deadline_ms(),
            done_below: 0,
            epoch: None,
            form: Form::default(),
            together: false,
            args: Bytes::new(),
            parts: None,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn deadline_ms() -> u64 {
    crate::limits::DEADLINE.as_millis() as u64
}

/// How arguments are written, and so how the result is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Each of its own type; the result is a MessagePack value.
    #[default]
    Typed,
    /// Words as a person typed them (texts, or bytes for contents of files), which the exporter
    /// reads by the method's signature; the result is JSON text.
    Words,
}

/// A body that travels as a stream of its own, because it is too large for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The stream.
    pub stream: StreamId,
    /// How many bytes will come.
    pub bytes: u64,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// How it ended.
    pub outcome: Outcome,
}

/// Replies to several calls of one client process, in one message. It goes to the reply subject of
/// one of them; the others' differ from that in the last token only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Replies {
    /// The last token of each one's reply subject, and the [`Reply`] as it would go there.
    pub replies: Vec<(String, Bytes)>,
}

/// Calls of one client process to drivers of one exporter, in one message. The reply subject of
/// each differs from that of the message in the last token only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// `<driver>.<method>`, as at the end of the subject that the call would go to by itself; the
    /// last token of its reply subject; the [`Call`].
    pub calls: Vec<(String, String, Bytes)>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The result: one MessagePack value, or JSON text if the form was [`Form::Words`].
    Result(Bytes),
    /// The result, in parts.
    Parts(Parts),
    /// It was executed and failed.
    Fault(Fault),
    /// It was not executed.
    Refused(Refusal),
    /// It may have been executed, and nobody knows how it ended.
    Unknown(Unknown),
}

/// Why nobody knows how a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The exporter was started, or its memory of calls cut, after the call was first sent.
    Forgotten,
    /// It ended, and its result is no longer kept.
    Dropped,
}

/// How are these calls getting on?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// At most [`ASK_IDS_MAX`](crate::limits::ASK_IDS_MAX) calls.
    pub ids: Vec<CallId>,
}

/// Stop these calls. Answered with [`Told`]; a call that ends by it is answered as usual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// At most [`ASK_IDS_MAX`](crate::limits::ASK_IDS_MAX) calls.
    pub ids: Vec<CallId>,
}

/// The answer to [`Ask`] and [`Cancel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Which run of the exporter speaks.
    pub incarnation: Incarnation,
    /// How long it has run, in ms. What was first sent longer ago may have been executed by an
    /// earlier run.
    #[serde(default)]
    pub uptime_ms: u64,
    /// One answer for each id, in their order.
    pub calls: Vec<Progress>,
}

/// How a call is getting on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// It waits for its turn, for this many ms so far.
    Queued(u64),
    /// It runs, for this many ms so far.
    Running(u64),
    /// It ended; the answer is being sent again to the call's reply subject.
    Done,
    /// The exporter knows nothing of it.
    Unknown,
}

/// Are you there?
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ping {}

/// The answer to [`Ping`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Which run of the exporter speaks.
    pub incarnation: Incarnation,
    /// The host it runs on.
    pub host: String,
    /// How long it has run, in ms.
    pub uptime_ms: u64,
}

/// A request to open a stream or start a streaming call. At most once, as a [`Call`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// Which call this is.
    pub id: CallId,
    /// The stream that it opens.
    pub stream: StreamId,
    /// Bytes that the exporter may send.
    pub credit: u64,
    /// How often it was sent before.
    #[serde(default, skip_serializing_if = "is_default")]
    pub attempt: u32,
    /// Time since it was first sent, in ms.
    #[serde(default, skip_serializing_if = "is_default")]
    pub age_ms: u64,
    /// What is left of the time to open it, in ms.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// As in [`Call`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub done_below: u64,
    /// The lease that it is made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How the arguments are written; items are MessagePack either way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub form: Form,
    /// The arguments: a MessagePack array.
    #[serde(default, skip_serializing_if = "Bytes::is_empty")]
    pub args: Bytes,
    /// Whether a streaming call goes on without its caller; its record can be attached to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub detached: bool,
}

/// The answer to [`Open`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opened {
    /// It is open.
    Open {
        /// Which run of the exporter speaks.
        incarnation: Incarnation,
        /// Bytes that the client may send.
        credit: u64,
        /// Type of the items of a streaming call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<Type>,
    },
    /// It was executed and failed before it was open.
    Fault(Fault),
    /// It was not executed.
    Refused(Refusal),
    /// It may have been executed.
    Unknown(Unknown),
}

/// Bytes of a stream, or one record of a streaming call, whose items follow each other as
/// MessagePack `bin` values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// Offset of the first byte.
    pub at: u64,
    /// At most [`CHUNK_BYTES_MAX`] bytes, or as many as the broker's `max_payload` allows.
    pub data: Bytes,
    /// What the record is of: in record 0 of a streaming call.
    pub begin: Option<Begin>,
    /// That nothing follows.
    pub end: Option<End>,
}

const _: () = assert!(CHUNK_BYTES_MAX > TEXT_BYTES_MAX);

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The driver's address when it was called.
    pub address: String,
    /// The method.
    pub method: String,
    /// Type of the items.
    pub item: Type,
    /// When it began, in ms since 1970 by the exporter's clock.
    pub began_ms: u64,
}

/// The end of one direction, with what there was in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Bytes in all.
    pub bytes: u64,
    /// Items in all, of a streaming call.
    #[serde(default, skip_serializing_if = "is_default")]
    pub items: u64,
    /// How the streaming call failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Records that JetStream has, if that is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<u64>,
}

/// How far a stream is: acknowledgement, credit and keep-alive in one. Idempotent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Bytes received without a gap.
    pub received: u64,
    /// The peer may send up to this offset.
    pub limit: u64,
    /// Whether the end was received.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ended: bool,
    /// Bytes sent in the other direction.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sent: u64,
    /// Whether the end was sent in the other direction.
    #[serde(default, skip_serializing_if = "is_default")]
    pub finished: bool,
    /// Asks for everything from `received` once more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub again: bool,
}

/// The sudden end of a stream, in both directions. Never confused with an [`End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Why, for programs.
    pub code: ResetCode,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetCode {
    /// The peer no longer wants it.
    Cancelled,
    /// The driver's method failed.
    Fault,
    /// There is no such stream: the exporter was restarted, or the stream has ended.
    NoStream,
    /// The peer broke the protocol.
    Protocol,
    /// The exporter is going down.
    ShuttingDown,
    /// The lease it was opened under has ended.
    LeaseEnded,
    /// The peer was silent too long.
    Silent,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

impl ResetCode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Fault => "fault",
            Self::NoStream => "no-stream",
            Self::Protocol => "protocol",
            Self::ShuttingDown => "shutting-down",
            Self::LeaseEnded => "lease-ended",
            Self::Silent => "silent",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
