//! Leases, as of wire version 1.
//!
//! If a test here fails, the protocol broke. Fix the type, never the bytes.

use bus_schema::{
    Acquire, AdminAction, AdminAsk, Administered, Board, BoardUnit, ClientName, Held, LeaseAction,
    LeaseAsk, LeaseEnd, LeaseNews, Leased, Path, Refusal, RefusalCode, TicketId, UnitState, Waiter,
};

use super::{INCARNATION, assert_wire, text};

const TICKET: TicketId = TicketId(0xab << 64 | 1);
const DRIVER: &str = "46e2614d-07d8-525a-b071-50c87f710bad";

fn name(name: &str) -> ClientName {
    name.parse().unwrap()
}

fn ask(action: LeaseAction) -> LeaseAsk {
    LeaseAsk { ticket: Some(TICKET), path: Path::ROOT, driver: None, action }
}

fn held() -> Held {
    Held {
        epoch: 1_795_554_000_000_000,
        path: "board-a".parse().unwrap(),
        holder: name("alice"),
        allowed: vec![name("bob")],
        left_ms: 7_200_000,
        keep_alive_ms: Some(60_000),
        starting: true,
        place: None,
    }
}

fn board() -> Board {
    let free = BoardUnit {
        path: Path::ROOT,
        state: UnitState::Free,
        why: text(""),
        lease: None,
        ticket: None,
        until_ms: None,
        queue: vec![],
        waiting: 0,
    };
    let waiter = Waiter { client: name("bob"), priority: 5, since_ms: 1000, ticket: TICKET };
    let taken = BoardUnit {
        path: "board-a".parse().unwrap(),
        state: UnitState::Ending,
        why: text("off"),
        lease: Some(held()),
        ticket: Some(TICKET),
        until_ms: Some(1_795_554_000_000),
        queue: vec![waiter],
        waiting: 1,
    };
    Board { incarnation: INCARNATION, required: true, units: vec![free, taken], at: None, more: 1 }
}

#[test]
fn a_request_for_a_lease() {
    assert_wire(
        &LeaseAsk {
            path: "board-a".parse().unwrap(),
            ..ask(LeaseAction::Acquire(Acquire {
                duration_ms: 7_200_000,
                wait_ms: 60_000,
                priority: 5,
                confirm: true,
                detached: true,
                place: None,
            }))
        },
        "
            01 30 | version 1, lease
            83 | map of 3
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a4 70617468  a7 626f6172642d61 | path: board-a
              a2 646f 81 | do: map of 1
                a7 61637175697265 85 | acquire: map of 5
                  ab 6475726174696f6e5f6d73  ce 006ddd00 | duration_ms: 7200000
                  a7 776169745f6d73  cd ea60 | wait_ms: 60000
                  a8 7072696f72697479  05 | priority: 5
                  a7 636f6e6669726d  c3 | confirm: true
                  a8 6465746163686564  c3 | detached: true
        ",
    );
    assert_wire(
        &ask(LeaseAction::Acquire(Acquire::default())),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a7 61637175697265 80 | acquire: map of 0
        ",
    );
}

#[test]
fn a_lease_that_is_a_part_of_a_place() {
    let place = Some("rpi-1".parse().unwrap());
    assert_wire(
        &ask(LeaseAction::Acquire(Acquire { place: place.clone(), ..Acquire::default() })),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a7 61637175697265 81 | acquire: map of 1
                  a5 706c616365  a5 7270692d31 | place: rpi-1
        ",
    );
    assert_wire(
        &Leased::Held(Held { place, starting: false, allowed: vec![], ..held() }),
        "
            01 31 | version 1, leased
            81 | map of 1
              a4 68656c64 86 | held: map of 6
                a5 65706f6368  cf 0006610bfe585400 | epoch: 1795554000000000
                a4 70617468  a7 626f6172642d61 | path: board-a
                a6 686f6c646572  a5 616c696365 | holder: alice
                a7 6c6566745f6d73  ce 006ddd00 | left_ms: 7200000
                ad 6b6565705f616c6976655f6d73  cd ea60 | keep_alive_ms: 60000
                a5 706c616365  a5 7270692d31 | place: rpi-1
        ",
    );
}

#[test]
fn what_is_said_of_a_ticket() {
    assert_wire(
        &ask(LeaseAction::Confirm),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f  a7 636f6e6669726d | do: confirm
        ",
    );
    assert_wire(
        &ask(LeaseAction::Decline { pause_ms: 250 }),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a7 6465636c696e65 81 | decline: map of 1
                  a8 70617573655f6d73  cc fa | pause_ms: 250
        ",
    );
    assert_wire(
        &ask(LeaseAction::Alive { heard: 2 }),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a5 616c697665 81 | alive: map of 1
                  a5 6865617264  02 | heard: 2
        ",
    );
    assert_wire(
        &ask(LeaseAction::Renew { duration_ms: 60_000 }),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a5 72656e6577 81 | renew: map of 1
                  ab 6475726174696f6e5f6d73  cd ea60 | duration_ms: 60000
        ",
    );
    assert_wire(
        &ask(LeaseAction::Release),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f  a7 72656c65617365 | do: release
        ",
    );
    assert_wire(
        &ask(LeaseAction::Transfer { to: name("bob") }),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a8 7472616e73666572 81 | transfer: map of 1
                  a2 746f  a3 626f62 | to: bob
        ",
    );
    assert_wire(
        &ask(LeaseAction::Allow { client: name("bob"), revoke: true }),
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a2 646f 81 | do: map of 1
                a5 616c6c6f77 82 | allow: map of 2
                  a6 636c69656e74  a3 626f62 | client: bob
                  a6 7265766f6b65  c3 | revoke: true
        ",
    );
    assert_wire(
        &LeaseAsk {
            ticket: None,
            driver: Some(DRIVER.parse().unwrap()),
            ..ask(LeaseAction::Status)
        },
        "
            01 30 | version 1, lease
            82 | map of 2
              a6 647269766572 | driver: 46e2614d-07d8-525a-b071-50c87f710bad
                d924 34366532363134642d303764382d353235612d623037312d353063383766373130626164
              a2 646f  a6 737461747573 | do: status
        ",
    );
}

#[test]
fn how_a_ticket_stands() {
    assert_wire(
        &Leased::Waiting { before: 1, holder: Some(name("bob")), left_ms: Some(1000) },
        "
            01 31 | version 1, leased
            81 | map of 1
              a7 77616974696e67 83 | waiting: map of 3
                a6 6265666f7265  01 | before: 1
                a6 686f6c646572  a3 626f62 | holder: bob
                a7 6c6566745f6d73  cd 03e8 | left_ms: 1000
        ",
    );
    assert_wire(
        &Leased::Offered { left_ms: 10_000 },
        "
            01 31 | version 1, leased
            81 | map of 1
              a7 6f666665726564 81 | offered: map of 1
                a7 6c6566745f6d73  cd 2710 | left_ms: 10000
        ",
    );
    assert_wire(
        &Leased::Held(held()),
        "
            01 31 | version 1, leased
            81 | map of 1
              a4 68656c64 87 | held: map of 7
                a5 65706f6368  cf 0006610bfe585400 | epoch: 1795554000000000
                a4 70617468  a7 626f6172642d61 | path: board-a
                a6 686f6c646572  a5 616c696365 | holder: alice
                a7 616c6c6f776564 91 | allowed: list of 1
                  a3 626f62 | bob
                a7 6c6566745f6d73  ce 006ddd00 | left_ms: 7200000
                ad 6b6565705f616c6976655f6d73  cd ea60 | keep_alive_ms: 60000
                a8 7374617274696e67  c3 | starting: true
        ",
    );
    assert_wire(
        &Leased::Ended { why: LeaseEnd::Kicked, text: text("fire") },
        "
            01 31 | version 1, leased
            81 | map of 1
              a5 656e646564 82 | ended: map of 2
                a3 776879  a6 6b69636b6564 | why: kicked
                a4 74657874  a4 66697265 | text: fire
        ",
    );
    assert_wire(
        &Leased::Refused(Refusal {
            holder: Some(name("bob")),
            left_ms: Some(1000),
            ..Refusal::new(RefusalCode::Busy, "no")
        }),
        "
            01 31 | version 1, leased
            81 | map of 1
              a7 72656675736564 84 | refused: map of 4
                a4 636f6465  a4 62757379 | code: busy
                a4 74657874  a2 6e6f | text: no
                a6 686f6c646572  a3 626f62 | holder: bob
                a7 6c6566745f6d73  cd 03e8 | left_ms: 1000
        ",
    );
}

#[test]
fn news() {
    assert_wire(
        &LeaseNews { ticket: TICKET, number: 3, now: Leased::Offered { left_ms: 9000 } },
        "
            01 32 | version 1, lease-news
            83 | map of 3
              a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                d920 3030303030303030303030303030616230303030303030303030303030303031
              a6 6e756d626572  03 | number: 3
              a3 6e6f77 81 | now: map of 1
                a7 6f666665726564 81 | offered: map of 1
                  a7 6c6566745f6d73  cd 2328 | left_ms: 9000
        ",
    );
}

#[test]
fn what_an_admin_asks() {
    assert_wire(
        &AdminAsk {
            path: Path::ROOT,
            driver: None,
            action: AdminAction::Kick { reason: text("fire"), ticket: Some(TICKET) },
        },
        "
            01 33 | version 1, admin
            81 | map of 1
              a2 646f 81 | do: map of 1
                a4 6b69636b 82 | kick: map of 2
                  a6 726561736f6e  a4 66697265 | reason: fire
                  a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                    d920 3030303030303030303030303030616230303030303030303030303030303031
        ",
    );
    let action = AdminAction::Drain { reason: text("fan"), maintenance: true };
    assert_wire(
        &AdminAsk { path: Path::ROOT, driver: None, action },
        "
            01 33 | version 1, admin
            81 | map of 1
              a2 646f 81 | do: map of 1
                a5 647261696e 82 | drain: map of 2
                  a6 726561736f6e  a3 66616e | reason: fan
                  ab 6d61696e74656e616e6365  c3 | maintenance: true
        ",
    );
    assert_wire(
        &AdminAsk { path: Path::ROOT, driver: None, action: AdminAction::Reload },
        "
            01 33 | version 1, admin
            81 | map of 1
              a2 646f  a6 72656c6f6164 | do: reload
        ",
    );
    assert_wire(
        &Administered::Done { text: text("ended") },
        "
            01 34 | version 1, administered
            81 | map of 1
              a4 646f6e65 81 | done: map of 1
                a4 74657874  a5 656e646564 | text: ended
        ",
    );
    assert_wire(
        &Administered::Refused(Refusal::new(RefusalCode::NotAllowed, "no")),
        "
            01 34 | version 1, administered
            81 | map of 1
              a7 72656675736564 82 | refused: map of 2
                a4 636f6465  ab 6e6f742d616c6c6f776564 | code: not-allowed
                a4 74657874  a2 6e6f | text: no
        ",
    );
}

#[test]
fn a_board_that_was_asked_about_a_driver() {
    assert_wire(
        &Board { units: vec![], required: false, at: Some("board-a".parse().unwrap()), ..board() },
        "
            01 35 | version 1, board
            84 | map of 4
              ab 696e6361726e6174696f6e | incarnation: 000000000000001f
                b0 30303030303030303030303030303166
              a5 756e697473 90 | units: list of 0
              a2 6174  a7 626f6172642d61 | at: board-a
              a4 6d6f7265  01 | more: 1
        ",
    );
}

#[test]
fn a_board() {
    assert_wire(
        &board(),
        "
            01 35 | version 1, board
            84 | map of 4
              ab 696e6361726e6174696f6e | incarnation: 000000000000001f
                b0 30303030303030303030303030303166
              a8 7265717569726564  c3 | required: true
              a5 756e697473 92 | units: list of 2
                81 | map of 1
                  a5 7374617465  a4 66726565 | state: free
                88 | map of 8
                  a4 70617468  a7 626f6172642d61 | path: board-a
                  a5 7374617465  a6 656e64696e67 | state: ending
                  a3 776879  a3 6f6666 | why: off
                  a5 6c65617365 87 | lease: map of 7
                    a5 65706f6368  cf 0006610bfe585400 | epoch: 1795554000000000
                    a4 70617468  a7 626f6172642d61 | path: board-a
                    a6 686f6c646572  a5 616c696365 | holder: alice
                    a7 616c6c6f776564 91 | allowed: list of 1
                      a3 626f62 | bob
                    a7 6c6566745f6d73  ce 006ddd00 | left_ms: 7200000
                    ad 6b6565705f616c6976655f6d73  cd ea60 | keep_alive_ms: 60000
                    a8 7374617274696e67  c3 | starting: true
                  a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                    d920 3030303030303030303030303030616230303030303030303030303030303031
                  a8 756e74696c5f6d73  cf 000001a20f5bbc80 | until_ms: 1795554000000
                  a5 7175657565 91 | queue: list of 1
                    84 | map of 4
                      a6 636c69656e74  a3 626f62 | client: bob
                      a8 7072696f72697479  05 | priority: 5
                      a8 73696e63655f6d73  cd 03e8 | since_ms: 1000
                      a6 7469636b6574 | ticket: 00000000000000ab0000000000000001
                        d920 3030303030303030303030303030616230303030303030303030303030303031
                  a7 77616974696e67  01 | waiting: 1
              a4 6d6f7265  01 | more: 1
        ",
    );
}
