//! A service that the exporter's host can reach: the contract, and its backends.

use std::{fmt, io, time::Duration};

use bus_schema::{Fault, interface, limits::CHUNK_BYTES_MAX};
use runtime::{ByteStream, Context};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    time::timeout,
};

pub(crate) mod echo;
pub(crate) mod ssh;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod unix;

/// Connects to a service.
#[interface]
pub trait Network {
    /// Opens a connection. Each stream has one of its own.
    async fn connect(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault>;

    /// The service's address, as seen by the exporter: `tcp://192.168.1.2:22`.
    #[method(concurrent)]
    async fn address(&self) -> Result<String, Fault> {
        Err(Fault::unsupported("this kind of network has no address"))
    }
}

/// Bytes that are copied at a time: one chunk of a stream. With a little more, each read takes a
/// chunk and a bit of the next, and a forwarded port is a seventh slower.
pub(crate) const COPY_BYTES: usize = CHUNK_BYTES_MAX;

/// Opens a connection, and names the service if that fails.
async fn connected<T>(
    to: impl fmt::Display,
    limit: Duration,
    connecting: impl Future<Output = io::Result<T>>,
) -> Result<T, Fault> {
    match timeout(limit, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(named(&to, "cannot connect to", error)),
        Err(_elapsed) => {
            Err(Fault::timeout(format_args!("cannot connect to {to}: no answer within {limit:?}")))
        }
    }
}

/// The fault of `error`, with the service in its text.
fn named(to: &impl fmt::Display, what: &str, error: io::Error) -> Fault {
    let fault = Fault::from(error);
    Fault::new(fault.kind.clone(), format_args!("{what} {to}: {fault}"))
}

/// Carries bytes both ways. Each direction ends by itself; an error ends both.
async fn carry(
    cx: &Context,
    stream: &mut ByteStream,
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let carried = copy_bidirectional_with_sizes(stream, connection, COPY_BYTES, COPY_BYTES);
    unless_left(cx, async { carried.await.map(drop) }).await
}

/// Runs until the caller is gone: who has ended its half is not read from, and so not missed.
async fn unless_left(
    cx: &Context,
    carrying: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::select! {
        ended = carrying => ended,
        () = cx.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the caller left")),
    }
}

/// `enable_address` is on unless it is said otherwise, as in Jumpstarter.
fn enabled() -> bool {
    true
}

/// How long a connection may take to come about, unless configured otherwise.
fn connect_timeout() -> Duration {
    Duration::from_secs(10)
}

/// The address of `host` and `port`, if it may be told.
fn address(scheme: &str, to: &str, enabled: bool) -> Result<String, Fault> {
    match enabled {
        true => Ok(format!("{scheme}://{to}")),
        false => Err(Fault::unsupported("the address is not told: enable_address is false")),
    }
}

/// Host and port, as they are written in an address.
fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
