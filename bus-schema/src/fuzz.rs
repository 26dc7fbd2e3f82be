//! One entry point for each decoder: whatever the bytes, it returns, and takes no more memory
//! than they are worth. `tests/fuzz.rs` runs them for a bounded time; a fuzzer may for longer.

use std::str::from_utf8;

use bytes::{Bytes, BytesMut};
use serde::Deserialize as _;

use crate::{
    Address, AdminAsk, Administered, Args, BlockNews, BlockPart, Board, CallId, ClientName,
    DriverId, Event, Field, HookId, Incarnation, Interface, InterfaceDigest, Kind, LeaseAsk,
    LeaseNews, LeaseTarget, Leased, Lent, LogLines, Manifest, Method, MethodName, Path, Place,
    Presence, Root, Selector, Session, Sha256, StreamId, TicketId, TreeRecord, Type, Value,
    Variant,
    codec::{self, Message},
    message::{
        Ack, Ask, Call, Calls, Cancel, Data, Open, Opened, Ping, Pong, Replies, Reply, Reset, Told,
    },
    subject::{FromAdmin, FromClient, FromExporter, Inbox, Spoken, Stored, StoredTo},
};

/// One decoder.
pub type Entry = fn(&[u8]);

/// Every decoder, by name.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("call", message::<Call>),
    ("reply", message::<Reply>),
    ("replies", replies),
    ("calls", calls),
    ("ask", message::<Ask>),
    ("told", message::<Told>),
    ("cancel", message::<Cancel>),
    ("ping", message::<Ping>),
    ("pong", message::<Pong>),
    ("open", message::<Open>),
    ("opened", message::<Opened>),
    ("data", data),
    ("ack", message::<Ack>),
    ("reset", message::<Reset>),
    ("lease", message::<LeaseAsk>),
    ("leased", message::<Leased>),
    ("lease-news", message::<LeaseNews>),
    ("admin", message::<AdminAsk>),
    ("administered", message::<Administered>),
    ("board", message::<Board>),
    ("presence", message::<Presence>),
    ("tree", message::<TreeRecord>),
    ("interface", message::<Interface>),
    ("manifest", manifest),
    ("block", block),
    ("block-news", block_news),
    ("lent", lent),
    ("event", message::<Event>),
    ("log", message::<LogLines>),
    ("place", message::<Place>),
    ("subjects", subjects),
    ("addresses", addresses),
    ("ids", ids),
    ("value", value),
    ("json", json),
    ("word", word),
    ("args", args),
];

/// A message. What can be read can be written, and is then the same.
pub fn message<M: Message>(bytes: &[u8]) {
    if let Ok(message) = codec::decode::<M>(bytes) {
        let written = codec::encode(&message);
        let read: M = codec::decode(&written).expect("what was written can be read");
        assert_eq!(codec::encode(&read), written);
    }
}

/// Replies, both as a message and as slices of one.
pub fn replies(bytes: &[u8]) {
    message::<Replies>(bytes);
    let bytes = Bytes::copy_from_slice(bytes);
    let sliced = Replies::decode(&bytes).ok();
    let copied = codec::decode::<Replies>(&bytes).ok();
    if let (Some(sliced), Some(copied)) = (sliced, copied) {
        let sliced = sliced.into_iter().map(|(to, reply)| (to.to_owned(), reply));
        assert!(sliced.eq(copied.replies));
    }
}

/// Calls, both as a message and as slices of one.
pub fn calls(bytes: &[u8]) {
    message::<Calls>(bytes);
    let bytes = Bytes::copy_from_slice(bytes);
    let sliced = Calls::decode(&bytes).ok();
    let copied = codec::decode::<Calls>(&bytes).ok();
    if let (Some(sliced), Some(copied)) = (sliced, copied) {
        let owned =
            |(to, token, call): (&str, &str, Bytes)| (to.to_owned(), token.to_owned(), call);
        assert!(sliced.into_iter().map(owned).eq(copied.calls));
    }
}

/// A data message.
pub fn data(bytes: &[u8]) {
    if let Ok(data) = Data::decode(&Bytes::copy_from_slice(bytes)) {
        let written = data.encode();
        let read = Data::decode(&written).expect("what was written can be read");
        assert_eq!(read.encode(), written);
    }
}

/// A manifest, and what is read from it.
pub fn manifest(bytes: &[u8]) {
    message::<Manifest>(bytes);
    if let Ok(manifest) = codec::decode::<Manifest>(bytes)
        && manifest.check().is_ok()
    {
        let count = manifest.count();
        let whole: u64 = [0, count.saturating_sub(1)].map(|at| manifest.len_of(at)).iter().sum();
        assert!(whole <= 2 * manifest.block_bytes);
        let _ = manifest.digests(&manifest.blocks);
    }
}

/// A part of a block.
pub fn block(bytes: &[u8]) {
    if let Ok(part) = BlockPart::decode(&Bytes::copy_from_slice(bytes)) {
        let _ = part.check();
        let written = part.encode();
        let read = BlockPart::decode(&written).expect("what was written can be read");
        assert_eq!(read, part);
    }
}

/// News of the blocks of a file.
pub fn block_news(bytes: &[u8]) {
    let (mut rest, mut written) = (BytesMut::from(bytes), Vec::new());
    while let Ok(Some(news)) = BlockNews::take(&mut rest) {
        news.write(&mut written);
    }
    written.extend_from_slice(&rest);
    assert_eq!(written, bytes);
}

/// A resource as an argument.
pub fn lent(bytes: &[u8]) {
    let mut de = rmp_serde::Deserializer::from_read_ref(bytes);
    de.set_max_depth(crate::limits::DEPTH_MAX);
    if let Ok(lent) = Lent::deserialize(&mut de) {
        let _ = (lent.check(), format!("{lent:?}"));
        let written = rmp_serde::to_vec_named(&lent).expect("it can be written");
        assert_eq!(rmp_serde::from_slice::<Lent>(&written).expect("and read"), lent);
    }
}

/// Subjects, as either side reads them.
pub fn subjects(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    let root = Root::default();
    if let Ok(subject) = FromClient::read(&root, text) {
        assert_eq!(subject.under(&root), text);
    }
    if let Ok(subject) = FromExporter::read(&root, text) {
        let written = subject.under(&root);
        assert_eq!(FromExporter::read(&root, &written), Ok(subject));
    }
    if let Ok(subject) = FromAdmin::read(&root, text) {
        assert_eq!(subject.under(&root), text);
    }
    if let Ok(subject) = Stored::read(&root, text) {
        assert_eq!(subject.under(&root), text);
    }
    if let Ok(subject) = StoredTo::read(&root, text) {
        assert_eq!(subject.under(&root), text);
    }
    let _ = Spoken::speaker(&root, text);
    let client: ClientName = "alice".parse().expect("a name");
    let inbox = Inbox::of_client(&root, &client, Session(1));
    let _ = (inbox.read(text), Inbox::belongs_to(text, &root, &client));
}

/// Addresses and selectors.
pub fn addresses(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string(), text);
    }
    if let Ok(selector) = text.parse::<Selector>() {
        let written = selector.to_string();
        assert_eq!(written.parse(), Ok(selector));
    }
    let _ = (text.parse::<Path>(), text.parse::<LeaseTarget>());
}

/// Names and ids.
pub fn ids(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    fn id<T: std::str::FromStr + ToString>(text: &str) {
        if let Ok(id) = text.parse::<T>() {
            assert_eq!(id.to_string(), text);
        }
    }
    id::<DriverId>(text);
    id::<CallId>(text);
    id::<StreamId>(text);
    id::<TicketId>(text);
    id::<Session>(text);
    id::<HookId>(text);
    id::<Incarnation>(text);
    id::<InterfaceDigest>(text);
    id::<Sha256>(text);
    id::<MethodName>(text);
    id::<ClientName>(text);
}

/// A value of any type.
pub fn value(bytes: &[u8]) {
    if let Ok(value) = Value::from_msgpack(bytes) {
        for ty in &types() {
            let _ = (value.to_json(ty), value.shown_as(ty));
        }
    }
}

/// JSON where each type is expected.
pub fn json(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    for ty in &types() {
        if let Ok(value) = Value::from_json(ty, &json) {
            let _ = value.to_json(ty);
        }
    }
}

/// A word where each type is expected.
pub fn word(bytes: &[u8]) {
    let Ok(text) = from_utf8(bytes) else { return };
    for ty in &types() {
        if let Ok(value) = Value::from_word(ty, text) {
            let _ = value.shown_as(ty);
        }
    }
}

/// Arguments of a method with a parameter of each type.
pub fn args(bytes: &[u8]) {
    let params = types().into_iter().map(|ty| field("p", ty)).collect();
    let method = Method {
        name: "m".to_owned(),
        kind: Kind::Call,
        help: String::new(),
        params,
        result: Type::Unit,
        concurrent: false,
        uncancellable: false,
        observe: false,
        deadline_ms: None,
    };
    let args = Args(Bytes::copy_from_slice(bytes));
    if let Ok(mut reader) = args.reader(&method) {
        while reader.take_or(|| Value::Nil).is_ok_and(|value| value != Value::Nil) {}
        let _ = reader.finish();
    }
    if let Ok(mut reader) = args.reader(&method) {
        let _ = (reader.take::<String>(), reader.take::<u16>(), reader.take::<Vec<String>>());
        let _ = (reader.take::<std::time::Duration>(), reader.take::<std::time::SystemTime>());
    }
}

fn field(name: &str, ty: Type) -> Field {
    Field { name: name.to_owned(), ty, help: String::new(), optional: true, default: None }
}

/// One of each type.
fn types() -> Vec<Type> {
    let variant =
        |name: &str, carries| Variant { name: name.to_owned(), help: String::new(), carries };
    vec![
        Type::Unit,
        Type::Bool,
        Type::I64,
        Type::U64,
        Type::F64,
        Type::Text,
        Type::Bytes,
        Type::Timestamp,
        Type::Duration,
        Type::List(Box::new(Type::Timestamp)),
        Type::Map(Box::new(Type::Duration)),
        Type::Struct { name: "S".to_owned(), fields: vec![field("a", Type::Bytes)] },
        Type::Enum {
            name: "E".to_owned(),
            variants: vec![variant("off", Type::Unit), variant("at", Type::F64)],
        },
        Type::Optional(Box::new(Type::I64)),
        Type::Resource,
        Type::Any,
    ]
}
