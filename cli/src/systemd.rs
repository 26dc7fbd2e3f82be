//! The service manager that started this program, if one did (systemd's sd_notify protocol).

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use tokio::time::interval;

use crate::args::variable;

/// A service manager that wants to hear how we are. Without one nothing is said to anybody.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub(crate) fn of_environment() -> Self {
        let address = variable("NOTIFY_SOCKET").and_then(|name| address(&name).ok());
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let usec = variable("WATCHDOG_USEC").and_then(|usec| usec.parse().ok());
        let pid = variable("WATCHDOG_PID").and_then(|pid| pid.parse().ok());
        let ours = pid.is_none_or(|pid: u32| pid == std::process::id());
        let watchdog = usec.filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// The service is up.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// It is on its way down.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=making devices safe");
    }

    /// Says that it is alive, twice as often as it must, for as long as this is polled: a program
    /// that stands still says nothing, and is restarted. Never resolves.
    pub(crate) async fn stay_alive(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut tick = interval(watchdog / 2);
        loop {
            tick.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager does not hear");
        }
    }
}

/// A path, or a name in Linux's abstract space behind an `@`.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
