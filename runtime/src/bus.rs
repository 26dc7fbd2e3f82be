//! The connection to the broker. Only here is `async_nats` named.

mod options;
