//! Marks on a driver that would mean nothing, or two things.

use bus_schema::{Fault, driver, interface};

struct Relay;

#[driver]
impl Relay {
    #[method(concurrent)]
    async fn forgotten(&self) {}

    fn helper(&self, #[default(1)] _times: u32) {}

    #[safe]
    async fn dark(&self) -> Result<(), Fault> {
        Ok(())
    }
}

struct Mux;

#[driver(name = "USB Mux")]
impl Mux {}

struct Hub;

#[driver]
impl Hub {
    #[export]
    async fn pair(&self, (_a, _b): (u32, u32)) {}

    #[safe]
    async fn apart(&self, _port: u32) {}
}

struct Switch;

#[driver]
impl Switch {
    #[safe]
    async fn left(&self, _port: u32) {}
}

struct Lamp;

trait Light {}

#[driver]
impl Light for Lamp {}

#[interface(Power)]
trait Console {}

fn main() {}
