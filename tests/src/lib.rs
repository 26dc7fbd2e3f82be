//! Fixtures for the tests.

mod driver;
mod lab;
mod peer;

pub use driver::{Events, TestDriver, TestDriverClient};
pub use lab::{ExporterProcess, Lab, SWITCHED_OFF_AND_ON};
pub use peer::Peer;
