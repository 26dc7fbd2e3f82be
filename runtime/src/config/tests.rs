use std::path::{Path as FilePath, PathBuf};

use super::{Config, ConfigErrors};

mod fake;
mod files;
mod garbage;
mod leases;
mod mistakes;
mod values;

use fake::kinds;

/// A file that uses everything.
const GOOD: &str = r#"apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {name: bench-1, labels: {rack: "3"}}
description: "My bench"
export:
  power:
    type: fake-power
    description: "Main rail"
    methods_description: {on: Energise the DUT, off: Cut power}
    labels: {board: rpi4}
    uuid: 00000000-0000-4000-8000-000000000001
    turn: relay-board
    config: {url: /dev/ttyUSB0, port: 7, delay: 1m30s, mode: on}
  dut:
    children:
      console: {type: fake-power, config: {url: x}}
      main_power: {ref: power}
      again: {ref: dut.main_power}
  ssh:
    type: fake-host
    children:
      tcp: {type: fake.driver.Power, config: {url: y}}
  vm: {type: fake-machine}
  vm_console: {ref: vm/console}
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "exporter.yaml", &kinds(), FilePath::new("/state"))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n---\n{text}"))
}

/// What is printed for a file with mistakes.
fn said(text: &str) -> String {
    match parse(text) {
        Ok(config) => panic!("no error: {config:?}\n---\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

/// The same, of a file whose `export` is `drivers` from line 3.
fn said_of(drivers: &str) -> String {
    said(&format!("metadata: {{name: b}}\nexport:\n{drivers}"))
}

/// The same, of one `fake-power` whose `config` begins in line 4 at column 12.
fn said_of_config(config: &str) -> String {
    said_of(&format!("  p: {{type: fake-power,\n   config: {config}}}\n"))
}

fn state() -> PathBuf {
    PathBuf::from("/state")
}
