//! Arguments travel in order, so only the last ones can be left out.

use bus_schema::{Fault, interface};

#[interface]
trait Power {
    async fn cycle(&self, #[default(2)] wait_s: u32, times: u32) -> Result<(), Fault>;
}

fn main() {}
