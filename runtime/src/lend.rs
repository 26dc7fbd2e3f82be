//! What a client lends to a driver: a file, a reader, a URL, or a writer for what comes back.

mod block;
mod files;
mod pipe;
mod store;
mod storing;

use std::{
    fmt,
    io::{self, Cursor},
    path::{Path, PathBuf},
};

use bus_schema::{ExporterName, Lent, LentFrom, LentUrl, Loan, Packing};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use self::pipe::LentPipe;
pub use self::{
    files::StoredFile,
    store::{Moved, OnMoved, Put, Stored},
    storing::Storing,
};
use crate::{Client, bus::BusError, client::CallError};

/// Something to be lent to one call. Made from a path, from a [`Stored`] file, or by one of these
/// functions.
pub struct Lend {
    what: What,
    name: Option<String>,
    content_type: Option<String>,
    packing: Packing,
}

enum What {
    Put(Put),
    Stored(Stored),
    Storing(Storing),
    Reader(Box<dyn AsyncRead + Send + Unpin>, Option<u64>),
    Writer(Box<dyn LendSink>),
    Url(LentUrl),
}

/// Where what a driver hands back goes, and what has to know whether all of it came.
pub trait LendSink: Send + 'static {
    /// Takes the next bytes. May be given up while it does.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// There are no more: all of them came.
    fn finish(&mut self) -> BoxFuture<'_, io::Result<()>>;

    /// The data has no end, or was never begun: nothing of it is to be left. A client that closes
    /// waits for this, but not for long.
    fn give_up(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Why something could not be lent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LendError {
    /// A file cannot be read.
    #[error("cannot read {file}: {why}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// It changed while it was read.
    #[error("{file} changed while it was read: {why}")]
    Changed {
        /// The file.
        file: PathBuf,
        /// How.
        why: String,
    },
    /// It cannot be lent like this.
    #[error("it cannot be lent: {0}")]
    Unfit(String),
    /// The broker does not store it.
    #[error("the broker does not store the file: {0}")]
    NotStored(String),
    /// What the driver handed back did not all arrive, or could not be written. It was executed.
    #[error("what the driver handed back is not complete: {0}")]
    Incomplete(String),
    /// The broker does not let us.
    #[error("{0}")]
    NotAllowed(String),
    /// The broker.
    #[error("{0}")]
    Bus(String),
}

impl LendError {
    /// Whether the driver may have acted.
    pub fn may_have_acted(&self) -> bool {
        matches!(self, Self::Incomplete(_))
    }
}

impl From<BusError> for LendError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Denied { .. } => Self::NotAllowed(error.to_string()),
            error => Self::Bus(error.to_string()),
        }
    }
}

impl From<CallError> for LendError {
    fn from(error: CallError) -> Self {
        Self::Unfit(error.to_string())
    }
}

impl Lend {
    fn new(what: What) -> Self {
        Self { what, name: None, content_type: None, packing: Packing::Auto }
    }

    /// A file. It is stored at the broker first, unless it is there: once for any number of boards.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::put(Put::new(path))
    }

    /// A file, and how it is stored.
    pub fn put(put: Put) -> Self {
        Self::new(What::Put(put))
    }

    /// What a reader gives, to its end: it goes to the exporter as it is read.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::new(What::Reader(Box::new(reader), None))
    }

    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        Self::new(What::Reader(Box::new(Cursor::new(bytes)), Some(len)))
    }

    /// What the exporter finds at an `http:` or `https:` URL, with these headers.
    pub fn url<K: Into<String>, V: Into<String>>(
        url: impl Into<String>,
        headers: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let headers = headers.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self::new(What::Url(LentUrl { url: url.into(), headers: headers.collect() }))
    }

    /// Where the driver's data goes. The call ends when it has all been written, and the writer
    /// was shut down.
    pub fn writer(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::sink(Careless(writer))
    }

    /// As [`writer`](Self::writer), and it is told if the data does not all come.
    pub fn sink(sink: impl LendSink) -> Self {
        Self::new(What::Writer(Box::new(sink)))
    }

    /// The same, and how many bytes its reader gives. A reader that gives another number breaks
    /// off.
    #[must_use]
    pub fn of_length(mut self, bytes: u64) -> Self {
        if let What::Reader(_, len) = &mut self.what {
            *len = Some(bytes);
        }
        self
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same with a media type.
    #[must_use]
    pub fn of_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// The same, unpacked as told and not as its first bytes say.
    #[must_use]
    pub fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// Makes it ready for one call to `exporter`.
    pub(crate) async fn to(
        self,
        client: &Client,
        exporter: &ExporterName,
    ) -> Result<Loan, LendError> {
        let Self { what, name, content_type, packing } = self;
        let with = |lent: Lent| Lent {
            name: name.clone().unwrap_or_else(|| lent.name.clone()),
            content_type: content_type.clone(),
            packing: packing.clone(),
            ..lent
        };
        let (lent, pipe) = match what {
            What::Put(put) => (client.put(put).await?.lent(), None),
            What::Stored(stored) => (stored.lent(), None),
            What::Storing(storing) => match storing.is_stored() {
                Some(stored) => (stored.lent(), None),
                None => {
                    let (name, bytes) = (storing.name.clone(), Some(storing.bytes));
                    let (id, pipe) = LentPipe::from_storing(&client.0, exporter, storing).await?;
                    (Lent { name, bytes, ..Lent::new(LentFrom::Storing(id)) }, Some(pipe))
                }
            },
            What::Url(url) => (Lent::new(LentFrom::Url(url)), None),
            What::Reader(reader, bytes) => {
                let (id, pipe) = LentPipe::from_reader(&client.0, exporter, reader).await?;
                let lent = Lent::new(LentFrom::Stream(id));
                (Lent { bytes, ..lent }, Some(pipe))
            }
            What::Writer(writer) => {
                let (sink, pipe) = LentPipe::to_writer(&client.0, exporter, writer).await?;
                (Lent::new(LentFrom::Sink(sink)), Some(pipe))
            }
        };
        let lent = with(lent);
        lent.check().map_err(LendError::Unfit)?;
        Ok(Loan { lent, keep: Box::new(Keep(pipe)) })
    }
}

/// A writer that leaves what it has.
struct Careless<W>(W);

impl<W: AsyncWrite + Send + Unpin + 'static> LendSink for Careless<W> {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.0.write_all(&bytes).await })
    }

    fn finish(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.0.shutdown())
    }

    fn give_up(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What has to live as long as the call.
struct Keep(Option<LentPipe>);

/// Waits until what the driver handed back was written.
pub(crate) async fn settle(loan: Loan) -> Result<(), LendError> {
    match loan.keep.downcast::<Keep>() {
        Ok(keep) => match keep.0 {
            Some(pipe) => pipe.settle().await,
            None => Ok(()),
        },
        Err(_of_another_host) => Ok(()),
    }
}

impl Stored {
    /// The argument that lends it.
    fn lent(&self) -> Lent {
        Lent {
            name: self.name.clone(),
            bytes: Some(self.bytes),
            ..Lent::new(LentFrom::File(self.manifest))
        }
    }
}

impl From<PathBuf> for Lend {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for Lend {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<&Storing> for Lend {
    fn from(storing: &Storing) -> Self {
        Self::new(What::Storing(storing.clone()))
    }
}

impl From<Stored> for Lend {
    fn from(stored: Stored) -> Self {
        Self::new(What::Stored(stored))
    }
}

impl From<&Stored> for Lend {
    fn from(stored: &Stored) -> Self {
        Self::new(What::Stored(stored.clone()))
    }
}

impl fmt::Debug for Lend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what: &dyn fmt::Debug = match &self.what {
            What::Put(put) => put,
            What::Stored(stored) => stored,
            What::Storing(storing) => storing,
            What::Reader(..) => &"reader",
            What::Writer(_) => &"writer",
            What::Url(url) => url,
        };
        f.debug_struct("Lend").field("what", what).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of a file, for people.
fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn cannot_read(file: &Path, error: &io::Error) -> LendError {
    LendError::Read { file: file.to_owned(), why: error.to_string() }
}
