//! `jmp-bus`: what a person types.
//!
//! The whole program is a value, so that a lab with drivers of its own has a binary of its own in
//! three lines:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     jmp_bus::Cli::builtin().with::<MyRelay>().run()
//! }
//! ```
//!
//! | You want to…                   | Start at |
//! |--------------------------------|----------|
//! | add a kind of driver           | [`Cli::with`] |
//! | add a command                  | `cmd.rs`: a `mod` and a line in its list |
//! | know what an exit code means   | `advice.rs`, or `jmp-bus exit-codes` |

#![deny(missing_docs)]

mod advice;
mod args;
pub mod bench;
mod bucket;
mod cmd;
mod console;
mod demo;
mod desk;
mod fanout;
mod held;
mod hook;
mod interrupt;
mod lending;

mod metrics;
mod output;
mod program;
mod progress;
mod request;
mod session;
#[cfg(feature = "ssh")]
mod ssh;
mod systemd;
mod table;
mod tail;
mod tether;
mod told;
mod wanted;

pub use program::Cli;
