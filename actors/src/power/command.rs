//! A power switch that is a set of commands: whatever has a command-line tool has a driver.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bus_schema::{Describe, Fault, driver};
use runtime::{Context, Items};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{Power, PowerInterface, PowerReading, READ_EVERY_MIN, pause, read_every};
use crate::process;

/// A power switch that runs configured commands on the exporter's host.
#[derive(Debug)]
pub struct CommandPower {
    config: CommandPowerConfig,
}

/// The configuration of a [`CommandPower`]. A command is a list of words; no shell reads it.
#[derive(Clone, Debug, Deserialize, Describe)]
pub struct CommandPowerConfig {
    /// Switches the device on: program and arguments.
    pub on: Vec<String>,
    /// Switches the device off: program and arguments.
    pub off: Vec<String>,
    /// Switches the device off and on again; it gets the time between, in seconds, as its last
    /// argument. Without it, `off` and `on` are run.
    #[serde(default)]
    pub cycle: Option<Vec<String>>,
    /// Prints a reading: {"voltage": 5.0, "current": 0.2}, or two numbers.
    #[serde(default)]
    pub read: Option<Vec<String>>,
    /// How often `read` runs its command.
    #[serde(default = "read_every")]
    pub read_every: Duration,
    /// How long each command may take. A cycle has the time between in addition.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// Directory that the commands run in.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Variables for the commands' environment, in addition to that of the exporter.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

fn timeout() -> Duration {
    Duration::from_secs(20)
}

impl CommandPower {
    /// One that runs these commands.
    ///
    /// # Errors
    ///
    /// A fault if one of the commands is an empty list.
    pub fn new(config: CommandPowerConfig) -> Result<Self, Fault> {
        let CommandPowerConfig { on, off, cycle, read, .. } = &config;
        for words in [Some(on), Some(off), cycle.as_ref(), read.as_ref()].into_iter().flatten() {
            process::command(words)?;
        }
        Ok(Self { config })
    }

    async fn run(&self, words: &[String], limit: Duration) -> Result<Vec<u8>, Fault> {
        let mut command = process::command(words)?;
        command.envs(&self.config.env);
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        process::run(words, command, limit).await
    }
}

impl Power for CommandPower {
    async fn on(&self) -> Result<(), Fault> {
        self.run(&self.config.on, self.config.timeout).await.map(drop)
    }

    async fn off(&self) -> Result<(), Fault> {
        self.run(&self.config.off, self.config.timeout).await.map(drop)
    }

    async fn cycle(&self, cx: &Context, wait: Duration) -> Result<(), Fault> {
        let Some(words) = &self.config.cycle else {
            self.off().await?;
            pause(cx, wait).await?;
            return self.on().await;
        };
        let mut words = words.clone();
        words.push(wait.as_secs_f64().to_string());
        self.run(&words, self.config.timeout.saturating_add(wait)).await.map(drop)
    }

    async fn read(&self, cx: &Context, items: Items<PowerReading>) -> Result<(), Fault> {
        let Some(words) = &self.config.read else {
            return Err(Fault::unsupported("no \"read\" command is configured for this driver"));
        };
        let mut tick = interval(self.config.read_every.max(READ_EVERY_MIN));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cx.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            let out = {
                let _turn = cx.turn().await;
                self.run(words, self.config.timeout).await?
            };
            items.send(reading(&out)?).await?;
        }
    }
}

#[driver(Power, name = "command-power")]
impl CommandPower {
    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.off().await
    }
}

/// Reads what a `read` command printed.
fn reading(out: &[u8]) -> Result<PowerReading, Fault> {
    let text = String::from_utf8_lossy(out);
    let text = text.trim();
    let parsed = match text.starts_with('{') {
        true => serde_json::from_str(text).ok(),
        false => two_numbers(text),
    };
    parsed.ok_or_else(|| {
        let start: String = text.chars().take(200).collect();
        let want = r#"{"voltage": 5.0, "current": 0.2} or two numbers"#;
        Fault::device(format_args!("the \"read\" command is to print {want}; it printed {start:?}"))
    })
}

fn two_numbers(text: &str) -> Option<PowerReading> {
    let mut numbers = text.split([' ', '\t', '\n', '\r', ',', ';']).filter(|word| !word.is_empty());
    let (voltage, current) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    numbers.next().is_none().then_some(PowerReading { voltage, current })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_json_or_two_numbers() {
        let wanted = PowerReading { voltage: 5.0, current: 0.25 };
        for text in ["5 0.25\n", "5.0, .25", "{\"voltage\": 5, \"current\": 0.25}\n", "5\n0.25"] {
            assert_eq!(reading(text.as_bytes()), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_reading_is_quoted_with_what_would_be_right() {
        for text in ["", "5", "5 1 2", "5 amps", "{\"voltage\": 5}", "\u{0}\u{fffd}"] {
            let fault = reading(text.as_bytes()).unwrap_err();
            assert!(fault.text.contains("two numbers"), "{fault}");
            assert!(fault.text.ends_with(&format!("it printed {text:?}")), "{fault}");
        }
    }
}
