//! What a driver sees of what was lent to it: one reader, wherever the data is; one writer for
//! what it hands back. Both are good for one operation, and gone with it.

mod cache;
mod error;
mod file;
mod post;
mod progress;
mod stream;
mod unpack;
mod url;
mod writer;

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use bus_schema::{
    ClientName, Describe, Failure, Lent, LentFrom, Packing, RawResource, Sha256, Type,
};
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::file::Files;
pub use self::{error::ResourceError, writer::ResourceWriter};
use crate::{Context, exporter::Core, stream::foreign};

/// Data that a client lends to a driver: unpacked, checked, read once from its beginning.
///
/// The end is told only when every byte was there and was what it was said to be: a driver that
/// reads to the end and then says that it is done never says so of damaged data.
pub struct Resource {
    lent: Lent,
    state: State,
    stop: CancellationToken,
}

enum State {
    /// Nothing was asked of it yet.
    Lent(Lender),
    Opening(oneshot::Receiver<Result<Opened, ResourceError>>),
    Open(Opened),
    Failed(ResourceError),
}

/// A run of bytes of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These.
    Data(Bytes),
    /// As many zeros, which need not be written where there are zeros already.
    Hole(u64),
}

/// What is known of a resource once it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    /// How it is compressed; [`Packing::None`] if it is not.
    pub packing: Packing,
    /// Its length as the driver reads it, if that is known.
    pub bytes: Option<u64>,
    /// Its length as it is lent, if that is known.
    pub lent_bytes: Option<u64>,
}

/// Extents on their way, or why no more come.
type Sender = mpsc::Sender<Result<Extent, ResourceError>>;
type Receiver = mpsc::Receiver<Result<Extent, ResourceError>>;

/// Extents that a source may be ahead of its reader: two blocks of a file, in their parts.
const AHEAD: usize = 16;
/// Extents of up to a MiB that unpacking may be ahead.
const UNPACKED_AHEAD: usize = 8;

struct Opened {
    info: ResourceInfo,
    first: VecDeque<Extent>,
    extents: Receiver,
}

impl Extent {
    /// How many bytes it is.
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Hole(zeros) => *zeros,
        }
    }

    /// Whether it is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Resource {
    /// Its name, or nothing. It comes from the client: never use it as a path.
    pub fn name(&self) -> &str {
        &self.lent.name
    }

    /// Its media type, if the client says so.
    pub fn content_type(&self) -> Option<&str> {
        self.lent.content_type.as_deref()
    }

    /// The SHA-256 as it is lent, before it is unpacked, if the client says so. It is checked.
    pub fn sha256(&self) -> Option<Sha256> {
        self.lent.sha256
    }

    /// The same, not unpacked unless its lender says how it is compressed: for who passes it on.
    #[must_use]
    pub fn as_lent(mut self) -> Self {
        if self.lent.packing == Packing::Auto {
            self.lent.packing = Packing::None;
        }
        self
    }

    /// What is known once it is open: reads its beginning.
    ///
    /// # Errors
    ///
    /// [`ResourceError`] if it cannot be had.
    pub async fn info(&mut self) -> Result<ResourceInfo, ResourceError> {
        std::future::poll_fn(|cx| self.poll_open(cx)).await?;
        match &self.state {
            State::Open(opened) => Ok(opened.info.clone()),
            State::Failed(error) => Err(error.clone()),
            State::Lent(_) | State::Opening(_) => unreachable!("it was opened"),
        }
    }

    /// The next run of bytes, holes as holes; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ResourceError`]; then what was read before is worthless.
    pub async fn next(&mut self) -> Result<Option<Extent>, ResourceError> {
        std::future::poll_fn(|cx| self.poll_extent(cx)).await
    }

    /// The next run of bytes, if it is here: an error is left to [`next`](Self::next).
    pub fn ready(&mut self) -> Option<Extent> {
        self.next().now_or_never()?.ok()?
    }

    fn poll_open(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), ResourceError>> {
        loop {
            match &mut self.state {
                State::Open(_) => return Poll::Ready(Ok(())),
                State::Failed(error) => return Poll::Ready(Err(error.clone())),
                State::Lent(lender) => {
                    let opening = open(lender, self.lent.clone(), self.stop.clone());
                    self.state = State::Opening(opening);
                }
                State::Opening(opening) => {
                    self.state = match ready!(Pin::new(opening).poll(cx)) {
                        Ok(Ok(opened)) => State::Open(opened),
                        Ok(Err(error)) => State::Failed(error),
                        Err(_gone) => State::Failed(ResourceError::Over),
                    }
                }
            }
        }
    }

    fn poll_extent(
        &mut self,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Option<Extent>, ResourceError>> {
        ready!(self.poll_open(cx))?;
        let State::Open(opened) = &mut self.state else { unreachable!("it was opened") };
        if let Some(extent) = opened.first.pop_front() {
            return Poll::Ready(Ok(Some(extent)));
        }
        match ready!(opened.extents.poll_recv(cx)) {
            Some(Ok(extent)) => Poll::Ready(Ok(Some(extent))),
            None if self.stop.is_cancelled() => {
                self.state = State::Failed(ResourceError::Over);
                Poll::Ready(Err(ResourceError::Over))
            }
            None => Poll::Ready(Ok(None)),
            Some(Err(error)) => {
                self.state = State::Failed(error.clone());
                Poll::Ready(Err(error))
            }
        }
    }

    /// Puts back what was not taken of an extent.
    fn put_back(&mut self, extent: Extent) {
        if let (State::Open(opened), false) = (&mut self.state, extent.is_empty()) {
            opened.first.push_front(extent);
        }
    }
}

impl AsyncRead for Resource {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(extent) = ready!(this.poll_extent(cx)).map_err(io::Error::from)? else {
            return Poll::Ready(Ok(()));
        };
        let room = into.remaining();
        let rest = match extent {
            Extent::Data(mut bytes) => {
                let now = room.min(bytes.len());
                into.put_slice(&bytes[..now]);
                bytes.advance(now);
                Extent::Data(bytes)
            }
            Extent::Hole(zeros) => {
                let now = zeros.min(room as u64);
                let len = usize::try_from(now).expect("it fits the buffer");
                into.initialize_unfilled_to(len).fill(0);
                into.advance(len);
                Extent::Hole(zeros - now)
            }
        };
        this.put_back(rest);
        Poll::Ready(Ok(()))
    }
}

/// Where a source is read for one operation.
struct Source {
    core: Arc<Core>,
    caller: ClientName,
    lent: Lent,
    stop: CancellationToken,
}

/// Starts whatever moves the data.
fn open(
    lender: &Lender,
    lent: Lent,
    stop: CancellationToken,
) -> oneshot::Receiver<Result<Opened, ResourceError>> {
    let (done, opening) = oneshot::channel();
    let Lender { core, caller, .. } = lender;
    let source = Source { core: core.clone(), caller: caller.clone(), lent, stop: stop.clone() };
    core.tasks.spawn(async move {
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            opened = source.open() => opened,
        };
        let _ = done.send(opened); // nobody waits if the operation was given up
    });
    opening
}

impl Source {
    async fn open(self) -> Result<Opened, ResourceError> {
        let packing = self.lent.packing.clone();
        let (core, stop) = (self.core.clone(), self.stop.clone());
        let (tx, mut extents) = mpsc::channel(AHEAD);
        let lent_bytes = match self.lent.from.clone() {
            LentFrom::File(digest) => file::start(self, digest, tx).await?,
            LentFrom::Storing(id) => file::start_early(self, id, tx)?,
            LentFrom::Stream(id) => stream::start(self, id, tx)?,
            LentFrom::Url(from) => url::start(self, from, tx).await?,
            LentFrom::Sink(_) => return Err(ResourceError::Direction("read, and it is a sink")),
        };
        let mut first = VecDeque::new();
        let packing = match packing {
            Packing::Auto => {
                let sniffed = Packing::sniff(&beginning(&mut first, &mut extents).await?);
                sniffed.unwrap_or(Packing::None)
            }
            told => told,
        };
        if packing == Packing::None {
            let info = ResourceInfo { packing, bytes: lent_bytes, lent_bytes };
            return Ok(Opened { info, first, extents });
        }
        let (tx, unpacked) = mpsc::channel(UNPACKED_AHEAD);
        let info = ResourceInfo { packing: packing.clone(), bytes: None, lent_bytes };
        unpack::start(&core, packing, first, extents, tx, stop);
        Ok(Opened { info, first: VecDeque::new(), extents: unpacked })
    }
}

/// Reads ahead until there is enough to know the packing by.
async fn beginning(
    first: &mut VecDeque<Extent>,
    extents: &mut Receiver,
) -> Result<Vec<u8>, ResourceError> {
    const ENOUGH: usize = 6;
    let mut seen = Vec::new();
    while seen.len() < ENOUGH {
        let extent = match extents.recv().await {
            Some(extent) => extent?,
            None => break,
        };
        match &extent {
            Extent::Data(bytes) => seen.extend_from_slice(&bytes[..bytes.len().min(ENOUGH)]),
            Extent::Hole(_) => seen.resize(ENOUGH, 0),
        }
        first.push_back(extent);
    }
    Ok(seen)
}

impl TryFrom<RawResource> for Resource {
    type Error = Failure;

    fn try_from(raw: RawResource) -> Result<Self, Failure> {
        let (lent, lender) = taken(raw)?;
        if let LentFrom::Sink(_) = lent.from {
            return Err(refused("this is read, and what was lent is to be written"));
        }
        let stop = lender.over.child_token();
        Ok(Self { lent, state: State::Lent(lender), stop })
    }
}

/// What was lent, once it is known to be within bounds.
fn taken(raw: RawResource) -> Result<(Lent, Lender), Failure> {
    raw.lent.check().map_err(|problem| refused(&problem))?;
    let operation = Context::try_from(raw.cx)?;
    let core = operation.core().cloned().ok_or_else(|| foreign("Resource"))?;
    let (caller, over) = (operation.caller().clone(), operation.loans().clone());
    Ok((raw.lent, Lender { core, caller, over }))
}

/// Who lends, through what, and until when.
struct Lender {
    core: Arc<Core>,
    caller: ClientName,
    /// The end of the operation.
    over: CancellationToken,
}

fn refused(problem: &str) -> Failure {
    let text = format!("the resource cannot be lent like this: {problem}");
    bus_schema::Refusal::new(bus_schema::RefusalCode::BadArguments, text).into()
}

impl Describe for Resource {
    fn describe() -> Type {
        Type::Resource
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resource").field(&self.lent).finish()
    }
}

impl Drop for Resource {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
