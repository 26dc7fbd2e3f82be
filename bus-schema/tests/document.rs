//! PROTOCOL.md says what the code does, as far as that can be checked by a machine.

#![expect(clippy::unwrap_used, reason = "a helper of a test may, as a test may")]

use std::{fmt::Write as _, time::Duration};

use bus_schema::{
    BlockPart, Event, EventKind, FaultKind, Interface, LeaseEnd, LogLines, Manifest, Packing,
    Place, Presence, RefusalCode, TreeRecord, UnitState, codec,
    codec::Message,
    limits,
    message::{Ack, Call, Data, KINDS, Open, Opened, Reply, Reset},
    permission::{Grant, Permissions, Role, TABLE},
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
        match self.subsec_millis() {
            0 => format!("{}s", self.as_secs()),
            _ => format!("{}ms", self.as_millis()),
        }
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
        NAME_BYTES_MAX LABEL_BYTES_MAX LABELS_MAX DEPTH_MAX FIELDS_MAX PAYLOAD_BYTES_MAX TEXT_BYTES_MAX ASK_IDS_MAX DEADLINE
        DEADLINE_MAX ASK_FIRST ASK_EVERY ASKS_UNANSWERED_MAX OUTCOME_KEPT CANCEL_GRACE
        CALLS_PER_DRIVER_MAX CALLS_PER_CLIENT_MAX REPLIES_BYTES_MAX CALLS_BYTES_MAX QUEUED_BYTES_MAX OUTCOME_BYTES_MAX SESSIONS_PER_CLIENT_MAX SESSIONS_MAX OUTCOMES_MAX
        CHUNK_BYTES_MAX OVERHEAD_BYTES_MAX CREDIT_BYTES_MAX WINDOW_BYTES_MIN WINDOW_BYTES_MAX
        STREAMS_MAX ITEM_BYTES_MAX ALIVE_BUSY ALIVE_IDLE SILENCE_MAX OUTAGE_MAX RECORD_BYTES_MAX RECORD_WAIT
        PRESENCE_EVERY PRESENCE_TTL CLAIM_PING DRIVERS_MAX OFFER_HELD OFFER_HEARD LEASE_ALIVE LEASE_DURATION
        LEASE_DURATION_MAX LEASE_NEWS_EVERY LEASE_PRIORITY_MAX TICKETS_MAX TICKETS_PER_CLIENT_MAX
        CLOSURE_REASON_BYTES_MAX LEASE_ALLOWED_MAX LEASE_MATCHES_MAX BOARD_QUEUE_MAX BOARD_BYTES_MAX
        FILE_BYTES_MAX BLOCK_BYTES_MAX BLOCK_BYTES_MIN BLOCK_PART_BYTES_MAX BLOCK_PARTS_MAX
        BLOCKS_INLINE_MAX LENT_TEXT_BYTES_MAX LENT_HEADERS_MAX
        EVENTS_WAITING_MAX LOG_LINES_WAITING_MAX LOG_LINE_BYTES_MAX LOG_LINES_MAX LOG_DELAY
        PLACE_ROLES_MAX
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
        (Manifest::KIND, Manifest::NAME),
        (BlockPart::KIND, BlockPart::NAME),
        (Event::KIND, Event::NAME),
        (LogLines::KIND, LogLines::NAME),
        (Place::KIND, Place::NAME),
    ];
    for (kind, name) in KINDS.iter().chain(&records) {
        assert!(DOCUMENT.contains(&format!("| {kind:02x} | {name} |")), "{name}");
    }
    for code in RefusalCode::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{code}` |")), "{code}");
    }
    for kind in EventKind::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{kind}` |")), "{kind}");
    }
    let (_, faults) = DOCUMENT.split_once("| fault | means |").unwrap();
    let (faults, _) = faults.split_once("\n\n").unwrap();
    for kind in FaultKind::KNOWN {
        assert!(faults.contains(&format!("| `{kind}` |")), "{kind}");
    }
    for why in LeaseEnd::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{why}` |")), "{why}");
    }
    for state in UnitState::KNOWN {
        assert!(DOCUMENT.contains(&format!("| `{state}` |")), "{state}");
    }
    for packing in Packing::KNOWN {
        assert!(DOCUMENT.contains(&format!("`{packing}`")), "{packing}");
    }
    let verbs = DriverVerb::ALL.iter().map(|verb| verb.as_str());
    for verb in verbs.chain(ExporterVerb::ALL.iter().map(|verb| verb.as_str())) {
        assert!(DOCUMENT.contains(&format!("| `….c.C.{verb}.E.")), "{verb}");
    }
}

fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// A row of the table of permissions.
fn permission_row(grant: &Grant) -> String {
    let Grant { subjects, publish, never_publish, subscribe } = grant;
    let mut concerned = publish.iter().chain(*never_publish).chain(*subscribe);
    let own = if concerned.all(|role| *role == Role::Exporter) { "E" } else { "C" };
    let root = "root".parse().unwrap();
    let pattern =
        subjects.pattern(&root, own).replace("root.v1.", "….").replace("root_", "<root>_");
    let publish = match never_publish {
        [] => words(publish),
        never => format!("never: {}", words(never)),
    };
    format!("| `{pattern}` | {publish} | {} |", words(subscribe))
}

#[test]
fn it_has_the_permissions_of_every_role() {
    let wanted: Vec<_> = TABLE.iter().map(permission_row).collect();
    let section = DOCUMENT.split("### 3.1 ").nth(1).unwrap().split("\n## ").next().unwrap();
    let written: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(written, wanted, "should be:\n{}", wanted.join("\n"));
}

/// The rows of the table of subjects: subject, and who says it to whom.
fn subject_rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let section = DOCUMENT.split("## 3. Subjects").nth(1).unwrap().split("### 3.1").next().unwrap();
    section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let mut cells = line.split(" | ");
        (cells.next().unwrap().trim_matches(['|', ' ', '`']), cells.next().unwrap().trim())
    })
}

/// A subject of such a row, as client alice and exporter bench have it.
fn example(row: &str) -> String {
    let token = |token: &str| match token {
        "C" => "alice".to_owned(),
        "E" => "bench".to_owned(),
        "<other>" => "shout".to_owned(),
        "S" | "T" | "D" => "1".to_owned(),
        other if other.starts_with('<') => "1".to_owned(),
        other => other.to_owned(),
    };
    if row.starts_with("$SRV") {
        return "$SRV.PING".to_owned();
    }
    // The first token is the ellipsis, with its own dot behind.
    let rest = row.strip_prefix("….").unwrap_or_else(|| panic!("{row}: no subject"));
    let tokens: Vec<_> = rest.split('.').map(token).collect();
    format!("jmp.v1.{}", tokens.join("."))
}

/// What every role may do, as users of these names.
fn everybody(person: &str, exporter: &str) -> Vec<(Role, Permissions)> {
    let root = "jmp".parse().unwrap();
    let name = |role| if role == Role::Exporter { exporter } else { person };
    // A leaf is whoever is connected there.
    let roles = Role::ALL.iter().filter(|role| **role != Role::Leaf);
    roles.map(|role| (*role, role.permissions(&root, name(*role)))).collect()
}

#[test]
fn every_subject_may_be_said_and_heard_by_whom_its_row_names_and_by_no_stranger() {
    let (ours, strangers) = (everybody("alice", "bench"), everybody("mallory", "rogue"));
    for (row, way) in subject_rows() {
        let subject = example(row);
        let (from, to) = way.split_once('→').unwrap_or_else(|| panic!("{row}: who to whom?"));
        let said = ours.iter().any(|(_, may)| may.may_publish(&subject));
        let heard = ours.iter().any(|(_, may)| may.may_subscribe(&subject));
        assert!(said || from.contains("JetStream"), "{row}: nobody may say it");
        assert!(heard || to.contains("JetStream"), "{row}: nobody may hear it");
        // An answer may come from any exporter: it takes its random token to be believed.
        let from_anybody = from.contains("anybody");
        let private = to.contains("client") && !from_anybody;
        for (role, may) in &strangers {
            let says = may.may_publish(&subject);
            let as_any_admin = from.contains("admin") && *role == Role::Admin;
            assert!(
                !says || from_anybody || as_any_admin,
                "{row}: an unconcerned {role} may say it"
            );
            let hears =
                may.may_subscribe(&subject) && matches!(role, Role::Client | Role::Exporter);
            assert!(!hears || !private, "{row}: an unconcerned {role} may hear it");
        }
    }
    assert!(subject_rows().count() > 15, "the table was not found");
}
