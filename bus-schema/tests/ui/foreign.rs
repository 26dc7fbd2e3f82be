//! Types that have a name we know, and are not the runtime's; and errors that are no faults.

use bus_schema::driver;

struct ByteStream;

struct Context;

struct Meter;

#[driver]
impl Meter {
    #[export]
    async fn connect(&self, pipe: ByteStream) {
        let _ = pipe;
    }

    #[export]
    async fn zero(&self, cx: &Context) {
        let _ = cx;
    }

    #[export]
    async fn read(&self) -> Result<u32, String> {
        Err("no".to_owned())
    }
}

fn main() {}
