//! PROTOCOL.md says what the code does, as far as that can be checked by a machine.

#![expect(clippy::unwrap_used, reason = "a helper of a test may, as a test may")]

use std::{fmt::Write as _, time::Duration};

use bus_schema::{
    FaultKind, Interface, LeaseEnd, Presence, RefusalCode, TreeRecord, UnitState, codec,
    codec::Message,
    limits,
    message::{Ack, Call, Data, KINDS, Open, Opened, Reply, Reset},
    subject::{DriverVerb, ExporterVerb},
};

const DOCUMENT: &str = include_str!("../PROTOCOL.md");

/// The hex blocks, as bytes.
fn examples() -> Vec<Vec<u8>> {
    let blocks = DOCUMENT.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let bytes = |block: &str| {
        let columns = block.lines().map(|line| line.split('|').next().unwrap());
        let digits: String = columns.collect::<String>().split_whitespace().collect();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    };
    blocks.map(bytes).collect()
}

fn again<M: Message>(bytes: &[u8]) -> Vec<u8> {
    codec::encode(&codec::decode::<M>(bytes).unwrap()).to_vec()
}

#[test]
fn its_examples_are_what_is_written_here() {
    let examples = examples();
    assert_eq!(examples.len(), 10);
    for bytes in examples {
        let written = match bytes[1] {
            Call::KIND => again::<Call>(&bytes),
            Reply::KIND => again::<Reply>(&bytes),
            Open::KIND => again::<Open>(&bytes),
            Opened::KIND => again::<Opened>(&bytes),
            Ack::KIND => again::<Ack>(&bytes),
            Reset::KIND => again::<Reset>(&bytes),
            Data::KIND => Data::decode(&bytes.clone().into()).unwrap().encode().to_vec(),
            kind => panic!("no example of kind {kind:#04x} was there"),
        };
        assert_eq!(written, bytes);
    }
}

trait Shown {
    fn shown(self) -> String;
}

impl Shown for Duration {
    fn shown(self) -> String {
        format!("{}s", self.as_secs())
    }
}

macro_rules! shown {
    ($($number:ty),*) => { $(impl Shown for $number { fn shown(self) -> String { self.to_string() } })* };
}
shown!(usize, u64, u32);

macro_rules! rows {
    ($($name:ident)*) => { vec![$((stringify!($name), limits::$name.shown())),*] };
}

#[test]
fn it_has_every_limit_with_its_value() {
    let rows = rows!(
        NAME_BYTES_MAX DEPTH_MAX FIELDS_MAX PAYLOAD_BYTES_MAX TEXT_BYTES_MAX ASK_IDS_MAX DEADLINE
        DEADLINE_MAX ASK_FIRST ASK_EVERY ASKS_UNANSWERED_MAX OUTCOME_KEPT CANCEL_GRACE
        CALLS_PER_DRIVER_MAX CALLS_PER_CLIENT_MAX QUEUED_BYTES_MAX OUTCOME_BYTES_MAX OUTCOMES_MAX
        CHUNK_BYTES_MAX OVERHEAD_BYTES_MAX CREDIT_BYTES_MAX WINDOW_BYTES_MIN WINDOW_BYTES_MAX
        STREAMS_MAX ITEM_BYTES_MAX ALIVE_BUSY ALIVE_IDLE SILENCE_MAX OUTAGE_MAX RECORD_BYTES_MAX RECORD_WAIT
        PRESENCE_EVERY PRESENCE_TTL CLAIM_PING DRIVERS_MAX OFFER_HELD LEASE_ALIVE LEASE_DURATION
        LEASE_DURATION_MAX LEASE_NEWS_EVERY LEASE_PRIORITY_MAX TICKETS_MAX TICKETS_PER_CLIENT_MAX
        LEASE_ALLOWED_MAX LEASE_MATCHES_MAX BOARD_QUEUE_MAX BOARD_BYTES_MAX
    );
    let mut missing = String::new();
    for (name, value) in &rows {
        let row = format!("| `{name}` | {value} |");
        if !DOCUMENT.contains(&row) {
            writeln!(missing, "{row}").unwrap();
        }
    }
    assert!(missing.is_empty(), "not in the table of limits:\n{missing}");
    let there_are = include_str!("../src/limits.rs").matches("pub const ").count();
    assert_eq!(there_are, rows.len(), "a limit is missing in this test");
}

#[test]
fn it_has_every_kind_word_and_verb() {
    let records = [
        (Presence::KIND, Presence::NAME),
        (TreeRecord::KIND, TreeRecord::NAME),
        (Interface::KIND, Interface::NAME),
    ];
    for (kind, name) in KINDS.iter().chain(&records) {
        assert!(DOCUMENT.contains(&format!("| {kind:02x} | {name} |")), "{name}");
    }
    for code in RefusalCode::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{code}` |")), "{code}");
    }
    for kind in FaultKind::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{kind}` |")), "{kind}");
    }
    for why in LeaseEnd::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{why}` |")), "{why}");
    }
    for state in UnitState::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{state}` |")), "{state}");
    }
    let verbs = DriverVerb::ALL.iter().map(|verb| verb.as_str());
    for verb in verbs.chain(ExporterVerb::ALL.iter().map(|verb| verb.as_str())) {
        assert!(DOCUMENT.contains(&format!("| `….c.C.{verb}.E.")), "{verb}");
    }
}
