//! Streams that are lent with a call: in one direction, and silent until the exporter is heard.

use std::{io, sync::Arc, time::Duration};

use bus_schema::{
    ExporterName, Sink, StreamId,
    limits::BLOCK_BYTES_MAX,
    message::ResetCode,
    subject::{ExporterVerb, To},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy},
    sync::oneshot,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{LendError, LendSink, Storing};
use crate::{
    client::{Inner, plug, speak},
    stream::{ByteStream, DataLine, PipeDirection, PipeEnd},
};

/// Bytes that a sink is given at once.
const PIECE_BYTES: usize = 256 << 10;
/// For a sink to remove what it has of data that does not come.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(10);

/// A stream that is lent. Dropping it takes it back.
pub(super) struct LentPipe {
    /// How what came was written; for one that comes from the driver.
    done: Option<oneshot::Receiver<Result<(), String>>>,
    _over: DropGuard,
}

impl LentPipe {
    /// Lends a reader.
    pub(super) async fn from_reader(
        inner: &Arc<Inner>,
        exporter: &ExporterName,
        mut reader: Box<dyn AsyncRead + Send + Unpin>,
    ) -> Result<(StreamId, Self), LendError> {
        Self::to_driver(inner, exporter, async move |mut pipe: ByteStream| {
            match copy(&mut reader, &mut pipe).await {
                // It fails only if the stream was cut off, and then nobody wants the rest.
                Ok(_bytes) => drop(pipe.shutdown().await),
                Err(error) => pipe.reset(format_args!("what was lent cannot be read: {error}")),
            }
        })
        .await
    }

    /// Lends a file that is being stored.
    pub(super) async fn from_storing(
        inner: &Arc<Inner>,
        exporter: &ExporterName,
        storing: Storing,
    ) -> Result<(StreamId, Self), LendError> {
        let to = exporter.clone();
        Self::to_driver(inner, exporter, async move |mut pipe: ByteStream| {
            let count = storing.bytes.div_ceil(BLOCK_BYTES_MAX);
            if let Err(error) = storing.tell(to, count, &mut pipe).await {
                pipe.reset(format_args!("what was lent could not be stored: {error}"));
            }
        })
        .await
    }

    async fn to_driver<F>(
        inner: &Arc<Inner>,
        exporter: &ExporterName,
        fill: impl FnOnce(ByteStream) -> F + Send + 'static,
    ) -> Result<(StreamId, Self), LendError>
    where
        F: Future<Output = ()> + Send,
    {
        let (id, end) = plug(inner, exporter, PipeDirection::SendOnly)?;
        inner.bulk().await?;
        let data = DataLine::Subject(inner.subject(exporter, To::Stream(ExporterVerb::Up, id)));
        let over = lend(inner, exporter, id, end, data, fill);
        Ok((id, Self { done: None, _over: over.drop_guard() }))
    }

    /// Lends a writer.
    pub(super) async fn to_writer(
        inner: &Arc<Inner>,
        exporter: &ExporterName,
        sink: Box<dyn LendSink>,
    ) -> Result<(Sink, Self), LendError> {
        let mut open = OpenSink { sink: Some(sink), tasks: inner.tasks.clone() };
        let (stream, end) = plug(inner, exporter, PipeDirection::ReceiveOnly)?;
        inner.bulk().await?;
        let sink = Sink { stream, credit: end.credit() };
        let (tx, done) = oneshot::channel();
        let nowhere = DataLine::Nowhere;
        let over =
            lend(inner, exporter, stream, end, nowhere, async move |mut pipe: ByteStream| {
                let written = open.fill(&mut pipe).await;
                drop(open);
                if let Err(error) = &written {
                    pipe.reset(format_args!("what came cannot be written: {error}"));
                }
                let _ = tx.send(written.map_err(|error| error.to_string())); // or it was given up
            });
        Ok((sink, Self { done: Some(done), _over: over.drop_guard() }))
    }

    /// Waits until all that came was written. The exporter answers the call only when it had
    /// arrived here.
    pub(super) async fn settle(self) -> Result<(), LendError> {
        match self.done {
            None => Ok(()),
            Some(done) => match done.await {
                Ok(written) => written.map_err(LendError::Incomplete),
                Err(_gone) => Err(LendError::Incomplete("this client was closed".to_owned())),
            },
        }
    }
}

/// A sink that was not filled yet: it is given up when this is dropped.
struct OpenSink {
    sink: Option<Box<dyn LendSink>>,
    tasks: TaskTracker,
}

impl OpenSink {
    async fn fill(&mut self, pipe: &mut ByteStream) -> io::Result<()> {
        if let Some(sink) = &mut self.sink {
            loop {
                let mut piece = BytesMut::with_capacity(PIECE_BYTES);
                if pipe.read_buf(&mut piece).await? == 0 {
                    break;
                }
                sink.write(piece.freeze()).await?;
            }
            sink.finish().await?;
        }
        self.sink = None;
        Ok(())
    }
}

impl Drop for OpenSink {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            self.tasks.spawn(timeout(GIVE_UP_WITHIN, sink.give_up()));
        }
    }
}

/// Waits for the exporter, then speaks with it. The token ends both.
fn lend<F>(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    id: StreamId,
    end: Arc<PipeEnd>,
    data: DataLine,
    use_it: impl FnOnce(ByteStream) -> F + Send + 'static,
) -> CancellationToken
where
    F: Future<Output = ()> + Send,
{
    let over = inner.stop.child_token();
    let (inner, exporter, ended) = (inner.clone(), exporter.clone(), over.clone());
    let tasks = inner.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            biased;
            () = ended.cancelled() => {
                inner.switchboard.unplug(id);
                return;
            }
            () = end.contact() => {}
        }
        if speak(&inner, &exporter, id, end.clone(), data).await.is_err() {
            inner.switchboard.unplug(id);
            return;
        }
        drop(inner);
        tokio::select! {
            biased;
            () = ended.cancelled() => end.reset(ResetCode::Cancelled, "the call has ended"),
            () = use_it(ByteStream::new(end.clone())) => {}
        }
    });
    over
}
