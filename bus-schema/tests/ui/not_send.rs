//! Operations are tasks, which move between threads.

use std::rc::Rc;

use bus_schema::{Fault, driver, interface};

#[interface]
trait Power {
    async fn on(&self) -> Result<(), Fault>;
}

struct Relay;

impl Power for Relay {
    async fn on(&self) -> Result<(), Fault> {
        let held = Rc::new(());
        std::future::ready(()).await;
        drop(held);
        Ok(())
    }
}

#[driver(Power)]
impl Relay {
    #[export]
    async fn toggle(&self) -> Result<(), Fault> {
        let held = Rc::new(());
        std::future::ready(()).await;
        drop(held);
        Ok(())
    }
}

fn main() {}
