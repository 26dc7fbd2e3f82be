//! What every console does, whatever is behind it: a serial port, or a virtual machine.

use std::time::SystemTime;

use bus_schema::{Describe, Fault, interface};
use bytes::Bytes;
use runtime::{ByteStream, Context, Items};
use serde::{Deserialize, Serialize};

mod archive;
mod current;
mod follower;
mod line;
mod log;
mod port;
mod ring;
mod writer;

pub(crate) use current::{Current, CurrentOpener, LineEnd};
pub(crate) use line::{Line, Moved, Opener, Order, move_bytes};
pub(crate) use port::Port;

/// Bytes that a console said, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Captured {
    /// Their place in everything that the console has said: since the exporter started, or since
    /// there is a capture file.
    pub at: u64,
    /// When the first of them came.
    pub time: SystemTime,
    /// The bytes.
    pub data: Bytes,
    /// What happened to the device here, instead of bytes.
    #[serde(default)]
    pub note: Option<String>,
}

/// What is kept of what a console has said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct CaptureInfo {
    /// The first byte that is still kept.
    pub start: u64,
    /// One past the last byte so far.
    pub end: u64,
    /// Bytes from the first to the last; fewer are kept only if a disk was full.
    pub bytes: u64,
    /// The file that they are written to on the exporter's host, if there is one.
    pub file: Option<String>,
    /// Why the file is not written now, if it is not. It is tried again every second.
    #[serde(default)]
    pub file_error: Option<String>,
}

/// How a console keeps what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureConfig {
    /// Bytes that are kept in memory: 1 MiB unless given.
    pub memory: u64,
    /// A file on the exporter's host that gets everything too, so that it can be asked for when it
    /// has left memory, and after a restart of the exporter. A file with `.times` behind its name
    /// says what came when.
    pub file: Option<String>,
    /// Bytes after which the file, with its times, begins anew, as the older one gets `.1` behind
    /// its name: 64 MiB unless given. So twice as much is kept at most.
    pub file_max: u64,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self { memory: 1 << 20, file: None, file_max: 64 << 20 }
    }
}

impl CaptureConfig {
    /// Least and most memory for one console.
    const MEMORY: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

    /// Whether the numbers make sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !Self::MEMORY.contains(&self.memory) {
            let (min, max) = (Self::MEMORY.start(), Self::MEMORY.end());
            return Err(format!("capture.memory is {} bytes, not {min} to {max}", self.memory));
        }
        if self.file_max < *Self::MEMORY.start() {
            return Err(format!("capture.file_max is {} bytes, not 4096 or more", self.file_max));
        }
        Ok(())
    }
}

/// What people and tests read and write, byte by byte, and what it said before they came.
#[interface]
pub trait Console {
    /// Reads and writes. There is one writer at a time; a second is turned away, unless it takes
    /// the console over by force.
    async fn connect(
        &self,
        cx: &Context,
        /// Whether the present writer is cut off.
        #[default(false)]
        force: bool,
        stream: ByteStream,
    ) -> Result<(), Fault>;

    /// Reads along. A watcher never slows the console down: one that is too slow for it finds
    /// `[n bytes lost]` in the place of what it missed, and finds notes in brackets where the device
    /// went or came back.
    #[method(observe)]
    async fn watch(
        &self,
        cx: &Context,
        /// The place to begin at; without one, whatever comes from now on.
        #[default(None)]
        from: Option<u64>,
        stream: ByteStream,
    ) -> Result<(), Fault>;

    /// What the console said, with times. Where a place does not follow on the one before, the
    /// bytes between are no longer kept.
    #[method(observe)]
    async fn capture(
        &self,
        cx: &Context,
        /// The place to begin at.
        #[default(0)]
        from: u64,
        /// Whether to go on with what comes.
        #[default(false)]
        follow: bool,
        items: Items<Captured>,
    ) -> Result<(), Fault>;

    /// How far the capture reaches.
    #[method(concurrent, observe)]
    async fn capture_info(&self) -> CaptureInfo;
}

/// Every driver that owns a port has the same console.
pub(crate) trait HasPort: Send + Sync + 'static {
    fn port(&self) -> &Port;
}

impl<D: HasPort> Console for D {
    async fn connect(&self, cx: &Context, force: bool, stream: ByteStream) -> Result<(), Fault> {
        while_wanted(cx, self.port().connect(cx.caller(), force, stream)).await
    }

    async fn watch(
        &self,
        cx: &Context,
        from: Option<u64>,
        stream: ByteStream,
    ) -> Result<(), Fault> {
        while_wanted(cx, self.port().watch(from, stream)).await
    }

    async fn capture(
        &self,
        cx: &Context,
        from: u64,
        follow: bool,
        items: Items<Captured>,
    ) -> Result<(), Fault> {
        while_wanted(cx, self.port().capture(from, follow, items)).await
    }

    async fn capture_info(&self) -> CaptureInfo {
        self.port().capture_info()
    }
}

/// A console may be silent for days: nothing else would tell that its reader has left.
async fn while_wanted(
    cx: &Context,
    work: impl Future<Output = Result<(), Fault>>,
) -> Result<(), Fault> {
    tokio::select! {
        biased;
        () = cx.cancelled() => Ok(()),
        ended = work => ended,
    }
}
