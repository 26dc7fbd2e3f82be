//! Fixtures for the tests.

mod deployment;
mod driver;
mod lab;
mod peer;
mod taker;

pub use deployment::{Deployment, Leaf, settled};
pub use driver::{Events, TestDriver, TestDriverClient};
pub use lab::{ExporterProcess, Lab};
pub use peer::{Peer, bare_call};
pub use taker::{Taker, TakerBlocking, TakerClient, Took};
