//! Leases on the wire: exclusive use of an exporter's tree, or of a subtree, by one client.
//!
//! Durations travel, never clock times. Every command is idempotent: it names a ticket, and what
//! comes back is how that ticket stands now, however often the command was heard.

use serde::{Deserialize, Serialize};

use crate::{ClientName, DriverId, Incarnation, Path, PlaceName, Refusal, TicketId, fault::words};

/// A client's word about a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseAsk {
    /// The request that it is about. Without one: the lease at [`path`](Self::path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketId>,
    /// A driver of the subtree that is meant, by its path; the root unless said otherwise.
    #[serde(default, skip_serializing_if = "Path::is_root")]
    pub path: Path,
    /// The same by its UUID, which then counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverId>,
    /// What is asked.
    #[serde(rename = "do")]
    pub action: LeaseAction,
}

/// What is asked of a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseAction {
    /// Give me the subtree, or a place in its queue.
    Acquire(Acquire),
    /// I take what is offered.
    Confirm,
    /// I do not take what is offered now, and keep my place; it is not offered to me again for
    /// this long.
    Decline {
        /// The pause.
        #[serde(default, skip_serializing_if = "is_zero")]
        pause_ms: u64,
    },
    /// I am still here; how does my ticket stand? Acknowledges news up to this number.
    Alive {
        /// The number of the newest news that was read.
        #[serde(default, skip_serializing_if = "is_zero")]
        heard: u64,
    },
    /// Let it last this long from now.
    Renew {
        /// How long.
        duration_ms: u64,
    },
    /// I no longer want it: a lease, an offer or a place in the queue.
    Release,
    /// Give it to another client, who gets what is left of it.
    Transfer {
        /// To whom.
        to: ClientName,
    },
    /// Let another client use it too, or no longer.
    Allow {
        /// Whom.
        client: ClientName,
        /// Take it back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        revoke: bool,
    },
    /// Show everything that can be leased here, and who has it; and which subtree the driver at
    /// `path` is leased with. Answered with a [`Board`].
    Status,
}

/// What a client wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acquire {
    /// How long it is wanted; 0 is as long as the exporter gives by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
    /// How long to wait for it; 0 is not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_ms: u64,
    /// Who is served first; ties go by arrival.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u64,
    /// Take it at once if it is free: a confirmation in the same message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// The lease goes on to its deadline without signs of life.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
    /// The place that it is leased as a part of: for people, and for who gives the place back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceName>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How a ticket stands: the answer to a [`LeaseAsk`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leased {
    /// In the queue.
    Waiting {
        /// How many are before it.
        before: u64,
        /// Who has it now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        holder: Option<ClientName>,
        /// For how long at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left_ms: Option<u64>,
    },
    /// It can be had: confirm or decline.
    Offered {
        /// Before this time is over.
        left_ms: u64,
    },
    /// It is this client's.
    Held(Held),
    /// It is over.
    Ended {
        /// Why, for programs.
        why: LeaseEnd,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
    },
    /// The command was refused; how the ticket stands has not changed.
    Refused(Refusal),
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Its number: higher than that of any lease on this exporter before it.
    pub epoch: u64,
    /// The subtree.
    #[serde(default, skip_serializing_if = "Path::is_root")]
    pub path: Path,
    /// Who has it.
    pub holder: ClientName,
    /// Who may use it besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<ClientName>,
    /// How long it lasts at most.
    pub left_ms: u64,
    /// How long it lasts without a sign of life; none is to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_ms: Option<u64>,
    /// The hook before it still runs: calls are refused until it has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starting: bool,
    /// The place that it was leased as a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<PlaceName>,
}

words! {
    /// Why a lease, an offer or a place in the queue is over.
    LeaseEnd {
        /// Its client gave it back.
        Released = "released",
        /// Its time was over.
        Expired = "expired",
        /// Its client gave no sign of life.
        Silent = "silent",
        /// An admin ended it.
        Kicked = "kicked",
        /// Its holder gave it to another client.
        Transferred = "transferred",
        /// The wait was over.
        TimedOut = "timed-out",
        /// It was offered, and not confirmed in time, again and again.
        Unconfirmed = "unconfirmed",
        /// The hook before it failed.
        Hook = "hook",
        /// The exporter's configuration no longer gives it.
        Withdrawn = "withdrawn",
        /// The exporter knows nothing of it.
        Unknown = "unknown",
    }
}

/// Something that a ticket's client was not waiting for: an offer, a lost lease. Repeated until it
/// is acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseNews {
    /// Whose ticket.
    pub ticket: TicketId,
    /// Counts the news of a ticket.
    pub number: u64,
    /// How it stands.
    pub now: Leased,
}

/// What can be leased at an exporter, and who has it: the answer to
/// [`Status`](LeaseAction::Status), and a record for everybody. Nobody decides from the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Board {
    /// Which run of the exporter speaks.
    pub incarnation: Incarnation,
    /// Whether calls need a lease even while nobody has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Each subtree that can be leased apart, the rest of the tree first.
    pub units: Vec<BoardUnit>,
    /// The subtree of the driver that was asked about, in an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Path>,
    /// Subtrees that found no room in the message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

/// One subtree that can be leased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoardUnit {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Path::is_root")]
    pub path: Path,
    /// How it is.
    pub state: UnitState,
    /// Why, for people, where that is not plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The lease, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Held>,
    /// Its ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<TicketId>,
    /// When it ends, in ms since 1970 by the exporter's own clock. For people, and for the
    /// exporter itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Who waits, in the order of service; at most the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<Waiter>,
    /// How many wait in all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting: u64,
}

words! {
    /// How a subtree is.
    UnitState {
        /// Nobody has it.
        Free = "free",
        /// It is offered to the first of the queue.
        Offered = "offered",
        /// Somebody has it, and the hook before the lease still runs.
        Starting = "starting",
        /// Somebody has it.
        Held = "held",
        /// A lease is being ended: streams are cut, devices made safe, hooks run.
        Ending = "ending",
        /// A device would not become safe, or the health check failed: it is not granted.
        Unsafe = "unsafe",
        /// It is not granted now: maintenance, or the exporter drains.
        Closed = "closed",
    }
}

/// Somebody who waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who.
    pub client: ClientName,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u64,
    /// How long already.
    pub since_ms: u64,
    /// The ticket.
    pub ticket: TicketId,
}
