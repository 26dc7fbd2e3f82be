//! Adapters, over the bus.

mod forward;
#[cfg(feature = "vnc")]
mod novnc;
#[cfg(feature = "ssh")]
mod ssh;
