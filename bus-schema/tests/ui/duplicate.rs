//! Two operations with one name, of which one would never be called.

use bus_schema::{Fault, driver, interface};

#[interface]
trait Twice {
    async fn read(&self) -> u32;
    #[method(name = "read")]
    async fn read_again(&self) -> u32;
}

#[interface]
trait Power {
    async fn on(&self) -> Result<(), Fault>;
}

struct Relay;

impl Power for Relay {
    async fn on(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[driver(Power)]
impl Relay {
    #[export]
    #[method(name = "on")]
    async fn switch_on(&self) -> Result<(), Fault> {
        Ok(())
    }
}

fn main() {}
