//! A serial port of the exporter's host.

use std::{sync::Arc, time::Duration};

use bus_schema::{Describe, Fault, Interface, Value, driver};
use runtime::{BuildError, Context, DriverKind, Kind, Node, Site};
use serde::{Deserialize, Serialize};

use crate::{
    CaptureConfig, ConsoleInterface,
    console::{HasPort, Order, Port},
};

mod find;
mod line;

use line::SerialOpener;

/// Longest break that can be asked for.
const BREAK_MAX: Duration = Duration::from_secs(5);
/// Rates that can be asked for: from a teletype's to what USB 2.0 carries.
const BAUD: std::ops::RangeInclusive<u32> = 50..=12_000_000;
/// Characters per second that can be asked for.
const CPS: std::ops::RangeInclusive<f64> = 0.1..=1_000_000.0;

/// Which port, and how it is set.
///
/// The names of Jumpstarter's `PySerial` mean the same here. Of pyserial's URLs there are device
/// paths, `loop://` and `socket://`.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct SerialConfig {
    /// The device: `/dev/ttyUSB0`, `/dev/serial/by-id/…`; `loop://` hears itself, and
    /// `socket://host:port` is a serial port behind TCP.
    pub url: Option<String>,
    /// Instead of `url`: the serial number of the USB adapter.
    pub usb_serial: Option<String>,
    /// Which of the adapter's ports, where it has several: its USB interface number.
    pub usb_interface: Option<u16>,
    /// Bits per second: 115200 unless given.
    pub baudrate: u32,
    /// Bits of a character: `eight` unless given.
    pub data_bits: DataBits,
    /// The parity bit: `none` unless given.
    pub parity: Parity,
    /// Stop bits: `one` unless given.
    pub stop_bits: StopBits,
    /// Who says when to stop sending: `none` unless given.
    pub flow_control: FlowControl,
    /// Whether it is an error if the port is not there when the exporter starts. (Later it is
    /// waited for in any case.)
    pub check_present: bool,
    /// Characters written per second, for a device that cannot take them as fast as the line
    /// carries them. As fast as that unless given.
    pub cps: Option<f64>,
    /// Whether the line DTR stays as it is when the exporter lets the port go: many boards are
    /// reset by it.
    pub disable_hupcl: bool,
    /// What is kept of what the port says.
    pub capture: CaptureConfig,
}

impl Default for SerialConfig {
    fn default() -> Self {
        Self {
            url: None,
            usb_serial: None,
            usb_interface: None,
            baudrate: 115_200,
            data_bits: DataBits::Eight,
            parity: Parity::None,
            stop_bits: StopBits::One,
            flow_control: FlowControl::None,
            check_present: true,
            cps: None,
            disable_hupcl: false,
            capture: CaptureConfig::default(),
        }
    }
}

/// Bits of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum DataBits {
    /// Five bits.
    Five,
    /// Six bits.
    Six,
    /// Seven bits.
    Seven,
    /// Eight bits.
    Eight,
}

/// The parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum Parity {
    /// There is none.
    None,
    /// It makes the number of ones odd.
    Odd,
    /// It makes the number of ones even.
    Even,
}

/// Stop bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum StopBits {
    /// One.
    One,
    /// Two.
    Two,
}

/// Who says when to stop sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum FlowControl {
    /// Nobody.
    None,
    /// The characters XON and XOFF.
    Software,
    /// The lines RTS and CTS.
    Hardware,
}

/// How a port is set now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct LineSettings {
    /// The port.
    pub port: String,
    /// Bits per second.
    pub baudrate: u32,
    /// Bits of a character.
    pub data_bits: DataBits,
    /// The parity bit.
    pub parity: Parity,
    /// Stop bits.
    pub stop_bits: StopBits,
    /// Who says when to stop sending.
    pub flow_control: FlowControl,
}

/// The driver of a serial port.
#[derive(Debug)]
pub struct Serial {
    port: Port,
    settings: tokio::sync::Mutex<LineSettings>,
}

impl Serial {
    /// Opens the port.
    ///
    /// # Errors
    ///
    /// A configuration that names no port, or a port that is not there and has to be.
    pub async fn start(config: SerialConfig) -> Result<Self, Fault> {
        config.check().map_err(Fault::argument)?;
        let settings = config.settings();
        let opener = SerialOpener::new(&config);
        let must_be_there = config.check_present;
        let port = Port::paced(opener, must_be_there, &config.capture, config.pace()).await?;
        Ok(Self { port, settings: tokio::sync::Mutex::new(settings) })
    }
}

impl SerialConfig {
    /// Whether it names one port, in a way that can be.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.capture.check()?;
        check_baud(self.baudrate)?;
        if let Some(cps) = self.cps.filter(|cps| !CPS.contains(cps)) {
            let (min, max) = (CPS.start(), CPS.end());
            return Err(format!("cps is {cps}, not {min} to {max} characters per second"));
        }
        match (&self.url, &self.usb_serial) {
            (Some(url), None) => line::check_url(url)?,
            (None, Some(_)) => return Ok(()),
            _ => return Err("give either url or usb_serial".to_owned()),
        }
        match self.usb_interface {
            Some(_) => Err("usb_interface goes with usb_serial".to_owned()),
            None => Ok(()),
        }
    }

    /// The time that each character has.
    fn pace(&self) -> Option<Duration> {
        self.cps.map(|cps| Duration::from_secs_f64(cps.recip()))
    }

    fn settings(&self) -> LineSettings {
        let usb = self.usb_serial.as_ref().map(|serial| format!("USB serial number {serial}"));
        LineSettings {
            port: self.url.clone().or(usb).unwrap_or_default(),
            baudrate: self.baudrate,
            data_bits: self.data_bits,
            parity: self.parity,
            stop_bits: self.stop_bits,
            flow_control: self.flow_control,
        }
    }
}

fn check_baud(rate: u32) -> Result<(), String> {
    match BAUD.contains(&rate) {
        true => Ok(()),
        false => Err(format!("a rate of {rate} is not one of {} to {}", BAUD.start(), BAUD.end())),
    }
}

impl DriverKind for Serial {
    const KIND: &'static str = "serial";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_pyserial.driver.PySerial"];
    const HELP: &'static str = "A serial port: one writer, any number of watchers, and a capture.";

    type Config = SerialConfig;

    async fn open(config: SerialConfig, _site: Site) -> Result<Self, Fault> {
        Self::start(config).await
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![ConsoleInterface::describe(), SerialInterface::describe()]
    }
}

impl Serial {
    /// The kind of driver that a configuration calls `serial`.
    pub fn kind() -> Kind {
        Kind { build, ..Kind::of::<Self>() }
    }
}

/// What can be seen to be wrong in the file is told before the port is opened.
fn build(value: Value, site: &Site) -> Result<Node, BuildError> {
    let json = serde_json::to_value(&value).map_err(BuildError::new)?;
    let config: SerialConfig = serde_json::from_value(json).map_err(BuildError::new)?;
    config.check().map_err(BuildError::new)?;
    (Kind::of::<Serial>().build)(value, site)
}

impl HasPort for Serial {
    fn port(&self) -> &Port {
        &self.port
    }
}

/// What a serial port can beside being a console.
#[driver(Console, name = "serial")]
impl Serial {
    /// Sets the line DTR.
    #[export]
    async fn set_dtr(&self, value: bool) -> Result<(), Fault> {
        self.port.order(Order::Dtr(value)).await
    }

    /// Sets the line RTS.
    #[export]
    async fn set_rts(&self, value: bool) -> Result<(), Fault> {
        self.port.order(Order::Rts(value)).await
    }

    /// Sends a break, at most 5 s long.
    #[export]
    async fn send_break(
        &self,
        /// How long.
        #[default(Duration::from_millis(250))]
        duration: Duration,
    ) -> Result<(), Fault> {
        if duration > BREAK_MAX {
            let text = format!("a break of {duration:?} is longer than {BREAK_MAX:?}");
            return Err(Fault::argument(text));
        }
        self.port.order(Order::BreakFor(duration)).await
    }

    /// Changes the rate, until the exporter restarts.
    #[export]
    async fn set_baudrate(&self, baudrate: u32) -> Result<(), Fault> {
        check_baud(baudrate).map_err(Fault::argument)?;
        let mut settings = self.settings.lock().await;
        self.port.order(Order::Baud(baudrate)).await?;
        settings.baudrate = baudrate;
        Ok(())
    }

    /// Takes the console from whoever writes. The port itself stays open: it is captured always.
    #[export]
    #[method(concurrent)]
    async fn close(&self, cx: &Context) {
        self.port.cut_off(cx.caller());
    }

    /// How the port is set.
    #[export]
    #[method(concurrent, observe)]
    async fn settings(&self) -> LineSettings {
        self.settings.lock().await.clone()
    }
}
