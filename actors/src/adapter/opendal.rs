//! A place in any storage that OpenDAL knows, as what is lent to a driver.

use std::{fmt, io, path::Path, time::Duration};

use ::opendal::{Operator, Writer};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, future::BoxFuture};
use runtime::{Lend, LendSink, blocking};
use tokio_util::io::StreamReader;

use crate::opendal::{OpendalError, said};

/// How long a presigned request holds: for a queue of boards that are flashed one after another.
const PRESIGNED_FOR: Duration = Duration::from_secs(3600);
/// Bytes that go to the storage at once: S3 takes parts of 5 MiB and more.
const PIECE_BYTES: usize = 8 << 20;
/// Bytes that are read from it at once.
const READ_BYTES: usize = 1 << 20;

/// A file in a storage, as the source or the sink of a resource.
///
/// The operator is OpenDAL's, of any of its services; [`open_operator`](crate::open_operator) makes
/// one of those that are built in. A file of this host goes as every file does: by content, once
/// for any number of boards. Where the storage can sign a request and the exporter can reach it, the
/// exporter fetches from the storage itself; otherwise the bytes go through this client as they are
/// read.
#[derive(Clone)]
pub struct OpendalAdapter {
    operator: Operator,
    path: String,
    road: Road,
}

/// How the bytes of a source come to the exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Road {
    /// As the storage's address suggests.
    Guessed,
    ThroughClient,
    Fetched,
}

impl OpendalAdapter {
    /// The file at `path` of a storage.
    pub fn new(operator: Operator, path: impl Into<String>) -> Self {
        Self { operator, path: path.into(), road: Road::Guessed }
    }

    /// The same for an exporter that cannot reach the storage: bytes go through this client.
    #[must_use]
    pub fn through_client(self) -> Self {
        Self { road: Road::ThroughClient, ..self }
    }

    /// The same for an exporter that reaches the storage though its address is a loopback one, as
    /// where both run on this host.
    #[must_use]
    pub fn fetched(self) -> Self {
        Self { road: Road::Fetched, ..self }
    }

    /// What a driver reads.
    ///
    /// # Errors
    ///
    /// [`OpendalError::Storage`] if there is no such file, or it cannot be looked at.
    pub async fn source(&self) -> Result<Lend, OpendalError> {
        let Self { operator, path, .. } = self;
        let info = operator.info();
        let name = path.rsplit('/').next().unwrap_or_default();
        if info.scheme() == "fs" {
            return Ok(Lend::file(Path::new(&info.root()).join(path.trim_start_matches('/'))));
        }
        let known = operator.stat(path).await.map_err(|error| self.failed(&error))?;
        if !known.is_file() {
            return Err(OpendalError::Storage { path: path.clone(), why: "no file".to_owned() });
        }
        if let Some(url) = self.presigned().await? {
            return Ok(url.named(name));
        }
        let reader = operator.reader_with(path).chunk(READ_BYTES).await;
        let reader = reader.map_err(|error| self.failed(&error))?;
        let stream = reader.into_bytes_stream(..).await.map_err(|error| self.failed(&error))?;
        let lend = Lend::reader(StreamReader::new(stream.map_err(without_secrets)));
        Ok(lend.named(name).of_length(known.content_length()))
    }

    /// Where a driver writes. What does not come to its end leaves nothing.
    ///
    /// # Errors
    ///
    /// [`OpendalError::Storage`] if this storage is not written.
    pub fn sink(&self) -> Result<Lend, OpendalError> {
        let Self { operator, path, .. } = self;
        if !operator.info().capability().write {
            let why = format!("a storage of scheme {} is only read", operator.info().scheme());
            return Err(OpendalError::Storage { path: path.clone(), why });
        }
        let sink = Sink { operator: operator.clone(), path: path.clone(), writer: None };
        Ok(Lend::sink(sink))
    }

    /// [`source`](Self::source) for code that blocks.
    ///
    /// # Errors
    ///
    /// As `source`.
    pub fn source_blocking(&self) -> Result<Lend, OpendalError> {
        blocking::wait(self.source())
    }

    /// A request that the exporter can make, if the storage signs one.
    async fn presigned(&self) -> Result<Option<Lend>, OpendalError> {
        let Self { operator, path, road } = self;
        if *road == Road::ThroughClient || !operator.info().capability().presign_read {
            return Ok(None);
        }
        let signed = operator.presign_read(path, PRESIGNED_FOR).await;
        let signed = signed.map_err(|error| self.failed(&error))?;
        let host = signed.uri().host().unwrap_or_default();
        if *road == Road::Guessed && is_loopback(host) {
            return Ok(None); // it means this host only to this host
        }
        let mut headers = Vec::new();
        for (name, value) in signed.header() {
            match value.to_str() {
                // It is the URL's, and fetching sets it.
                _ if name == "host" => {}
                Ok(value) => headers.push((name.to_string(), value.to_owned())),
                Err(_not_text) => return Ok(None),
            }
        }
        Ok(Some(Lend::url(signed.uri().to_string(), headers)))
    }

    fn failed(&self, error: &::opendal::Error) -> OpendalError {
        OpendalError::Storage { path: self.path.clone(), why: said(error) }
    }
}

impl fmt::Debug for OpendalAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpendalAdapter")
            .field("scheme", &self.operator.info().scheme())
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
        Err(_name) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// OpenDAL's errors as I/O errors show what was asked for, and that may hold credentials.
fn without_secrets(error: io::Error) -> io::Error {
    let kind = error.kind();
    let inner = error.into_inner();
    match inner.and_then(|inner| inner.downcast::<::opendal::Error>().ok()) {
        Some(error) => io::Error::new(kind, said(&error)),
        None => kind.into(),
    }
}

/// A file that is being written. Nothing happens in the storage before the first bytes come.
struct Sink {
    operator: Operator,
    path: String,
    writer: Option<Writer>,
}

impl Sink {
    async fn writer(&mut self) -> ::opendal::Result<&mut Writer> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.operator.writer_with(&self.path).chunk(PIECE_BYTES).await?,
        };
        Ok(self.writer.insert(writer))
    }

    fn failed(&self, error: &::opendal::Error) -> io::Error {
        io::Error::other(format!("{}: {}", self.path, said(error)))
    }
}

impl LendSink for Sink {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let written = match self.writer().await {
                Ok(writer) => writer.write(bytes).await,
                Err(error) => Err(error),
            };
            written.map_err(|error| self.failed(&error))
        })
    }

    fn finish(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let closed = match self.writer().await {
                Ok(writer) => writer.close().await.map(drop),
                Err(error) => Err(error),
            };
            closed.map_err(|error| self.failed(&error))
        })
    }

    fn give_up(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Some(writer) = &mut self.writer
                && writer.abort().await.is_err()
            {
                let _ = self.operator.delete(&self.path).await; // a half file, or nothing
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_one_of_this_host_alone() {
        for host in [
            "localhost",
            "s3.localhost",
            "127.0.0.1",
            "127.1.2.3",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["s3.amazonaws.com", "10.0.0.1", "[fe80::1]", "localhost.example.org"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
