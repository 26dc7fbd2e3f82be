//! A session for code that blocks.

use std::path::Path;

use runtime::blocking::wait;

use super::{Ran, Ssh, SshAdapter, SshError, SshForward};
use crate::adapter::{ClientAdapter as _, StreamMethod};

/// [`Ssh`] for code that blocks.
#[derive(Debug)]
pub struct SshBlocking(Ssh);

impl SshAdapter {
    /// [`adapt_blocking`](crate::ClientAdapter::adapt_blocking), with what it gives blocking, too.
    ///
    /// # Errors
    ///
    /// [`SshError`].
    pub fn blocking(self, method: StreamMethod) -> Result<SshBlocking, SshError> {
        self.adapt_blocking(method).map(SshBlocking)
    }
}

impl SshBlocking {
    /// As [`Ssh::run`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn run(&self, command: &str) -> Result<Ran, SshError> {
        wait(self.0.run(command))
    }

    /// As [`Ssh::put`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn put(&self, local: &Path, remote: &str) -> Result<u64, SshError> {
        wait(self.0.put(local, remote))
    }

    /// As [`Ssh::get`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn get(&self, remote: &str, local: &Path) -> Result<u64, SshError> {
        wait(self.0.get(remote, local))
    }

    /// As [`Ssh::forward`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn forward(&self, at: &str, host: &str, port: u16) -> Result<SshForward, SshError> {
        wait(self.0.forward(at, host, port))
    }

    /// As [`Ssh::close`].
    pub fn close(self) {
        wait(self.0.close());
    }
}
