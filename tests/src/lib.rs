//! Fixtures for the tests.

mod brake;
mod deployment;
mod driver;
mod lab;
mod peer;
mod taker;

pub use brake::Brake;
pub use deployment::{Deployment, Leaf, settled};
pub use driver::{Events, TestDriver, TestDriverClient};
pub use lab::{ExporterProcess, Lab};
pub use peer::{Peer, bare_call};
pub use taker::{Taker, TakerBlocking, TakerClient, Took};
