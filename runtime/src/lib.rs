//! The jmp-bus runtime.

mod node;

pub use node::{Factory, Node, Role};
