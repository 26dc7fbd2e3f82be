//! What a driver hands back: bytes to a sink of its caller.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bus_schema::{Describe, Failure, LentFrom, RawResource, Sink, Type};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{Lender, ResourceError, refused, taken};
use crate::stream::{ByteStream, Flow, PipeDirection, PipeEnd, SILENCE};

/// Where a driver writes what it hands back. Call [`finish`](Self::finish) when all was written:
/// what is dropped without it is cut off, and the caller knows.
pub struct ResourceWriter {
    end: std::sync::Arc<PipeEnd>,
    pipe: ByteStream,
}

impl ResourceWriter {
    /// Ends it, and waits until the caller has everything.
    ///
    /// # Errors
    ///
    /// How the stream to the caller broke off.
    pub async fn finish(mut self) -> Result<(), ResourceError> {
        let cut = |error: io::Error| ResourceError::Cut(error.to_string());
        self.pipe.shutdown().await.map_err(cut)?;
        self.end.acknowledged().await.map_err(|error| ResourceError::Cut(error.to_string()))
    }
}

impl TryFrom<RawResource> for ResourceWriter {
    type Error = Failure;

    fn try_from(raw: RawResource) -> Result<Self, Failure> {
        let (lent, lender) = taken(raw)?;
        match lent.from {
            LentFrom::Sink(sink) => Ok(open(&lender, sink)?),
            _ => Err(refused("this is written, and what was lent is to be read")),
        }
    }
}

fn open(lender: &Lender, sink: Sink) -> Result<ResourceWriter, ResourceError> {
    let Lender { core, caller, over } = lender;
    let busy = || ResourceError::Broker("too many streams are open at this exporter".to_owned());
    let grant = core.budget.grant().ok_or_else(busy)?;
    let end = PipeEnd::new(Flow::new(0, sink.credit), PipeDirection::SendOnly, grant);
    if !core.switchboard.plug(sink.stream, caller.as_str().into(), end.clone()) {
        return Err(ResourceError::Cut("its id is in use: a resource is lent once".to_owned()));
    }
    let data = core.down(caller, sink.stream);
    let pump = core.pump(caller, sink.stream, end.clone(), data, SILENCE);
    core.tasks.spawn(pump.run());
    let (over, cut) = (over.clone(), end.clone());
    core.tasks.spawn(async move {
        tokio::select! {
            () = over.cancelled() => cut.abandon(),
            _ = cut.acknowledged() => {}
        }
    });
    Ok(ResourceWriter { pipe: ByteStream::new(end.clone()), end })
}

impl AsyncWrite for ResourceWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().pipe).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_shutdown(cx)
    }
}

impl Describe for ResourceWriter {
    fn describe() -> Type {
        Type::Resource
    }
}

impl fmt::Debug for ResourceWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceWriter").finish_non_exhaustive()
    }
}
