//! The jmp-bus runtime: serve drivers with [`Exporter`], use them with [`Client`].
//!
//! | You want to…                              | Start at |
//! |-------------------------------------------|----------|
//! | try a driver in a test                    | [`serve`], [`blocking::serve`] |
//! | put devices on the bus                    | [`Exporter`], [`Node`] |
//! | use a device                              | [`Client`], [`DriverRef`] |
//! | use a device nobody else may use meanwhile | [`Lease`] |
//! | write a driver                            | [`Context`], [`Items`], [`ByteStream`], [`Resource`] |
//! | lend a file to a driver                   | [`Lend`], [`Client::put`] |
//! | have a broker of your own                 | [`LocalBroker`] |
//!
//! The wire format is not here: see the `bus_schema` crate.

#![deny(missing_docs)]

mod authority;
pub mod blocking;
mod broker;
mod bus; // the only module that names `async_nats`
mod client;
mod config;
mod digest;
mod exporter;
mod lend;
mod local;
mod log;
mod node;
mod places;
mod registry;
mod resource;
mod scratch;
mod settings;
mod stored;
mod stream;
mod tail;

pub use authority::{
    Authority, AuthorityError, AuthorityPlan, Claims, GivenCertificate, Identity, Issued, JwtError,
    NewUser, Outdated, Pushed, User,
};
pub use broker::{
    BrokerError, BrokerOptions, LocalBroker, NATS_SERVER_MIN, OnProgress, Place, Progress,
    Unusable, Version,
};
pub use bus::{
    Action, BusError, Certificate, Checkup, Keep, ServerInfo, StreamsKeep, TurnedAway, Unseen,
    floor,
};
pub use client::{
    Attached, CallError, Client, DriverRef, ItemBytes, ItemStream, Lease, LeaseError, LeaseRequest,
    OnWait, PlaceLease, StartedCall, Waiting,
};
pub use config::{
    BuildError, ChildrenRule, Config, ConfigErrors, DriverKind, Kind, Kinds, Problem, Site,
    parse_places, read_places,
};
pub use exporter::{
    AccessRule, ConfigSource, Context, Exporter, ExporterConfig, ExporterError, Hook, HookFailure,
    Hooks, LeaseRules, Metrics, ShutdownError, Stopped, TurnGuard,
};
pub use lend::{Lend, LendError, LendSink, Moved, OnMoved, Put, Stored, StoredFile, Storing};
pub use local::{Served, serve};
pub use log::LogTap;
pub use node::{Factory, Node, Role};
pub use places::PlaceError;
pub use registry::{BoardWatch, Change, Found, Registry, Watch, Why};
pub use resource::{Extent, Resource, ResourceError, ResourceInfo, ResourceWriter};
pub use scratch::ScratchDir;
pub use settings::{
    Auth, BadServer, Flags, Secret, Settings, SettingsError, Source, Sources, Tls, Warning,
};
pub use stream::{ByteStream, ItemError, Items, StreamError};
pub use tail::{Numbered, Said, Since, Tail};

/// The name of this host, for records that people read.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => name.chars().take(64).collect(),
    }
}
