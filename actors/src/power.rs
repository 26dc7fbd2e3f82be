//! The power of a device: the contract, and its backends.

use std::time::Duration;

use bus_schema::{Describe, Fault, FaultKind, interface};
use runtime::{Context, Items};
use serde::{Deserialize, Serialize};

pub(crate) mod command;
pub(crate) mod fake;
pub(crate) mod process;
pub(crate) mod terminal;

/// What the meter of a power supply shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, Describe)]
pub struct PowerReading {
    /// In volts.
    pub voltage: f64,
    /// In amperes.
    pub current: f64,
}

/// Switches the power of a device.
#[interface]
pub trait Power {
    /// Switches the device on. Does nothing to one that is on.
    async fn on(&self) -> Result<(), Fault>;

    /// Switches the device off. Does nothing to one that is off.
    async fn off(&self) -> Result<(), Fault>;

    /// Switches the device off, waits, and switches it on again.
    #[method(deadline = "10m")]
    async fn cycle(
        &self,
        cx: &Context,
        /// How long it stays off.
        #[default(Duration::from_secs(2))]
        wait: Duration,
    ) -> Result<(), Fault> {
        self.off().await?;
        pause(cx, wait).await?;
        self.on().await
    }

    /// Reads the meter: once at once, and then again and again until the caller has enough.
    #[method(observe)]
    async fn read(&self, cx: &Context, items: Items<PowerReading>) -> Result<(), Fault>;
}

/// Waits, and gives up when the caller does.
async fn pause(cx: &Context, wait: Duration) -> Result<(), Fault> {
    tokio::select! {
        biased;
        () = cx.cancelled() => {
            Err(Fault::new(FaultKind::Cancelled, "cancelled while the device was off: it stays off"))
        }
        () = tokio::time::sleep(wait) => Ok(()),
    }
}

/// How often a meter is read, unless configured otherwise.
fn read_every() -> Duration {
    Duration::from_secs(1)
}

/// The shortest interval of readings: a meter that is asked without a pause is all its host does.
const READ_EVERY_MIN: Duration = Duration::from_millis(1);
