//! The jmp-bus runtime.

mod config;
mod node;

pub use config::{
    BuildError, ChildrenRule, Config, ConfigErrors, DriverKind, Kind, Kinds, Problem, Site,
};
pub use node::{Factory, Node, Role};
