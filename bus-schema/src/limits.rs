//! How large, how many, how long: every bound of the protocol, with where its number comes from.

use std::time::Duration;

/// Longest name, in bytes. NATS advises subjects under 256 bytes; the longest subject
/// ([`crate::subject::FromExporter::Out`]) holds three names, a UUID and four ids.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest key or value of a label, in bytes: that of a Kubernetes label's prefix.
pub const LABEL_BYTES_MAX: usize = 253;
/// Most labels of one driver, or of an exporter: a record of it fits a message.
pub const LABELS_MAX: usize = 64;
/// Deepest nesting of a value or of a driver tree's path: JSON parsers in the field stop between
/// 32 and 128, and a stack must survive hostile bytes.
pub const DEPTH_MAX: usize = 32;
/// Most parameters of one method, and most fields of one struct.
pub const FIELDS_MAX: usize = 256;
/// Largest argument list or result that travels in parts, unless configured otherwise.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Longest text of a fault or refusal; longer ones are cut. A message must fit one NATS header
/// line too (ADR-4 asks for short single lines).
pub const TEXT_BYTES_MAX: usize = 4096;
/// Most call ids in one `ask` or `cancel`: with 40 bytes an id it stays below 64 KiB.
pub const ASK_IDS_MAX: usize = 1024;

/// Deadline of a call that names none.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Longest deadline that is honoured: a day. Longer work is a streaming call.
pub const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);
/// An unanswered call is asked about first after this time …
pub const ASK_FIRST: Duration = Duration::from_secs(1);
/// … and then this often.
pub const ASK_EVERY: Duration = Duration::from_secs(5);
/// Unanswered asks that make a call lost.
pub const ASKS_UNANSWERED_MAX: u32 = 3;
/// An outcome is kept at most this long past its call's deadline.
pub const OUTCOME_KEPT: Duration = Duration::from_secs(120);
/// After a cancel, a method has this long before its future is dropped.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Calls, streaming calls and streams that wait or run at one driver; past it the answer is *busy*.
pub const CALLS_PER_DRIVER_MAX: usize = 1024;
/// The same that one client has waiting or running at one exporter; past it the answer is *busy*.
pub const CALLS_PER_CLIENT_MAX: usize = 4096;
/// Bytes of replies that go together in one message, as an async-nats client reads at once.
pub const REPLIES_BYTES_MAX: usize = 64 << 10;
/// Bytes of calls that go together in one message, for the same reason.
pub const CALLS_BYTES_MAX: usize = 64 << 10;
/// Bytes of arguments that wait at one exporter.
pub const QUEUED_BYTES_MAX: usize = 256 << 20;
/// Bytes of outcome bodies an exporter keeps for repeats.
pub const OUTCOME_BYTES_MAX: usize = 128 << 20;
/// Sessions of one client that an exporter remembers: 27 new processes a second for ten minutes.
/// Past it the older half of those at rest is forgotten, and their repeats are *forgotten*.
pub const SESSIONS_PER_CLIENT_MAX: usize = 16 << 10;
/// Sessions of all clients that an exporter remembers; each takes some 200 bytes.
pub const SESSIONS_MAX: usize = 256 << 10;
/// Outcomes an exporter keeps, with or without a body.
pub const OUTCOMES_MAX: usize = 1 << 20;

/// Bytes of user data in one chunk: large enough that a message's fixed cost (about 5 µs) is
/// small, small enough that a control message waits for at most one, and that the whole message
/// fits the read buffer of async-nats (65,535 bytes), past which it is copied into a larger one.
pub const CHUNK_BYTES_MAX: usize = 60 << 10;
/// What an envelope and a record's headers may add to a payload.
pub const OVERHEAD_BYTES_MAX: usize = 1024;
/// Credit that one connection grants, over all its streams: half of the broker's default
/// `max_pending` of 64 MiB, past which it cuts a slow connection off.
pub const CREDIT_BYTES_MAX: usize = 32 << 20;
/// Smallest credit worth opening a stream with.
pub const WINDOW_BYTES_MIN: usize = 16 << 10;
/// Largest credit of one stream.
pub const WINDOW_BYTES_MAX: usize = 4 << 20;
/// Streams and streaming calls open at one exporter, over all clients.
pub const STREAMS_MAX: usize = 4096;
/// Largest single item of a streaming call.
pub const ITEM_BYTES_MAX: usize = 8 << 20;
/// A stream with unacknowledged bytes says so this often …
pub const ALIVE_BUSY: Duration = Duration::from_secs(1);
/// … and any open stream this often.
pub const ALIVE_IDLE: Duration = Duration::from_secs(15);
/// A peer that has said nothing for this long is gone: two idle intervals and a little.
pub const SILENCE_MAX: Duration = Duration::from_secs(40);
/// A stream waits this long for a broker that is away; then it ends in an error.
pub const OUTAGE_MAX: Duration = Duration::from_secs(300);
/// Bytes of one streaming call that are recorded; items past it are sent but not kept.
pub const RECORD_BYTES_MAX: u64 = 256 << 20;
/// How long an exporter waits for the record of a streaming call to be complete before its
/// terminator says how far it goes.
pub const RECORD_WAIT: Duration = Duration::from_secs(5);

/// Largest file that is lent: with blocks of [`BLOCK_BYTES_MAX`] its list of digests is one block.
pub const FILE_BYTES_MAX: u64 = 512 << 30;
/// Largest block of a file: large enough that digests are few, small enough that a change to an
/// image sends little again and that a reader may keep some of them.
pub const BLOCK_BYTES_MAX: u64 = 4 << 20;
/// Smallest block of a file but the last.
pub const BLOCK_BYTES_MIN: u64 = 64 << 10;
/// Largest part in which a block is stored, half of NATS' default `max_payload`; smaller where the
/// broker takes less.
pub const BLOCK_PART_BYTES_MAX: usize = 512 << 10;
/// Most parts of a block: those of the largest block where the broker takes only 64 KiB.
pub const BLOCK_PARTS_MAX: u32 = 72;
/// Most digests that a manifest holds itself: 32 KiB of them.
pub const BLOCKS_INLINE_MAX: u64 = 1024;
/// Longest URL, name, content type or header of lent data.
pub const LENT_TEXT_BYTES_MAX: usize = 8192;
/// Most headers of a lent URL.
pub const LENT_HEADERS_MAX: usize = 64;

/// An exporter says that it is there this often …
pub const PRESENCE_EVERY: Duration = Duration::from_secs(5);
/// … and is gone when it has not for three times that.
pub const PRESENCE_TTL: Duration = Duration::from_secs(15);
/// How long the holder of a name has to answer before the name is taken over.
pub const CLAIM_PING: Duration = Duration::from_secs(2);
/// Drivers in one exporter's tree.
pub const DRIVERS_MAX: usize = 65_536;

/// An offer that is not confirmed for this long goes to the next: a message there and back over any
/// network, and the others of a set.
pub const OFFER_HELD: Duration = Duration::from_secs(10);
/// An offer that was sent as news, and of whose client nothing is heard for this long, goes to the
/// next: two repeats of the news, and some.
pub const OFFER_HEARD: Duration = Duration::from_secs(3);
/// A lease without a sign of life ends after this time, unless configured otherwise: four times
/// what a broker takes to notice that a connection is dead.
pub const LEASE_ALIVE: Duration = Duration::from_secs(60);
/// A lease whose client does not say how long it wants it, unless configured otherwise.
pub const LEASE_DURATION: Duration = Duration::from_secs(30 * 60);
/// Longest lease, unless configured otherwise.
pub const LEASE_DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// News of a ticket that are not acknowledged are repeated this often.
pub const LEASE_NEWS_EVERY: Duration = Duration::from_secs(1);
/// Highest priority that can be asked for.
pub const LEASE_PRIORITY_MAX: u64 = 100;
/// Tickets at one exporter, over all clients: each may be shown on its board.
pub const TICKETS_MAX: usize = 4096;
/// Tickets of one client at one exporter: a set and a few terminals.
pub const TICKETS_PER_CLIENT_MAX: usize = 256;
/// Longest reason for which a subtree is drained: every board shows it.
pub const CLOSURE_REASON_BYTES_MAX: usize = 256;
/// Clients that one lease is shared with.
pub const LEASE_ALLOWED_MAX: usize = 32;
/// Exporters that one request by labels puts tickets on.
pub const LEASE_MATCHES_MAX: usize = 32;
/// Waiting clients that a board names for each subtree.
pub const BOARD_QUEUE_MAX: usize = 32;
/// Largest board: the smallest `max_payload` less a record's headers.
pub const BOARD_BYTES_MAX: usize = 120 << 10;
/// Events that wait at an exporter for their way out: a burst of refusals, or a broker that is
/// away. Later ones are dropped and counted.
pub const EVENTS_WAITING_MAX: usize = 1024;
/// Lines of logs that wait at an exporter; later ones are dropped and counted. With full lines
/// that is 8 MiB.
pub const LOG_LINES_WAITING_MAX: usize = 4096;
/// Longest line of a log; a longer one is cut.
pub const LOG_LINE_BYTES_MAX: usize = 2048;
/// Lines of one message of a log: with full lines it fits the smallest `max_payload`.
pub const LOG_LINES_MAX: usize = 32;
/// A line of a log waits at most this long for others to go with.
pub const LOG_DELAY: Duration = Duration::from_millis(200);

/// Roles of one place: a board with every port of a large PDU.
pub const PLACE_ROLES_MAX: usize = 64;
