//! Calls, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{
    CallId, Fault, Refusal, RefusalCode, codec,
    message::{
        Ask, Call, Calls, Cancel, Form, Outcome, Parts, Ping, Pong, Progress, Replies, Reply, Told,
        Unknown,
    },
};

use super::{ID, INCARNATION, STREAM, assert_wire, hex, text};

fn call() -> Call {
    Call::default()
}

#[test]
fn a_call_of_a_minimal_client() {
    assert_wire(
        &call(),
        "
            01 01 | version 1, call
            81 | map of 1
              ab 646561646c696e655f6d73  cd 7530 | deadline_ms: 30000
        ",
    );
}

#[test]
fn a_call_with_an_id_and_arguments() {
    let args = vec![0x91, 0xa2, b'h', b'i'].into();
    assert_wire(
        &Call { id: Some(ID), done_below: 5, args, ..call() },
        "
            01 01 | version 1, call
            84 | map of 4
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              ab 646561646c696e655f6d73  cd 7530 | deadline_ms: 30000
              aa 646f6e655f62656c6f77  05 | done_below: 5
              a4 61726773  c404 91a26869 | args: 4 byte(s)
        ",
    );
}

#[test]
fn a_repeated_call_of_words_under_a_lease() {
    let call = Call {
        id: Some(ID),
        attempt: 2,
        age_ms: 1500,
        deadline_ms: 28_500,
        epoch: Some(9),
        form: Form::Words,
        args: vec![0x90].into(),
        ..call()
    };
    assert_wire(
        &call,
        "
            01 01 | version 1, call
            87 | map of 7
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              a7 617474656d7074  02 | attempt: 2
              a6 6167655f6d73  cd 05dc | age_ms: 1500
              ab 646561646c696e655f6d73  cd 6f54 | deadline_ms: 28500
              a5 65706f6368  09 | epoch: 9
              a4 666f726d  a5 776f726473 | form: words
              a4 61726773  c401 90 | args: 1 byte(s)
        ",
    );
}

#[test]
fn a_call_whose_reply_may_come_together_with_others() {
    assert_wire(
        &Call { id: Some(ID), together: true, ..call() },
        "
            01 01 | version 1, call
            83 | map of 3
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              ab 646561646c696e655f6d73  cd 7530 | deadline_ms: 30000
              a8 746f676574686572  c3 | together: true
        ",
    );
}

#[test]
fn two_replies_together() {
    let nil = Outcome::Result(vec![0xc0].into());
    let reply = codec::encode(&Reply { outcome: nil });
    let tokens = ["00000000000000aa", "00000000000000bb"];
    let replies = tokens.map(|token| (token.to_owned(), reply.clone())).to_vec();
    let bytes = "
            01 08 | version 1, replies
            81 | map of 1
              a7 7265706c696573  92 | replies: list of 2
                92 | list of 2
                  b0 30303030303030303030303030306161 | token: 00000000000000aa
                  c416 0102 81a76f7574636f6d65 81a6726573756c74 c401c0 | its reply
                92 | list of 2
                  b0 30303030303030303030303030306262 | token: 00000000000000bb
                  c416 0102 81a76f7574636f6d65 81a6726573756c74 c401c0 | its reply
        ";
    assert_wire(&Replies { replies }, bytes);
    let written = Replies::encode(tokens.map(|token| (token, &*reply)).into_iter());
    assert_eq!(Replies::decode(&written).unwrap(), tokens.map(|token| (token, reply.clone())));
}

#[test]
fn two_calls_together() {
    let call = codec::encode(&Call { deadline_ms: 1000, ..Call::default() });
    let to =
        ["46e2614d-07d8-525a-b071-50c87f710bad.on", "46e2614d-07d8-525a-b071-50c87f710bad.off"];
    let calls = [(to[0], "00000000000000aa"), (to[1], "00000000000000bb")];
    let bytes = "
            01 09 | version 1, calls
            81 | map of 1
              a5 63616c6c73  92 | calls: list of 2
                93 | list of 3
                  d927 34366532363134642d303764382d353235612d623037312d3530633837663731306261642e6f6e
                     | to: 46e2614d-07d8-525a-b071-50c87f710bad.on
                  b0 30303030303030303030303030306161 | token: 00000000000000aa
                  c412 0101 81ab646561646c696e655f6d73 cd03e8 | the call
                93 | list of 3
                  d928 34366532363134642d303764382d353235612d623037312d3530633837663731306261642e6f6666
                     | to: 46e2614d-07d8-525a-b071-50c87f710bad.off
                  b0 30303030303030303030303030306262 | token: 00000000000000bb
                  c412 0101 81ab646561646c696e655f6d73 cd03e8 | the call
        ";
    let owned = calls.map(|(to, token)| (to.to_owned(), token.to_owned(), call.clone()));
    assert_wire(&Calls { calls: owned.to_vec() }, bytes);
    let driver = "46e2614d-07d8-525a-b071-50c87f710bad".parse().unwrap();
    let each = [("on", 0xaa), ("off", 0xbb)].map(|(method, token)| (driver, method, token, &*call));
    let written = Calls::encode(each.into_iter(), 0);
    assert_eq!(written, codec::encode(&Calls { calls: owned.to_vec() }));
    let read = Calls::decode(&written).unwrap();
    assert_eq!(read, calls.map(|(to, token)| (to, token, call.clone())));
}

#[test]
fn a_call_whose_arguments_come_in_parts() {
    let parts = Some(Parts { stream: STREAM, bytes: 41_943_040 });
    assert_wire(
        &Call { id: Some(ID), parts, ..call() },
        "
            01 01 | version 1, call
            83 | map of 3
              a2 6964  b2 303030303030303030303030303061622d37 | id: 00000000000000ab-7
              ab 646561646c696e655f6d73  cd 7530 | deadline_ms: 30000
              a5 7061727473 82 | parts: map of 2
                a6 73747265616d | stream: 00000000000000ab0000000000000001
                  d920 3030303030303030303030303030616230303030303030303030303030303031
                a5 6279746573  ce 02800000 | bytes: 41943040
        ",
    );
}

#[test]
fn what_a_call_leaves_out_has_its_default() {
    assert_eq!(codec::decode::<Call>(&hex("01 01 80")).unwrap(), call());
}

#[test]
fn a_reply_with_a_result() {
    let outcome = Outcome::Result(vec![0xa2, b'h', b'i'].into());
    assert_wire(
        &Reply { outcome },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a6 726573756c74  c403 a26869 | result: 3 byte(s)
        ",
    );
}

#[test]
fn a_reply_whose_result_comes_in_parts() {
    let outcome = Outcome::Parts(Parts { stream: STREAM, bytes: 3 << 20 });
    assert_wire(
        &Reply { outcome },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a5 7061727473 82 | parts: map of 2
                  a6 73747265616d | stream: 00000000000000ab0000000000000001
                    d920 3030303030303030303030303030616230303030303030303030303030303031
                  a5 6279746573  ce 00300000 | bytes: 3145728
        ",
    );
}

#[test]
fn a_reply_with_a_fault() {
    assert_wire(
        &Reply { outcome: Outcome::Fault(Fault::device("no power")) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a5 6661756c74 82 | fault: map of 2
                  a4 6b696e64  a6 646576696365 | kind: device
                  a4 74657874  a8 6e6f20706f776572 | text: no power
        ",
    );
}

#[test]
fn a_reply_with_a_refusal() {
    let refusal = Refusal {
        code: RefusalCode::Busy,
        text: text("busy"),
        limit: Some(1024),
        since_ms: Some(250),
        ..Refusal::new(RefusalCode::Busy, "")
    };
    assert_wire(
        &Reply { outcome: Outcome::Refused(refusal) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a7 72656675736564 84 | refused: map of 4
                  a4 636f6465  a4 62757379 | code: busy
                  a4 74657874  a4 62757379 | text: busy
                  a5 6c696d6974  cd 0400 | limit: 1024
                  a8 73696e63655f6d73  cc fa | since_ms: 250
        ",
    );
}

#[test]
fn a_reply_that_nobody_can_give() {
    assert_wire(
        &Reply { outcome: Outcome::Unknown(Unknown::Forgotten) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a7 756e6b6e6f776e  a9 666f72676f7474656e | unknown: forgotten
        ",
    );
    assert_wire(
        &Reply { outcome: Outcome::Unknown(Unknown::Dropped) },
        "
            01 02 | version 1, reply
            81 | map of 1
              a7 6f7574636f6d65 81 | outcome: map of 1
                a7 756e6b6e6f776e  a7 64726f70706564 | unknown: dropped
        ",
    );
}

#[test]
fn ask_and_cancel() {
    let ids = vec![ID, CallId { counter: 8, ..ID }];
    assert_wire(
        &Ask { ids: ids.clone() },
        "
            01 03 | version 1, ask
            81 | map of 1
              a3 696473 92 | ids: list of 2
                b2 303030303030303030303030303061622d37 | 00000000000000ab-7
                b2 303030303030303030303030303061622d38 | 00000000000000ab-8
        ",
    );
    assert_wire(
        &Cancel { ids },
        "
            01 05 | version 1, cancel
            81 | map of 1
              a3 696473 92 | ids: list of 2
                b2 303030303030303030303030303061622d37 | 00000000000000ab-7
                b2 303030303030303030303030303061622d38 | 00000000000000ab-8
        ",
    );
}

#[test]
fn told() {
    let calls =
        vec![Progress::Queued(40), Progress::Running(1200), Progress::Done, Progress::Unknown];
    assert_wire(
        &Told { incarnation: INCARNATION, uptime_ms: 60_000, calls },
        "
            01 04 | version 1, told
            83 | map of 3
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a9 757074696d655f6d73  cd ea60 | uptime_ms: 60000
              a5 63616c6c73 94 | calls: list of 4
                81 | map of 1
                  a6 717565756564  28 | queued: 40
                81 | map of 1
                  a7 72756e6e696e67  cd 04b0 | running: 1200
                a4 646f6e65 | done
                a7 756e6b6e6f776e | unknown
        ",
    );
}

#[test]
fn ping_and_pong() {
    assert_wire(
        &Ping {},
        "
            01 06 | version 1, ping
            80 | map of 0
        ",
    );
    let pong = Pong { incarnation: INCARNATION, host: text("lab-1"), uptime_ms: 60_000 };
    assert_wire(
        &pong,
        "
            01 07 | version 1, pong
            83 | map of 3
              ab 696e6361726e6174696f6e
                b0 30303030303030303030303030303166 | incarnation: 000000000000001f
              a4 686f7374  a5 6c61622d31 | host: lab-1
              a9 757074696d655f6d73  cd ea60 | uptime_ms: 60000
        ",
    );
}
