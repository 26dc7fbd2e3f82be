//! The client for code that blocks, as tests mostly do. Not for use inside async code, where
//! blocking a thread of the runtime may stop what it waits for.

use std::{
    fmt,
    io::{Read, Write},
    sync::OnceLock,
};

use bus_schema::{
    Address, ClientName, Invoke as _, InvokeBlocking, Loan, Outgoing, PlaceName, RoleName, Root,
};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
};

use crate::{
    BusError, ByteStream, CallError, ItemStream, LeaseError, LeaseRequest, Lend, LendError, Put,
    Settings, ShutdownError, Stored, Storing, node::Node,
};

/// One runtime for all blocking handles of the process.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("jmp-bus")
            .enable_all()
            .build()
            .expect("a process can start two threads")
    })
}

/// Waits for a future of this library, on the runtime that all blocking handles share.
pub fn wait<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// [`crate::Client`], blocking. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(crate::Client);

impl Client {
    /// Connects as `name` under `root`.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::connect`].
    pub fn connect(settings: Settings, root: Root, name: ClientName) -> Result<Self, BusError> {
        runtime().block_on(crate::Client::connect(settings, root, name)).map(Self)
    }

    /// The driver at `address`.
    pub fn driver(&self, address: &Address) -> Driver {
        Driver(self.0.driver(address))
    }

    /// [`crate::Client::store`], blocking. [`wait`] for [`Storing::stored`].
    ///
    /// # Errors
    ///
    /// As [`crate::Client::store`].
    pub fn store(&self, put: Put) -> Result<Storing, LendError> {
        runtime().block_on(self.0.store(put))
    }

    /// [`crate::Client::put`], blocking.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::put`].
    pub fn put(&self, put: Put) -> Result<Stored, LendError> {
        runtime().block_on(self.0.put(put))
    }

    /// Leases the subtree of the driver at `address`.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::lease`].
    pub fn lease(&self, address: &Address, request: &LeaseRequest) -> Result<Lease, LeaseError> {
        runtime().block_on(self.0.lease(address, request)).map(Lease)
    }

    /// Leases the boards of all drivers of a place, or none of them.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::lease_place`].
    pub fn lease_place(
        &self,
        name: &PlaceName,
        request: &LeaseRequest,
    ) -> Result<PlaceLease, LeaseError> {
        runtime().block_on(self.0.lease_place(name, request)).map(PlaceLease)
    }

    /// Delivers what is on its way, then closes.
    pub fn close(self) {
        runtime().block_on(self.0.close());
    }
}

/// [`crate::Lease`], blocking. It gives its signs of life by itself.
#[derive(Debug)]
#[must_use = "a lease ends when it is dropped"]
pub struct Lease(crate::Lease);

impl Lease {
    /// Its number.
    pub fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    /// The driver at `address`, used under this lease.
    pub fn driver(&self, address: &Address) -> Driver {
        Driver(self.0.driver(address))
    }

    /// Gives it back, and returns when the exporter knows.
    ///
    /// # Errors
    ///
    /// As [`crate::Lease::release`].
    pub fn release(self) -> Result<(), LeaseError> {
        runtime().block_on(self.0.release())
    }
}

/// [`crate::PlaceLease`], blocking. It gives its signs of life by itself.
#[derive(Debug)]
#[must_use = "leases end when they are dropped"]
pub struct PlaceLease(crate::PlaceLease);

impl PlaceLease {
    /// The driver in a role, used under the lease of its board. None if there is no such role.
    pub fn driver(&self, role: &RoleName) -> Option<Driver> {
        self.0.driver(role).map(Driver)
    }

    /// Gives all of them back, and returns when the exporters know.
    ///
    /// # Errors
    ///
    /// As [`crate::PlaceLease::release`].
    pub fn release(self) -> Result<(), LeaseError> {
        runtime().block_on(self.0.release())
    }
}

/// [`crate::DriverRef`], blocking: what a generated `…Blocking` client is made from.
#[derive(Clone, Debug)]
pub struct Driver(crate::DriverRef);

impl Driver {
    /// The same driver for async code: what adapters are given.
    pub fn to_async(&self) -> crate::DriverRef {
        self.0.clone()
    }
}

impl InvokeBlocking for Driver {
    type Error = CallError;
    type Items<T: DeserializeOwned + Send + 'static> = Items<T>;
    type Pipe = Stream;
    type Lend = Lend;

    fn lend(&self, what: Lend) -> Result<Loan, CallError> {
        runtime().block_on(self.0.lend(what))
    }

    fn call<T: DeserializeOwned + Send + 'static>(&self, out: Outgoing) -> Result<T, CallError> {
        runtime().block_on(self.0.call(out))
    }

    fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<Items<T>, CallError> {
        runtime().block_on(self.0.streaming_call(out)).map(Items)
    }

    fn stream(&self, out: Outgoing) -> Result<Stream, CallError> {
        runtime().block_on(self.0.stream(out)).map(Stream)
    }
}

/// The items of a streaming call, one after the other. Dropping it cancels the call.
#[derive(Debug)]
pub struct Items<T>(ItemStream<T>);

impl<T: DeserializeOwned> Iterator for Items<T> {
    type Item = Result<T, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        runtime().block_on(self.0.next())
    }
}

/// A raw stream.
#[derive(Debug)]
pub struct Stream(ByteStream);

impl Stream {
    /// Ends the writing half; the reading half stays open.
    ///
    /// # Errors
    ///
    /// How the stream broke off.
    pub fn finish(&mut self) -> std::io::Result<()> {
        runtime().block_on(self.0.shutdown())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        runtime().block_on(self.0.read(into))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        runtime().block_on(self.0.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        runtime().block_on(self.0.flush())
    }
}

/// [`crate::Served`], blocking.
#[must_use = "dropping it stops the driver"]
pub struct Served(crate::Served);

/// Serves a driver, or a whole [`Node`], for local testing.
///
/// # Errors
///
/// As [`crate::serve`].
pub fn serve(node: impl Into<Node>) -> Result<Served, Box<dyn std::error::Error + Send + Sync>> {
    runtime().block_on(crate::serve(node)).map(Served)
}

impl Served {
    /// The driver at the root of the tree.
    pub fn driver(&self) -> Driver {
        Driver(self.0.driver())
    }

    /// A child, by its path.
    ///
    /// # Panics
    ///
    /// If `path` is no path: this is for tests.
    pub fn child(&self, path: &str) -> Driver {
        Driver(self.0.child(path))
    }

    /// Stops driver and client.
    ///
    /// # Errors
    ///
    /// As [`crate::Served::shutdown`].
    pub fn shutdown(self) -> Result<(), ShutdownError> {
        runtime().block_on(self.0.shutdown())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
