//! The jmp-bus runtime.

mod broker;
mod bus; // the only module that names `async_nats`
mod node;
mod settings;

pub use broker::{
    BrokerError, BrokerOptions, LocalBroker, NATS_SERVER_MIN, OnProgress, Place, Progress,
    Unusable, Version,
};
pub use node::{Factory, Node, Role};
pub use settings::{
    Auth, BadServer, Flags, Secret, Settings, SettingsError, Source, Sources, Tls, Warning,
};
