//! What can be said on the bus: ids, subjects, messages, interfaces, bytes and limits.
//!
//! | You want to…                            | Start at |
//! |-----------------------------------------|----------|
//! | name a driver                           | [`Address`], [`DriverId`], [`Selector`] |
//! | know which subject carries what         | [`subject`] |
//! | know who may say and hear it            | [`permission`] |
//! | read or write a message                 | [`codec`], [`message`] |
//! | define what a driver can do             | [`interface`](macro@interface), [`driver`](macro@driver), [`Describe`] |
//! | host drivers, or call them              | [`Serve`], [`Invoke`] |
//! | know how large, how many, how long      | [`limits`] |
//!
//! There is no NATS here, no tokio and no I/O. `PROTOCOL.md` beside this crate is the same
//! in prose, exact enough to write a second implementation from.

#![deny(missing_docs)]

mod address;
mod admin;
mod block_news;
pub mod codec;
mod event;
mod fault;
#[doc(hidden)]
pub mod fuzz;
mod id;
mod lease;
pub mod limits;
mod log;
pub mod message;
mod name;
pub mod permission;
mod place;
mod record;
mod resource;
mod serve;
mod signature;
pub mod subject;
mod value;

pub use address::{Address, AddressError, Path, Selector, SelectorError, Target};
pub use admin::{AdminAction, AdminAsk, Administered};
pub use block_news::{BlockNews, BlockNewsError};
pub use bus_macros::{Describe, driver, interface};
pub use event::{Event, EventKind};
pub use fault::{Failure, Fault, FaultKind, Refusal, RefusalCode};
pub use id::{CallId, DriverId, HookId, IdError, Incarnation, Session, StreamId, TicketId};
pub use lease::{
    Acquire, Board, BoardUnit, Held, LeaseAction, LeaseAsk, LeaseEnd, LeaseNews, Leased, UnitState,
    Waiter,
};
pub use log::{Level, LogLine, LogLines, LogSource};
pub use name::{ClientName, ExporterName, MethodName, NameError, PlaceName, RoleName, Root};
pub use place::{LeaseTarget, Place, PlaceRef, Roles};
pub use record::{DriverRecord, InterfaceDigest, Presence, State, TreeRecord};
pub use resource::{BlockPart, Coding, Lent, LentFrom, LentUrl, Manifest, Packing, Sha256, Sink};
pub use serve::{
    ArgReader, Args, Blocking, Invoke, InvokeBlocking, Loan, Outgoing, RawContext, RawItems,
    RawPipe, RawResource, Serve, Serving, block, encode_value, refuse_method,
};
pub use signature::{Describe, Field, Interface, Kind, Method, Type, Variant};
pub use value::{Value, ValueError, plainly};

#[doc(hidden)]
pub mod __private {
    /// Whether `names` has `name`, at compile time.
    pub const fn contains(names: &[&str], name: &str) -> bool {
        let mut at = 0;
        while at < names.len() {
            if same(names[at].as_bytes(), name.as_bytes()) {
                return true;
            }
            at += 1;
        }
        false
    }

    const fn same(a: &[u8], b: &[u8]) -> bool {
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }
}
