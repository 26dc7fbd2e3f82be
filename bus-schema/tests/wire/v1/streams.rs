//! Streams and streaming calls, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{
    Fault, Refusal, RefusalCode, Type,
    message::{Ack, Begin, Data, End, Form, Open, Opened, Reset, ResetCode, Unknown},
};

use super::{ID, INCARNATION, STREAM, assert_data, assert_wire, hex, text};

fn open() -> Open {
    Open {
        id: ID,
        stream: STREAM,
        credit: 65_536,
        attempt: 0,
        age_ms: 0,
        deadline_ms: 30_000,
        done_below: 0,
        epoch: None,
        form: Form::Typed,
        args: vec![].into(),
        detached: false,
    }
}

#[test]
fn an_open_of_a_minimal_client() {
    assert_wire(
        &open(),
        "
            01 10 | version 1, open
            84 | map of 4
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              a6 73747265616d | stream: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a6 637265646974  ce 00010000 | credit: 65536
              ab 646561646c696e655f6d73  cd 7530 | deadline_ms: 30000
        ",
    );
}

#[test]
fn an_open_that_says_everything() {
    let open = Open {
        attempt: 1,
        age_ms: 1000,
        deadline_ms: 29_000,
        done_below: 7,
        epoch: Some(9),
        form: Form::Words,
        args: vec![0x91, 0xa2, b'h', b'i'].into(),
        detached: true,
        ..open()
    };
    assert_wire(
        &open,
        "
            01 10 | version 1, open
            8b | map of 11
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              a6 73747265616d | stream: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a6 637265646974  ce 00010000 | credit: 65536
              a7 617474656d7074  01 | attempt: 1
              a6 6167655f6d73  cd 03e8 | age_ms: 1000
              ab 646561646c696e655f6d73  cd 7148 | deadline_ms: 29000
              aa 646f6e655f62656c6f77  07 | done_below: 7
              a5 65706f6368  09 | epoch: 9
              a4 666f726d  a5 776f726473 | form: words
              a4 61726773  c404 91a26869 | args: 4 byte(s)
              a8 6465746163686564  c3 | detached: true
        ",
    );
}

#[test]
fn a_stream_is_open() {
    let opened = Opened::Open { incarnation: INCARNATION, credit: 524_288, item: None };
    assert_wire(
        &opened,
        "
            01 11 | version 1, opened
            81 | map of 1
              a4 6f70656e 82 | open: map of 2
                ab 696e6361726e6174696f6e
                  b0 30303030303030303030303030303166 | incarnation: 000000000000001f
                a6 637265646974  ce 00080000 | credit: 524288
        ",
    );
}

#[test]
fn a_streaming_call_is_open() {
    let item = Some(Type::List(Box::new(Type::F64)));
    assert_wire(
        &Opened::Open { incarnation: INCARNATION, credit: 0, item },
        "
            01 11 | version 1, opened
            81 | map of 1
              a4 6f70656e 83 | open: map of 3
                ab 696e6361726e6174696f6e
                  b0 30303030303030303030303030303166 | incarnation: 000000000000001f
                a6 637265646974  00 | credit: 0
                a4 6974656d 81 | item: map of 1
                  a4 6c697374  a3 663634 | list: f64
        ",
    );
}

#[test]
fn a_stream_that_was_not_opened() {
    let refusal = Refusal::new(RefusalCode::WrongKind, "no");
    assert_wire(
        &Opened::Refused(refusal),
        "
            01 11 | version 1, opened
            81 | map of 1
              a7 72656675736564 82 | refused: map of 2
                a4 636f6465  aa 77726f6e672d6b696e64 | code: wrong-kind
                a4 74657874  a2 6e6f | text: no
        ",
    );
    assert_wire(
        &Opened::Fault(Fault::unsupported("no")),
        "
            01 11 | version 1, opened
            81 | map of 1
              a5 6661756c74 82 | fault: map of 2
                a4 6b696e64  ab 756e737570706f72746564 | kind: unsupported
                a4 74657874  a2 6e6f | text: no
        ",
    );
    assert_wire(
        &Opened::Unknown(Unknown::Forgotten),
        "
            01 11 | version 1, opened
            81 | map of 1
              a7 756e6b6e6f776e  a9 666f72676f7474656e | unknown: forgotten
        ",
    );
}

#[test]
fn data() {
    let data = Data { at: 70_000, data: vec![1, 2, 3].into(), begin: None, end: None };
    assert_data(
        &data,
        "
            01 12 | version 1, data
            82 | map of 2
              a2 6174  cf 0000000000011170 | at: 70000
              a4 64617461  c600000003 010203 | data: 3 byte(s)
        ",
    );
    let head = Data::head(70_000, 3);
    assert_eq!(data.encode(), [&head[..], &[1, 2, 3]].concat());
}

#[test]
fn data_with_integers_at_their_shortest_is_read_as_well() {
    let bytes = hex("01 12 82 a2 6174 00 a4 64617461 c4 02 6869");
    let data = Data { at: 0, data: vec![b'h', b'i'].into(), begin: None, end: None };
    assert_eq!(Data::decode(&bytes.into()).unwrap(), data);
}

#[test]
fn the_first_record_of_a_streaming_call() {
    let begin = Begin {
        address: text("bench/adc"),
        method: text("read"),
        item: Type::F64,
        began_ms: 1_795_554_000_000,
    };
    let data = vec![0xc4, 1, 42].into();
    assert_data(
        &Data { at: 0, data, begin: Some(begin), end: None },
        "
            01 12 | version 1, data
            83 | map of 3
              a2 6174  cf 0000000000000000 | at: 0
              a4 64617461  c600000003 c4012a | data: 3 byte(s)
              a5 626567696e 84 | begin: map of 4
                a7 61646472657373  a9 62656e63682f616463 | address: bench/adc
                a6 6d6574686f64  a4 72656164 | method: read
                a4 6974656d  a3 663634 | item: f64
                a8 626567616e5f6d73  cf 000001a20f5bbc80 | began_ms: 1795554000000
        ",
    );
}

#[test]
fn the_end_of_a_stream() {
    let end = End { bytes: 5, items: 0, fault: None, recorded: None };
    let data = Data { at: 3, data: vec![b'o', b'k'].into(), begin: None, end: Some(end) };
    assert_data(
        &data,
        "
            01 12 | version 1, data
            83 | map of 3
              a2 6174  cf 0000000000000003 | at: 3
              a4 64617461  c600000002 6f6b | data: 2 byte(s)
              a3 656e64 81 | end: map of 1
                a5 6279746573  05 | bytes: 5
        ",
    );
}

#[test]
fn the_end_of_a_streaming_call_that_failed_and_is_recorded_in_part() {
    let fault = Some(Fault::timeout("late"));
    let end = End { bytes: 900, items: 3, fault, recorded: Some(2) };
    assert_data(
        &Data { at: 900, data: vec![].into(), begin: None, end: Some(end) },
        "
            01 12 | version 1, data
            83 | map of 3
              a2 6174  cf 0000000000000384 | at: 900
              a4 64617461  c600000000 | data: 0 byte(s)
              a3 656e64 84 | end: map of 4
                a5 6279746573  cd 0384 | bytes: 900
                a5 6974656d73  03 | items: 3
                a5 6661756c74 82 | fault: map of 2
                  a4 6b696e64  a7 74696d656f7574 | kind: timeout
                  a4 74657874  a4 6c617465 | text: late
                a8 7265636f72646564  02 | recorded: 2
        ",
    );
}

#[test]
fn an_ack() {
    let ack = Ack { received: 10, limit: 65_546, ..Ack::default() };
    assert_wire(
        &ack,
        "
            01 13 | version 1, ack
            82 | map of 2
              a8 7265636569766564  0a | received: 10
              a5 6c696d6974  ce 0001000a | limit: 65546
        ",
    );
    let ack = Ack { ended: true, sent: 300, finished: true, again: true, ..ack };
    assert_wire(
        &ack,
        "
            01 13 | version 1, ack
            86 | map of 6
              a8 7265636569766564  0a | received: 10
              a5 6c696d6974  ce 0001000a | limit: 65546
              a5 656e646564  c3 | ended: true
              a4 73656e74  cd 012c | sent: 300
              a8 66696e6973686564  c3 | finished: true
              a5 616761696e  c3 | again: true
        ",
    );
}

#[test]
fn a_reset() {
    assert_wire(
        &Reset { code: ResetCode::Cancelled, text: text("") },
        "
            01 14 | version 1, reset
            81 | map of 1
              a4 636f6465  a9 63616e63656c6c6564 | code: cancelled
        ",
    );
    assert_wire(
        &Reset { code: ResetCode::NoStream, text: text("gone") },
        "
            01 14 | version 1, reset
            82 | map of 2
              a4 636f6465  a9 6e6f2d73747265616d | code: no-stream
              a4 74657874  a4 676f6e65 | text: gone
        ",
    );
}
