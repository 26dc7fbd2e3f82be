//! What jmp-bus does to a device.

#![deny(missing_docs)]

mod console;
mod serial;

pub use console::{
    CaptureConfig, CaptureInfo, Captured, Console, ConsoleBlocking, ConsoleClient,
    ConsoleInterface,
};
pub use serial::{
    DataBits, FlowControl, LineSettings, Parity, Serial, SerialBlocking, SerialClient,
    SerialConfig, StopBits,
};
