//! Fixtures for the tests.

mod driver;
mod lab;
mod peer;
mod taker;

pub use driver::{Events, TestDriver, TestDriverClient};
pub use lab::{ExporterProcess, Lab};
pub use peer::Peer;
pub use taker::{Taker, TakerBlocking, TakerClient, Took};
