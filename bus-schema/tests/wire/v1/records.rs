//! Records of the registry, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{
    DriverId, DriverRecord, Field, Interface, InterfaceDigest, Kind, Method, Presence, State,
    TreeRecord, Type, Value, Variant,
};

use super::{INCARNATION, assert_wire, text};

#[test]
fn presence() {
    let presence = Presence {
        exporter: "bench".parse().unwrap(),
        incarnation: INCARNATION,
        state: State::Up,
        host: text("lab-1"),
        version: text("0.1.0"),
        started_ms: 1_795_554_000_000,
        beat: 3,
        labels: [(text("rack"), text("2"))].into(),
        drivers: 2,
        tree: InterfaceDigest([0xd1; 16]),
    };
    assert_wire(
        &presence,
        "
            01 20 | version 1, presence
            8a | map of 10
              a8 6578706f72746572  a5 62656e6368 | exporter: bench
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a5 7374617465  a2 7570 | state: up
              a4 686f7374  a5 6c61622d31 | host: lab-1
              a7 76657273696f6e  a5 302e312e30 | version: 0.1.0
              aa 737461727465645f6d73  cf 000001a20f5bbc80 | started_ms: 1795554000000
              a4 62656174  03 | beat: 3
              a6 6c6162656c73 81 | labels: map of 1
                a4 7261636b  a1 32 | rack: 2
              a7 64726976657273  02 | drivers: 2
              a4 74726565 | tree: d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1
                d920 6431643164316431643164316431643164316431643164316431643164316431
        ",
    );
}

#[test]
fn a_part_of_a_tree() {
    let id: DriverId = "6ba7b811-9dad-41d1-80b4-00c04fd430c8".parse().unwrap();
    let plain = DriverRecord {
        id,
        path: text("power"),
        kind: text("fake-power"),
        labels: [].into(),
        description: text(""),
        methods_description: [].into(),
        interfaces: vec![(text("power"), InterfaceDigest([0xd2; 16]))],
        alias_of: None,
    };
    let alias = DriverRecord {
        path: text("relay"),
        kind: text("ref"),
        labels: [(text("rack"), text("2"))].into(),
        description: text("the relay"),
        methods_description: [(text("on"), text("lights up"))].into(),
        interfaces: vec![],
        alias_of: Some(text("power")),
        ..plain.clone()
    };
    let tree =
        TreeRecord { tree: InterfaceDigest([0xd1; 16]), parts: 1, drivers: vec![plain, alias] };
    assert_wire(&tree, "
            01 21 | version 1, tree
            83 | map of 3
              a4 74726565 | tree: d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1
                d920 6431643164316431643164316431643164316431643164316431643164316431
              a5 7061727473  01 | parts: 1
              a7 64726976657273 92 | drivers: list of 2
                84 | map of 4
                  a2 6964
                    d924 36626137623831312d396461642d343164312d383062342d3030633034666434333
                    06338 | id: 6ba7b811-9dad-41d1-80b4-00c04fd430c8
                  a4 70617468  a5 706f776572 | path: power
                  a4 74797065  aa 66616b652d706f776572 | type: fake-power
                  aa 696e7465726661636573 91 | interfaces: list of 1
                    92 | list of 2
                      a5 706f776572 | power
                        d920 6432643264326432643264326432643264326432643264326432643264326432 | d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2
                88 | map of 8
                  a2 6964
                    d924 36626137623831312d396461642d343164312d383062342d3030633034666434333
                    06338 | id: 6ba7b811-9dad-41d1-80b4-00c04fd430c8
                  a4 70617468  a5 72656c6179 | path: relay
                  a4 74797065  a3 726566 | type: ref
                  a6 6c6162656c73 81 | labels: map of 1
                    a4 7261636b  a1 32 | rack: 2
                  ab 6465736372697074696f6e  a9 7468652072656c6179 | description: the relay
                  b3 6d6574686f64735f6465736372697074696f6e 81 | methods_description: map of 1
                    a2 6f6e  a9 6c6967687473207570 | on: lights up
                  aa 696e7465726661636573 90 | interfaces: list of 0
                  a8 616c6961735f6f66  a5 706f776572 | alias_of: power
        ");
}

fn method(name: &str, kind: Kind) -> Method {
    Method {
        name: text(name),
        kind,
        help: text(""),
        params: vec![],
        result: Type::Unit,
        concurrent: false,
        uncancellable: false,
        observe: false,
        deadline_ms: None,
    }
}

#[test]
fn an_interface() {
    let wait = Field {
        name: text("wait"),
        ty: Type::Optional(Box::new(Type::U64)),
        help: text("s"),
        optional: true,
        default: Some(Value::Nil),
    };
    let cycle = Method {
        help: text("Off, on."),
        params: vec![wait],
        deadline_ms: Some(90_000),
        uncancellable: true,
        observe: false,
        ..method("cycle", Kind::Call)
    };
    let read =
        Method { result: Type::F64, concurrent: true, ..method("read", Kind::StreamingCall) };
    let interface = Interface {
        name: text("power"),
        version: 1,
        help: text("Gives power."),
        methods: vec![cycle, read, method("connect", Kind::Stream)],
    };
    assert_wire(
        &interface,
        "
            01 22 | version 1, interface
            84 | map of 4
              a4 6e616d65  a5 706f776572 | name: power
              a7 76657273696f6e  01 | version: 1
              a4 68656c70  ac 476976657320706f7765722e | help: Gives power.
              a7 6d6574686f6473 93 | methods: list of 3
                88 | map of 8
                  a4 6e616d65  a5 6379636c65 | name: cycle
                  a4 6b696e64  a4 63616c6c | kind: call
                  a4 68656c70  a8 4f66662c206f6e2e | help: Off, on.
                  a6 706172616d73 91 | params: list of 1
                    85 | map of 5
                      a4 6e616d65  a4 77616974 | name: wait
                      a2 7479 81 | ty: map of 1
                        a8 6f7074696f6e616c  a3 753634 | optional: u64
                      a4 68656c70  a1 73 | help: s
                      a8 6f7074696f6e616c  c3 | optional: true
                      a7 64656661756c74  c0 | default: nil
                  a6 726573756c74  a4 756e6974 | result: unit
                  aa 636f6e63757272656e74  c2 | concurrent: false
                  ad 756e63616e63656c6c61626c65  c3 | uncancellable: true
                  ab 646561646c696e655f6d73  ce 00015f90 | deadline_ms: 90000
                87 | map of 7
                  a4 6e616d65  a4 72656164 | name: read
                  a4 6b696e64  ae 73747265616d696e672d63616c6c | kind: streaming-call
                  a4 68656c70  a0 | help: 
                  a6 706172616d73 90 | params: list of 0
                  a6 726573756c74  a3 663634 | result: f64
                  aa 636f6e63757272656e74  c3 | concurrent: true
                  ad 756e63616e63656c6c61626c65  c2 | uncancellable: false
                87 | map of 7
                  a4 6e616d65  a7 636f6e6e656374 | name: connect
                  a4 6b696e64  a6 73747265616d | kind: stream
                  a4 68656c70  a0 | help: 
                  a6 706172616d73 90 | params: list of 0
                  a6 726573756c74  a4 756e6974 | result: unit
                  aa 636f6e63757272656e74  c2 | concurrent: false
                  ad 756e63616e63656c6c61626c65  c2 | uncancellable: false
        ",
    );
}

#[test]
fn every_type() {
    let field =
        Field { name: text("f"), ty: Type::Any, help: text(""), optional: false, default: None };
    let variant = |name: &str, carries| Variant { name: text(name), help: text(""), carries };
    let plain = [
        Type::Unit,
        Type::Bool,
        Type::I64,
        Type::U64,
        Type::F64,
        Type::Text,
        Type::Bytes,
        Type::Timestamp,
        Type::Duration,
        Type::Resource,
        Type::Any,
    ];
    let boxed = [
        Type::List(Box::new(Type::Bool)),
        Type::Map(Box::new(Type::Bool)),
        Type::Optional(Box::new(Type::Bool)),
        Type::Struct { name: text("S"), fields: vec![field] },
        Type::Enum {
            name: text("E"),
            variants: vec![variant("off", Type::Unit), variant("at", Type::U64)],
        },
    ];
    let fields: Vec<_> = plain
        .into_iter()
        .chain(boxed)
        .map(|ty| Field { name: text("p"), ty, help: text(""), optional: false, default: None })
        .collect();
    let interface = Interface {
        name: text("t"),
        version: 1,
        help: text(""),
        methods: vec![Method { params: fields, ..method("m", Kind::Call) }],
    };
    assert_wire(
        &interface,
        "
            01 22 | version 1, interface
            84 | map of 4
              a4 6e616d65  a1 74 | name: t
              a7 76657273696f6e  01 | version: 1
              a4 68656c70  a0 | help: 
              a7 6d6574686f6473 91 | methods: list of 1
                87 | map of 7
                  a4 6e616d65  a1 6d | name: m
                  a4 6b696e64  a4 63616c6c | kind: call
                  a4 68656c70  a0 | help: 
                  a6 706172616d73 dc0010 | params: list of 16
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a4 756e6974 | ty: unit
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a4 626f6f6c | ty: bool
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a3 693634 | ty: i64
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a3 753634 | ty: u64
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a3 663634 | ty: f64
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a4 74657874 | ty: text
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a5 6279746573 | ty: bytes
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a9 74696d657374616d70 | ty: timestamp
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a8 6475726174696f6e | ty: duration
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a8 7265736f75726365 | ty: resource
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479  a3 616e79 | ty: any
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479 81 | ty: map of 1
                        a4 6c697374  a4 626f6f6c | list: bool
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479 81 | ty: map of 1
                        a3 6d6170  a4 626f6f6c | map: bool
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479 81 | ty: map of 1
                        a8 6f7074696f6e616c  a4 626f6f6c | optional: bool
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479 81 | ty: map of 1
                        a6 737472756374 82 | struct: map of 2
                          a4 6e616d65  a1 53 | name: S
                          a6 6669656c6473 91 | fields: list of 1
                            83 | map of 3
                              a4 6e616d65  a1 66 | name: f
                              a2 7479  a3 616e79 | ty: any
                              a8 6f7074696f6e616c  c2 | optional: false
                      a8 6f7074696f6e616c  c2 | optional: false
                    83 | map of 3
                      a4 6e616d65  a1 70 | name: p
                      a2 7479 81 | ty: map of 1
                        a4 656e756d 82 | enum: map of 2
                          a4 6e616d65  a1 45 | name: E
                          a8 76617269616e7473 92 | variants: list of 2
                            82 | map of 2
                              a4 6e616d65  a3 6f6666 | name: off
                              a7 63617272696573  a4 756e6974 | carries: unit
                            82 | map of 2
                              a4 6e616d65  a2 6174 | name: at
                              a7 63617272696573  a3 753634 | carries: u64
                      a8 6f7074696f6e616c  c2 | optional: false
                  a6 726573756c74  a4 756e6974 | result: unit
                  aa 636f6e63757272656e74  c2 | concurrent: false
                  ad 756e63616e63656c6c61626c65  c2 | uncancellable: false
        ",
    );
}
