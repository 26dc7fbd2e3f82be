//! End-to-end tests against a real nats-server: one binary, one broker for all but those that
//! harm it.

mod by_hand;
mod calls;
mod events;
mod example;
mod flash;
mod forgery;
mod garbage;
mod lease_fight;
mod lease_state;
mod leases;
mod lend;
mod lend_overheard;
mod lend_storing;
mod lend_url;
mod logs;
mod open_calls;
mod outage;
mod record;
mod reload;
mod second_client;
mod streams;
mod tasks;
mod together;
