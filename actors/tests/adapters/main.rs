//! Adapters, over the bus.

mod forward;
