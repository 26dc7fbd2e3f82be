//! The open port, and what it is instead in a test or behind TCP.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use bus_schema::Fault;
use rustix::{
    fs::{Mode, OFlags},
    termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr},
};
use tokio::{io::SimplexStream, net::TcpStream, time::timeout};
use tokio_serial::{SerialPort as _, SerialPortBuilderExt as _, SerialStream};

use super::{DataBits, FlowControl, Parity, SerialConfig, StopBits, find};
use crate::console::{Line, Moved, Opener, Order, move_bytes};

/// Bytes on their way round `loop://`.
const LOOP_BYTES_MAX: usize = 64 << 10;
/// How long a serial port behind TCP has to be there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Opens the port of a configuration.
pub(super) struct SerialOpener {
    config: SerialConfig,
}

/// What is open.
pub(super) enum SerialLine {
    Port(SerialStream),
    Loop(SimplexStream),
    Tcp(TcpStream),
}

/// Whether a port can be reached by this.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    match url.split_once("://") {
        None if url.starts_with('/') => Ok(()),
        Some(("loop", "")) => Ok(()),
        Some(("socket", address)) if address.rsplit_once(':').is_some() => Ok(()),
        Some(("rfc2217", address)) => Err(format!(
            "{url:?}: a port's settings cannot be changed over the network yet; \
             socket://{address} carries its bytes, if the server sets the port"
        )),
        _ => Err(format!("{url:?} is no device path, loop:// or socket://host:port")),
    }
}

impl SerialOpener {
    pub(super) fn new(config: &SerialConfig) -> Self {
        Self { config: config.clone() }
    }

    fn open_device(&self, path: &Path) -> io::Result<SerialStream> {
        let config = &self.config;
        let data_bits = match config.data_bits {
            DataBits::Five => tokio_serial::DataBits::Five,
            DataBits::Six => tokio_serial::DataBits::Six,
            DataBits::Seven => tokio_serial::DataBits::Seven,
            DataBits::Eight => tokio_serial::DataBits::Eight,
        };
        let parity = match config.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Odd => tokio_serial::Parity::Odd,
            Parity::Even => tokio_serial::Parity::Even,
        };
        let stop_bits = match config.stop_bits {
            StopBits::One => tokio_serial::StopBits::One,
            StopBits::Two => tokio_serial::StopBits::Two,
        };
        let flow_control = match config.flow_control {
            FlowControl::None => tokio_serial::FlowControl::None,
            FlowControl::Software => tokio_serial::FlowControl::Software,
            FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
        };
        // The port is opened for nobody else after this.
        let own = config.disable_hupcl.then(|| open_beside(path)).transpose()?;
        let opened = tokio_serial::new(path.to_string_lossy(), config.baudrate)
            .data_bits(data_bits)
            .parity(parity)
            .stop_bits(stop_bits)
            .flow_control(flow_control)
            .open_native_async()
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        own.map_or(Ok(()), |own| keep_dtr(&own))?;
        Ok(opened)
    }
}

/// The terminal once more: its settings are the device's, whoever makes them.
fn open_beside(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Has the line DTR left alone when the port is let go.
fn keep_dtr(port: &OwnedFd) -> io::Result<()> {
    let mut settings = tcgetattr(port)?;
    settings.control_modes -= ControlModes::HUPCL;
    Ok(tcsetattr(port, OptionalActions::Now, &settings)?)
}

impl Opener for SerialOpener {
    type Line = SerialLine;

    async fn open(&mut self) -> io::Result<SerialLine> {
        let url = match (&self.config.url, &self.config.usb_serial) {
            (Some(url), _) => url.clone(),
            (None, serial) => {
                let serial = serial.as_deref().unwrap_or_default();
                let class = Path::new("/sys/class/tty");
                let path = find::by_usb_serial(class, serial, self.config.usb_interface)?;
                return self.open_device(&path).map(SerialLine::Port);
            }
        };
        match url.split_once("://") {
            Some(("loop", _)) => Ok(SerialLine::Loop(SimplexStream::new_unsplit(LOOP_BYTES_MAX))),
            Some((_, address)) => {
                let tcp = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await??;
                tcp.set_nodelay(true)?;
                Ok(SerialLine::Tcp(tcp))
            }
            None => self.open_device(Path::new(&url)).map(SerialLine::Port),
        }
    }

    fn remember(&mut self, order: Order) {
        if let Order::Baud(rate) = order {
            self.config.baudrate = rate;
        }
    }
}

impl Line for SerialLine {
    async fn transfer(&mut self, buf: &mut [u8], out: &[u8]) -> io::Result<Moved> {
        match self {
            Self::Port(port) => move_bytes(port, buf, out).await,
            Self::Loop(pipe) => move_bytes(pipe, buf, out).await,
            Self::Tcp(tcp) => move_bytes(tcp, buf, out).await,
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Fault> {
        let port = match self {
            Self::Port(port) => port,
            Self::Loop(_) => return Ok(()), // as in pyserial
            Self::Tcp(_) => {
                return Err(Fault::unsupported("a port behind plain TCP has bytes and no lines"));
            }
        };
        let (what, result) = match order {
            Order::Dtr(on) => ("line DTR", port.write_data_terminal_ready(on)),
            Order::Rts(on) => ("line RTS", port.write_request_to_send(on)),
            Order::Break(true) | Order::BreakFor(_) => ("break", port.set_break()),
            Order::Break(false) => ("break", port.clear_break()),
            Order::Baud(rate) => ("changeable rate", port.set_baud_rate(rate)),
        };
        result.map_err(|error| {
            let error = io::Error::from(error);
            match lacks(&error) {
                true => Fault::unsupported(format_args!("this port has no {what}: {error}")),
                false => Fault::from(error),
            }
        })
    }
}

/// Whether the error says that the device is of a kind that cannot do it: a pseudo-terminal has
/// no modem lines (`ENOTTY`, whose text is all that is left of it here).
fn lacks(error: &io::Error) -> bool {
    let text = error.to_string();
    text.contains("Not a typewriter") || text.contains("Inappropriate ioctl")
}
