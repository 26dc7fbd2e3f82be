//! Adapters, over the bus.

mod forward;
#[cfg(feature = "ssh")]
mod ssh;
