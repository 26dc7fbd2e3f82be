//! What the macros make of interfaces and drivers, on a host without NATS and without tokio.

#[path = "support/host.rs"]
mod host;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ThreadId},
    time::Duration,
};

use bus_schema::{Describe, Fault, driver, interface};
use host::{ByteStream, Context, Direct, Items, block_on};
use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
pub(crate) struct Reading {
    /// In volts.
    pub(crate) volts: f64,
}

/// Switches the power of a device.
///
/// This is told in the documentation only.
#[interface]
pub(crate) trait Power {
    /// Connects the device.
    async fn on(&self) -> Result<(), Fault>;

    /// Disconnects the device.
    async fn off(&self) -> Result<(), Fault>;

    /// Disconnects the device
    /// for a while.
    #[method(uncancellable, deadline = "10m")]
    async fn cycle(
        &self,
        /// How long it stays off.
        #[default(Duration::from_secs(2))]
        wait: Duration,
    ) -> Result<Duration, Fault> {
        self.off().await?;
        self.on().await?;
        Ok(wait)
    }

    /// Reads the meter.
    async fn read(&self, cx: &Context, count: u32, items: Items<Reading>) -> Result<(), Fault>;
}

/// Talks to a device.
#[interface(name = "serial-console", version = 3)]
pub(crate) trait Console {
    /// Opens the port.
    async fn connect(&self, cx: Context, greeting: String, pipe: ByteStream);

    /// The rate of the port.
    #[method(concurrent, name = "baud")]
    fn rate(&self) -> u32;

    /// Answered by `Power` where a driver lists that first.
    async fn off(&self) -> Result<(), std::io::Error> {
        Err(std::io::ErrorKind::TimedOut.into())
    }
}

struct Bench {
    on: AtomicBool,
    made_on: ThreadId,
}

impl Bench {
    fn new() -> Self {
        Self { on: AtomicBool::new(false), made_on: thread::current().id() }
    }
}

impl Power for Bench {
    async fn on(&self) -> Result<(), Fault> {
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn off(&self) -> Result<(), Fault> {
        self.on.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn read(&self, cx: &Context, count: u32, items: Items<Reading>) -> Result<(), Fault> {
        assert_eq!(cx.client, "alice");
        for at in 0..count {
            items.send(Reading { volts: f64::from(at) }).await?;
        }
        Ok(())
    }
}

impl Console for Bench {
    async fn connect(&self, cx: Context, greeting: String, mut pipe: ByteStream) {
        pipe.write(greeting.as_bytes()).await;
        pipe.write(cx.client.as_bytes()).await;
    }

    fn rate(&self) -> u32 {
        assert_ne!(thread::current().id(), self.made_on, "blocking code runs where it may block");
        115_200
    }
}

/// What only this bench can.
#[driver(Power, Console)]
impl Bench {
    /// Says it again.
    #[export]
    async fn echo(&self, text: String, #[default(1)] times: u16) -> String {
        self.repeat(&text, times)
    }

    #[export]
    #[method(concurrent)]
    fn is_on(&self) -> Result<bool, Fault> {
        Ok(self.on.load(Ordering::Relaxed))
    }

    /// Whoever leaves, leaves it dark.
    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.off_now();
        Ok(())
    }

    fn off_now(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn repeat(&self, text: &str, times: u16) -> String {
        text.repeat(times.into())
    }
}

#[test]
fn a_typed_client_reaches_the_method_of_its_name() {
    let bench = Direct::new(Bench::new());
    let power = PowerClient::new(bench.clone());
    let own = BenchBlocking::new(bench);
    block_on(power.on()).unwrap();
    assert!(own.is_on().unwrap());
    block_on(power.off()).unwrap();
    assert!(!own.is_on().unwrap());
    assert_eq!(own.echo("ab".to_owned(), 2).unwrap(), "abab");
}
