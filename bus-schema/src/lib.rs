//! What can be said on the bus: ids, subjects, messages, interfaces, bytes and limits.
//!
//! | You want to…                            | Start at |
//! |-----------------------------------------|----------|
//! | name a driver                           | [`Address`], [`DriverId`], [`Selector`] |
//! | know which subject carries what         | [`subject`] |
//! | read or write a message                 | [`codec`], [`message`] |
//! | define what a driver can do             | [`interface`](macro@interface), [`driver`](macro@driver), [`Describe`] |
//! | host drivers, or call them              | [`Serve`], [`Invoke`] |
//! | know how large, how many, how long      | [`limits`] |
//!
//! There is no NATS here, no tokio and no I/O. `PROTOCOL.md` beside this crate is the same
//! in prose, exact enough to write a second implementation from.

#![deny(missing_docs)]

mod address;
pub mod codec;
mod fault;
mod id;
pub mod limits;
pub mod message;
mod name;
mod record;
mod serve;
mod signature;
pub mod subject;
mod value;

pub use address::{Address, AddressError, Path, Selector, SelectorError, Target};
pub use bus_macros::{Describe, driver, interface};
pub use fault::{Failure, Fault, FaultKind, Refusal, RefusalCode};
pub use id::{CallId, DriverId, IdError, Incarnation, Session, StreamId};
pub use name::{ClientName, ExporterName, MethodName, NameError, Root};
pub use record::{DriverRecord, InterfaceDigest, Presence, State, TreeRecord};
pub use serve::{
    ArgReader, Args, Invoke, InvokeBlocking, Outgoing, RawContext, RawItems, RawPipe, Serve,
    Serving, encode_value,
};
pub use signature::{Describe, Field, Interface, Kind, Method, Type, Variant};
pub use value::{Value, ValueError};

/// What generated code names that is not ours.
#[doc(hidden)]
pub mod __private {
    pub use serde;
}
