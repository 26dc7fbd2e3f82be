//! Adapters: what connects a stream method of a driver to the tools that people already use.

use std::future::Future;

use bus_schema::{Value, message::Form};
use bytes::Bytes;
use runtime::{ByteStream, CallError, DriverRef, blocking};

mod expect;
#[cfg(feature = "vnc")]
mod novnc;
#[cfg(feature = "opendal")]
mod opendal;
mod portforward;
#[cfg(feature = "ssh")]
mod ssh;

#[cfg(feature = "opendal")]
pub use self::opendal::OpendalAdapter;
pub use expect::{
    BadPattern, Expect, ExpectAdapter, ExpectBlocking, ExpectError, Match, Pattern, Seen,
    script::{ExpectScript, SCRIPT_HELP, ScriptError, ScriptFailure, StepDone, WhyFailed},
};
#[cfg(feature = "vnc")]
pub use novnc::{NovncAdapter, NovncError, NovncPage, NovncTrouble};
pub use portforward::{Forwarded, Local, Portforward, PortforwardError, Trouble};
#[cfg(feature = "ssh")]
pub use ssh::{
    Exit, HostKeys, KnownHosts, Login, Ran, Resizer, Running, Ssh, SshAdapter, SshBlocking,
    SshError, SshForward, Terminal,
};

/// Connects a stream method of a driver to a tool: a port, a session, a page.
///
/// An adapter is a value that says what is wanted; what it gives is in use until it is dropped.
/// This is all that one has to be, so a lab can write its own: see `tests/out-of-tree`.
pub trait ClientAdapter: Sized + Send {
    /// What the tool uses.
    type Adapted: Send;
    /// Why there is none.
    type Error: Send;

    /// Puts the tool onto `method`, which may be opened any number of times.
    fn adapt(
        self,
        method: StreamMethod,
    ) -> impl Future<Output = Result<Self::Adapted, Self::Error>> + Send;

    /// [`adapt`](Self::adapt) for code that blocks.
    ///
    /// # Errors
    ///
    /// As `adapt`.
    fn adapt_blocking(self, method: StreamMethod) -> Result<Self::Adapted, Self::Error> {
        blocking::wait(self.adapt(method))
    }
}

/// A stream method of a driver, with its arguments: what can be opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StreamMethod {
    driver: DriverRef,
    name: String,
    form: Form,
    args: Bytes,
}

impl StreamMethod {
    /// `connect` of `driver`, as every [`Network`](crate::Network) and console has it.
    pub fn connect(driver: DriverRef) -> Self {
        Self::named(driver, "connect")
    }

    /// The method `name` of `driver`, without arguments.
    pub fn named(driver: DriverRef, name: impl Into<String>) -> Self {
        Self { driver, name: name.into(), form: Form::Typed, args: Bytes::new() }
    }

    /// With words for arguments, as a person types them.
    ///
    /// # Errors
    ///
    /// [`CallError::Unsendable`] if they cannot be encoded.
    pub fn with_words(self, words: &[Value]) -> Result<Self, CallError> {
        let packed = rmp_serde::to_vec_named(words);
        let args = packed.map_err(|error| CallError::Unsendable(error.to_string()))?;
        Ok(Self { form: Form::Words, args: args.into(), ..self })
    }

    /// Another method of the same driver, without arguments.
    #[must_use]
    pub fn instead(&self, name: &str) -> Self {
        Self::named(self.driver.clone(), name)
    }

    /// The driver.
    pub fn driver(&self) -> &DriverRef {
        &self.driver
    }

    /// The method's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens it once more.
    ///
    /// # Errors
    ///
    /// As [`DriverRef::open_stream`].
    pub async fn open(&self) -> Result<ByteStream, CallError> {
        // Boxed, as it is large, and adapters keep many of these.
        Box::pin(self.driver.open_stream(&self.name, self.form, self.args.clone(), None)).await
    }

    /// Puts a tool onto it.
    ///
    /// # Errors
    ///
    /// As the adapter says.
    pub async fn adapt<A: ClientAdapter>(self, adapter: A) -> Result<A::Adapted, A::Error> {
        adapter.adapt(self).await
    }
}
