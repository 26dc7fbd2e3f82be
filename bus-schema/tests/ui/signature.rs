//! Signatures that cannot be told to a caller who knows no Rust.

use bus_schema::{Fault, interface};

#[interface]
trait Generic<T> {
    async fn get(&self) -> Result<(), Fault>;
}

#[interface]
trait Storage {
    async fn write<T: Send>(&self, value: T);
    async fn name(&self, text: &str);
    async fn label(&self) -> &str;
    async fn late(&self, text: String, cx: Context);
    async fn early(&self, items: Items<u32>, text: String);
    #[method(deadline = "10 minutes")]
    async fn flash(&self);
    #[method(exclusive)]
    async fn erase(&self);
    async fn new(&self);
    #[cfg(unix)]
    async fn sync(&self);
}

fn main() {}
