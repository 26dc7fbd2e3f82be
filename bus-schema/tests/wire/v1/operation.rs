//! What those who run a lab read and write, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{Event, EventKind, Level, LogLine, LogLines, Place};

use super::{INCARNATION, assert_wire, text};

#[test]
fn an_event_of_the_exporter() {
    let event = Event {
        kind: EventKind::ExporterUp,
        at_ms: 1_795_554_000_000,
        incarnation: INCARNATION,
        number: 0,
        path: text(""),
        client: None,
        epoch: None,
        reason: text(""),
    };
    assert_wire(
        &event,
        "
            01 40 | version 1, event
            84 | map of 4
              a4 6b696e64  ab 6578706f727465722d7570 | kind: exporter-up
              a5 61745f6d73  cf 000001a20f5bbc80 | at_ms: 1795554000000
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a6 6e756d626572  00 | number: 0
        ",
    );
}

#[test]
fn an_event_of_a_lease() {
    let event = Event {
        kind: EventKind::LeaseKicked,
        at_ms: 1,
        incarnation: INCARNATION,
        number: 300,
        path: text("dut"),
        client: Some("alice".parse().unwrap()),
        epoch: Some(5),
        reason: text("rack work"),
    };
    assert_wire(
        &event,
        "
            01 40 | version 1, event
            88 | map of 8
              a4 6b696e64  ac 6c656173652d6b69636b6564 | kind: lease-kicked
              a5 61745f6d73  01 | at_ms: 1
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a6 6e756d626572  cd 012c | number: 300
              a4 70617468  a3 647574 | path: dut
              a6 636c69656e74  a5 616c696365 | client: alice
              a5 65706f6368  05 | epoch: 5
              a6 726561736f6e  a9 7261636b20776f726b | reason: rack work
        ",
    );
}

#[test]
fn an_event_of_a_newer_version_is_kept() {
    let event = Event {
        kind: EventKind::Other(text("on-fire")),
        at_ms: 1,
        incarnation: INCARNATION,
        number: 1,
        path: text(""),
        client: None,
        epoch: None,
        reason: text(""),
    };
    assert_wire(
        &event,
        "
            01 40 | version 1, event
            84 | map of 4
              a4 6b696e64  a7 6f6e2d66697265 | kind: on-fire
              a5 61745f6d73  01 | at_ms: 1
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a6 6e756d626572  01 | number: 1
        ",
    );
}

#[test]
fn lines_of_a_log() {
    let line = |level, said: &str| LogLine { at_ms: 1, level, text: text(said) };
    let lines = LogLines {
        incarnation: INCARNATION,
        first: 7,
        path: text("power"),
        lines: vec![line(Level::Info, "on"), line(Level::Error, "stuck")],
    };
    assert_wire(
        &lines,
        "
            01 41 | version 1, log
            84 | map of 4
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a5 6669727374  07 | first: 7
              a4 70617468  a5 706f776572 | path: power
              a5 6c696e6573 92 | lines: list of 2
                83 | map of 3
                  a5 61745f6d73  01 | at_ms: 1
                  a5 6c6576656c  a4 696e666f | level: info
                  a4 74657874  a2 6f6e | text: on
                83 | map of 3
                  a5 61745f6d73  01 | at_ms: 1
                  a5 6c6576656c  a5 6572726f72 | level: error
                  a4 74657874  a5 737475636b | text: stuck
        ",
    );
}

#[test]
fn a_place() {
    let role = |role: &str, address: &str| (role.parse().unwrap(), address.parse().unwrap());
    let place = Place {
        name: "rpi-1".parse().unwrap(),
        roles: [role("power", "pdu-1/port3"), role("serial", "bench-3/uart0")]
            .into_iter()
            .collect(),
        labels: [(text("board"), text("rpi4"))].into(),
        description: text("by the door"),
        removed: false,
    };
    assert_wire(
        &place,
        "
            01 42 | version 1, place
            84 | map of 4
              a4 6e616d65  a5 7270692d31 | name: rpi-1
              a5 726f6c6573 82 | roles: map of 2
                a5 706f776572  ab 7064752d312f706f727433 | power: pdu-1/port3
                a6 73657269616c  ad 62656e63682d332f7561727430 | serial: bench-3/uart0
              a6 6c6162656c73 81 | labels: map of 1
                a5 626f617264  a4 72706934 | board: rpi4
              ab 6465736372697074696f6e  ab 62792074686520646f6f72 | description: by the door
        ",
    );
}

#[test]
fn a_place_that_is_no_more() {
    let place = Place {
        name: "rpi-1".parse().unwrap(),
        roles: Default::default(),
        labels: [].into(),
        description: text(""),
        removed: true,
    };
    assert_wire(
        &place,
        "
            01 42 | version 1, place
            83 | map of 3
              a4 6e616d65  a5 7270692d31 | name: rpi-1
              a5 726f6c6573 80 | roles: map of 0
              a7 72656d6f766564  c3 | removed: true
        ",
    );
}
