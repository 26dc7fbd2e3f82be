//! The CLI.
pub mod bench;
