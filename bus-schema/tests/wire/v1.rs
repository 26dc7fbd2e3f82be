//! The bytes of every message that existed at wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.
//! This file is deleted when `version::MIN` passes 1, and not before.

#[path = "v1/calls.rs"]
mod calls;
#[path = "v1/files.rs"]
mod files;
#[path = "v1/leases.rs"]
mod leases;
#[path = "v1/operation.rs"]
mod operation;
#[path = "v1/records.rs"]
mod records;
#[path = "v1/streams.rs"]
mod streams;

use bus_schema::{
    CallId, Event, Fault, FaultKind, Incarnation, Interface, LogLines, Place, Presence, Refusal,
    RefusalCode, Session, StreamId, TreeRecord,
    codec::{self, DecodeError, Message},
    message::{Ack, Ask, Data, KINDS, Outcome, Ping, Reply, Reset, ResetCode},
};

use super::{assert_data, assert_wire, hex};

const ID: CallId = CallId { session: Session(0xab), counter: 7 };
const STREAM: StreamId = StreamId(0xab << 64 | 1);
const INCARNATION: Incarnation = Incarnation(0x1f);

fn text(code: &str) -> String {
    code.to_owned()
}

#[test]
fn the_kinds_are_these() {
    let kinds = [
        (0x01, "call"),
        (0x02, "reply"),
        (0x03, "ask"),
        (0x04, "told"),
        (0x05, "cancel"),
        (0x06, "ping"),
        (0x07, "pong"),
        (0x08, "replies"),
        (0x09, "calls"),
        (0x10, "open"),
        (0x11, "opened"),
        (0x13, "ack"),
        (0x14, "reset"),
        (0x30, "lease"),
        (0x31, "leased"),
        (0x32, "lease-news"),
        (0x33, "admin"),
        (0x34, "administered"),
        (0x35, "board"),
        (0x12, "data"),
    ];
    assert_eq!(KINDS, kinds);
    let records = [
        (Presence::KIND, Presence::NAME),
        (TreeRecord::KIND, TreeRecord::NAME),
        (Interface::KIND, Interface::NAME),
    ];
    assert_eq!(records, [(0x20, "presence"), (0x21, "tree"), (0x22, "interface")]);
    let operation =
        [(Event::KIND, Event::NAME), (LogLines::KIND, LogLines::NAME), (Place::KIND, Place::NAME)];
    assert_eq!(operation, [(0x40, "event"), (0x41, "log"), (0x42, "place")]);
}

#[test]
fn unknown_fields_are_ignored() {
    // {"zzz": {"a": [1]}, "received": 1, "limit": 2}
    let ack = hex("01 13 83 a3 7a7a7a 81 a1 61 91 01 a8 7265636569766564 01 a5 6c696d6974 02");
    let read = codec::decode::<Ack>(&ack).unwrap();
    assert_eq!(read, Ack { received: 1, limit: 2, ..Ack::default() });
    // {"at": 0, "data": "hi", "zzz": nil}
    let data = hex("01 12 83 a2 6174 00 a4 64617461 c4 02 6869 a3 7a7a7a c0");
    assert_eq!(&Data::decode(&data.into()).unwrap().data[..], b"hi");
}

#[test]
fn a_fault_kind_of_a_newer_version_is_kept() {
    let fault = Fault { kind: FaultKind::Other(text("melted")), text: text("hot") };
    assert_wire(
        &Reply { outcome: Outcome::Fault(fault) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a5 6661756c74 82 | fault: map of 2
                  a4 6b696e64  a6 6d656c746564 | kind: melted
                  a4 74657874  a3 686f74 | text: hot
        ",
    );
}

#[test]
fn a_refusal_code_of_a_newer_version_is_kept() {
    let refusal = Refusal::new(RefusalCode::Other(text("on-strike")), "no");
    assert_wire(
        &Reply { outcome: Outcome::Refused(refusal) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a7 72656675736564 82 | refused: map of 2
                  a4 636f6465  a9 6f6e2d737472696b65 | code: on-strike
                  a4 74657874  a2 6e6f | text: no
        ",
    );
}

#[test]
fn a_reset_code_of_a_newer_version_is_a_reset() {
    // {"code": "on-strike"}
    let reset = hex("01 14 81 a4 636f6465 a9 6f6e2d737472696b65");
    assert_eq!(codec::decode::<Reset>(&reset).unwrap().code, ResetCode::Other);
}

#[test]
fn a_newer_version_is_read_as_far_as_it_can_be() {
    assert_eq!(codec::decode::<Ping>(&hex("02 06 80")).unwrap(), Ping {});
    let damaged = codec::decode::<Ack>(&hex("02 13 c0"));
    assert!(matches!(damaged, Err(DecodeError::TooNew { theirs: 2 })), "{damaged:?}");
    let old = codec::decode::<Ping>(&hex("00 06 80"));
    assert!(matches!(old, Err(DecodeError::TooOld { theirs: 0 })), "{old:?}");
    let kind = codec::decode::<Ping>(&hex("01 07 80"));
    assert!(matches!(kind, Err(DecodeError::Kind { theirs: 7, .. })), "{kind:?}");
    assert!(matches!(codec::decode::<Ping>(&hex("01")), Err(DecodeError::Short(1))));
}

#[test]
fn a_message_is_one_map_and_nothing_else() {
    assert_eq!(codec::decode::<Ping>(&hex("01 06 80")).unwrap(), Ping {});
    for list in ["01 03 91 90", "01 06 90", "01 06 c0"] {
        let decoded = codec::decode::<Ask>(&hex(list)).map(drop);
        let ping = codec::decode::<Ping>(&hex(list)).map(drop);
        assert!(decoded.is_err() && ping.is_err(), "{list}: {decoded:?}, {ping:?}");
    }
    let list = codec::decode::<Ask>(&hex("01 03 91 90"));
    assert!(matches!(list, Err(DecodeError::NoMap { what: "ask" })), "{list:?}");
    let more = codec::decode::<Ping>(&hex("01 06 80 80"));
    assert!(matches!(more, Err(DecodeError::Trailing { what: "ping" })), "{more:?}");
    let data = Data::decode(&hex("01 12 81 a2 6174 00 00").into());
    assert!(matches!(data, Err(DecodeError::Trailing { .. })), "{data:?}");
}
