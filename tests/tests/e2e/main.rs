//! End-to-end tests against a real nats-server: one binary, one broker for all but those that
//! harm it.

mod example;
mod open_calls;
mod record;
