//! A power switch that switches nothing and remembers what it was told.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bus_schema::{Describe, Fault, driver};
use runtime::{Context, Items};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::interval};

use super::{Power, PowerInterface, PowerReading, READ_EVERY_MIN, read_every};

/// Most events that are remembered; the oldest are forgotten first.
const EVENTS_MAX: usize = 10_000;

/// A power switch for tests: it records what it is told.
#[derive(Debug)]
pub struct FakePower {
    config: FakePowerConfig,
    events: Mutex<VecDeque<PowerEvent>>,
    is_on: watch::Sender<bool>,
}

/// The configuration of a [`FakePower`].
#[derive(Clone, Debug, Deserialize, Describe)]
#[serde(default)]
pub struct FakePowerConfig {
    /// What the meter shows while the device is on, in volts.
    pub voltage: f64,
    /// What the meter shows while the device is on, in amperes.
    pub current: f64,
    /// How often `read` reads the meter.
    pub read_every: Duration,
}

impl Default for FakePowerConfig {
    fn default() -> Self {
        Self { voltage: 5.0, current: 0.5, read_every: read_every() }
    }
}

/// Something that a [`FakePower`] was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
pub struct PowerEvent {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: PowerSwitch,
}

/// What a power switch can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum PowerSwitch {
    /// Switch on.
    On,
    /// Switch off.
    Off,
    /// Make the device safe, which is off.
    Safe,
}

impl FakePower {
    /// One that is off.
    pub fn new(config: FakePowerConfig) -> Self {
        let is_on = watch::Sender::new(false);
        Self { config, events: Mutex::default(), is_on }
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<PowerEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn switch(&self, what: PowerSwitch) {
        let mut events = self.events();
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(PowerEvent { at: SystemTime::now(), what });
        drop(events);
        self.is_on.send_replace(what == PowerSwitch::On);
    }
}

impl Default for FakePower {
    fn default() -> Self {
        Self::new(FakePowerConfig::default())
    }
}

impl Power for FakePower {
    async fn on(&self) -> Result<(), Fault> {
        self.switch(PowerSwitch::On);
        Ok(())
    }

    async fn off(&self) -> Result<(), Fault> {
        self.switch(PowerSwitch::Off);
        Ok(())
    }

    async fn read(&self, cx: &Context, items: Items<PowerReading>) -> Result<(), Fault> {
        let mut is_on = self.is_on.subscribe();
        let mut tick = interval(self.config.read_every.max(READ_EVERY_MIN));
        tick.tick().await;
        loop {
            let reading = match *is_on.borrow_and_update() {
                true => PowerReading { voltage: self.config.voltage, current: self.config.current },
                false => PowerReading { voltage: 0.0, current: 0.0 },
            };
            items.send(reading).await?;
            tokio::select! {
                biased;
                () = cx.cancelled() => return Ok(()),
                _ = is_on.changed() => {} // the sender lives as long as the driver
                _ = tick.tick() => {}
            }
        }
    }
}

#[driver(Power, name = "fake-power")]
impl FakePower {
    /// What it was told, oldest first.
    #[export]
    #[method(concurrent)]
    async fn history(&self) -> Vec<PowerEvent> {
        self.events().iter().cloned().collect()
    }

    /// Forgets what it was told.
    #[export]
    async fn forget(&self) {
        self.events().clear();
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.switch(PowerSwitch::Safe);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_events_are_remembered() {
        let power = FakePower::default();
        power.on().await.unwrap();
        for _ in 0..EVENTS_MAX {
            power.off().await.unwrap();
        }
        let events = power.history().await;
        assert_eq!(events.len(), EVENTS_MAX);
        assert!(events.iter().all(|event| event.what == PowerSwitch::Off));
    }
}
