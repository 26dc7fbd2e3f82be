//! The program itself, against a real broker and an exporter of fakes.

#![expect(clippy::unwrap_used, reason = "a test that panics says why")]

mod admin;
mod board;
mod browser;
mod bucket;
mod call;
mod deploy;
mod expect;
mod fanout;
mod fleet;
mod hook;
mod lab;
mod lease;
mod lend;
mod local;
mod look;
mod pipes;
mod place;
mod run;
mod serve;
mod ssh;
mod stream;
mod vnc;
mod watch;
