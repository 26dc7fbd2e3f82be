//! Every decoder, for a bounded time: whatever comes, it answers, and no claim costs memory.

#![expect(clippy::unwrap_used, reason = "a helper of a test may, as a test may")]

use bus_schema::{
    Acquire, BlockPart, CallId, Coding, Fault, LeaseAction, LeaseAsk, Lent, LentFrom, LentUrl,
    Manifest, Path, Session, Sha256, StreamId, TicketId, Type, codec, fuzz,
    message::{Ack, Call, Calls, Data, End, KINDS, Open, Opened, Outcome, Replies, Reply},
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

/// Something of every sort that a decoder takes.
fn seeds() -> Vec<Vec<u8>> {
    let id = CallId { session: Session(7), counter: 1 };
    let args = Bytes::from_static(b"\x93\xa2hi\x07\x82\xa4secs\x01\xa5nanos\x02");
    let call: Call = codec::decode(b"\x01\x01\x80").unwrap();
    let open = Open {
        id,
        stream: StreamId(9),
        credit: 70_000,
        attempt: 1,
        age_ms: 2,
        deadline_ms: 3,
        done_below: 4,
        epoch: Some(5),
        form: Default::default(),
        args: args.clone(),
        detached: true,
    };
    let item = Some(Type::List(Box::new(Type::Optional(Box::new(Type::Bool)))));
    let opened = Opened::Open { incarnation: bus_schema::Incarnation(3), credit: 9, item };
    let end = End { bytes: 2, items: 1, fault: Some(Fault::device("x")), recorded: Some(1) };
    let data = Data { at: 0, data: Bytes::from_static(b"hi"), begin: None, end: Some(end) };
    let lease = LeaseAsk {
        ticket: Some(TicketId(11)),
        path: Path::ROOT,
        driver: None,
        action: LeaseAction::Acquire(Acquire { wait_ms: 70_000, ..Acquire::default() }),
    };
    let digest = Sha256([7; 32]);
    let manifest = Manifest {
        name: "disk".to_owned(),
        bytes: 5 << 20,
        sha256: Some(digest),
        block_bytes: 4 << 20,
        blocks: vec![7; 64].into(),
        list: None,
    };
    let part = BlockPart { parts: 2, bytes: 9, coding: Coding::Lz4, data: args.clone() };
    let headers = [("a".to_owned(), "b".to_owned())].into();
    let url = LentUrl { url: "https://u:p@h/a?b#c".to_owned(), headers };
    let lent = Lent { bytes: Some(9), sha256: Some(digest), ..Lent::new(LentFrom::Url(url)) };
    let stored = format!("jmp.v1.f.alice.b.{digest}.12");
    let stored_to = format!("jmp.v1.f.alice.to.bench.{digest}.12");
    let words = [
        &*stored,
        &*stored_to,
        "https://h/a",
        "jmp.v1.c.alice.call.bench.46e2614d-07d8-525a-b071-50c87f710bad.on",
        "jmp.v1.c.alice.up.bench._.00000000000000ab0000000000000001",
        "jmp.v1.x.bench.out.alice.00000000000000ab.46e2614d-07d8-525a-b071-50c87f710bad.1.0",
        "@rpi-1/power/child",
        "jmp.v1.a.place.rpi-1",
        "jmp.v1.x.bench.lease.alice.00000000000000ab",
        "jmp.v1.x.bench.event.driver-crashed",
        "jmp.v1.x.bench.log.46e2614d-07d8-525a-b071-50c87f710bad",
        "jmp.v1.i.alice.0000000000000001.0000000000000002",
        "bench/dut/Console.0",
        "board=rpi4,rack!=3,!broken",
        "00000000000000ab-7",
        "46e2614d-07d8-525a-b071-50c87f710bad",
        "1year2month3days4h5m6s7ms8us9ns",
        "2026-11-23T21:00:00.123456789Z",
        r#"{"args": [1, -2.5e300, "x", null, {"base64": "/w=="}, {"at": 3}], "id": "a-1"}"#,
        "\"1m30s\"",
        "18446744073709551616",
    ];
    let mut seeds = vec![
        codec::encode(&Call { id: Some(id), args: args.clone(), ..call }).to_vec(),
        codec::encode(&Reply { outcome: Outcome::Result(args.clone()) }).to_vec(),
        codec::encode(&Replies { replies: vec![("00aa".to_owned(), args.clone())] }).to_vec(),
        codec::encode(&Calls { calls: vec![("d.m".to_owned(), "00".to_owned(), args.clone())] })
            .to_vec(),
        codec::encode(&open).to_vec(),
        codec::encode(&opened).to_vec(),
        codec::encode(&lease).to_vec(),
        codec::encode(&Ack { received: 1, limit: 70_000, ended: true, ..Ack::default() }).to_vec(),
        data.encode().to_vec(),
        codec::encode(&manifest).to_vec(),
        part.encode().to_vec(),
        rmp_serde::to_vec_named(&lent).unwrap(),
        args.to_vec(),
        [&[0; 33][..], &[1]].concat(),
    ];
    seeds.extend(KINDS.iter().map(|(kind, _)| vec![1, *kind, 0x80]));
    seeds.extend(words.map(|word| word.as_bytes().to_vec()));
    seeds
}

#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, u8),
    Cut(usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let heads = prop_oneof![
        any::<u8>(),
        select(&[0xc0, 0xc4, 0xc6, 0xca, 0xcf, 0xd4, 0xc9, 0xdb, 0xdd, 0xdf, 0xff, b'.', b'"'][..]),
    ];
    prop_oneof![
        4 => (any::<usize>(), heads.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (any::<usize>(), heads).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => any::<usize>().prop_map(Change::Cut),
        1 => (any::<usize>(), 1..40_usize).prop_map(|(at, times)| Change::Repeat(at, times)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let at = |at: usize, bytes: &Vec<u8>| at % (bytes.len() + 1);
        match change {
            Change::Set(place, byte) => {
                let place = at(place, &bytes);
                if let Some(there) = bytes.get_mut(place) {
                    *there = byte;
                }
            }
            Change::Insert(place, byte) => bytes.insert(at(place, &bytes), byte),
            Change::Cut(place) => bytes.truncate(at(place, &bytes)),
            Change::Repeat(place, times) => {
                let tail = bytes[at(place, &bytes)..].to_vec();
                (0..times).take_while(|_| tail.len() < 512).for_each(|_| bytes.extend(&tail));
            }
        }
    }
    bytes
}

fn all(bytes: &[u8]) {
    for (_, entry) in fuzz::ENTRIES {
        entry(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..Default::default() })]

    #[test]
    fn damaged_messages_are_errors(
        seed in select(seeds()),
        changes in vec(change(), 0..8),
    ) {
        all(&changed(seed, changes));
    }

    #[test]
    fn garbage_is_an_error(kind in select(KINDS), body in vec(any::<u8>(), 0..200)) {
        all(&body);
        all(&[&[1, kind.0][..], &body].concat());
    }

    #[test]
    fn any_text_is_an_error_or_what_it_says(text in "\\PC{0,60}") {
        all(text.as_bytes());
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    for unit in [&b"\x91"[..], b"\x81\xa1a", b"[", b"{\"a\":", b"\xdd\0\0\0\x01"] {
        let deep = unit.repeat(100_000);
        all(&deep);
        for (kind, _) in KINDS {
            all(&[&[1, *kind][..], &deep].concat());
            all(&[&[1, *kind, 0x81, 0xa1, b'x'][..], &deep].concat()); // in a field it ignores
        }
    }
}

/// The most address space that this process had, in KiB: an allocation shows even if untouched.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_claimed_length_of_four_billion_costs_nothing() {
    let before = peak_kib();
    let fields: [&[u8]; 9] = [
        b"args", b"ids", b"calls", b"data", b"drivers", b"labels", b"methods", b"lines", b"reason",
    ];
    for head in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
        let claim = [head, 0xff, 0xff, 0xff, 0xff, 0x01];
        all(&claim);
        all(&[&[0x91][..], &claim].concat());
        let records = [0x20, 0x21, 0x22, 0x40, 0x41, 0x42].map(|kind| (kind, ""));
        for (kind, _) in KINDS.iter().chain(&records) {
            all(&[&[1, *kind][..], &claim].concat());
            for field in fields {
                let name = [&[0xa0 | field.len() as u8][..], field].concat();
                all(&[&[1, *kind, 0x81][..], &name, &claim].concat());
            }
        }
    }
    let grown = peak_kib() - before;
    assert!(grown < 1 << 20, "{grown} KiB for messages of a few bytes"); // a claim is 4 GiB or more
}
