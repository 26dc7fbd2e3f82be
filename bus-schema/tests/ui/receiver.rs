//! Several operations run at once, so none has the driver for itself.

use bus_schema::{driver, interface};

#[interface]
trait Power {
    async fn on(&mut self);
    async fn off(self);
    async fn list() -> Vec<String>;
}

struct Relay;

#[driver]
impl Relay {
    #[export]
    async fn toggle(&mut self) {}
}

fn main() {}
