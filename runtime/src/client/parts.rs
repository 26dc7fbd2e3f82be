//! Arguments and results too large for one message: streams that belong to a call.

use std::sync::Arc;

use bus_schema::{
    ExporterName, StreamId,
    message::{Parts, ResetCode},
    subject::{ExporterVerb, To},
};
use bytes::Bytes;

use super::{CallError, Inner};
use crate::{
    bus::random,
    exporter::collect,
    stream::{DataLine, Flow, Line, PeerWatch, PipeDirection, PipeEnd, Pump, SILENCE},
};

/// Arguments on offer. Dropping it takes them back.
pub(crate) struct LargeArgs {
    end: Arc<PipeEnd>,
    parts: Parts,
}

impl LargeArgs {
    /// Makes `args` ready to be fetched by `exporter`.
    pub(crate) async fn offer(
        inner: &Arc<Inner>,
        exporter: &ExporterName,
        args: Bytes,
    ) -> Result<Self, CallError> {
        let (stream, end) = plug(inner, exporter, PipeDirection::SendOnly)?;
        let parts = Parts { stream, bytes: args.len() as u64 };
        let data = inner.subject(exporter, To::Stream(ExporterVerb::Up, stream));
        speak(inner, exporter, stream, end.clone(), DataLine::Subject(data)).await?;
        let writing = end.clone();
        inner.tasks.spawn(async move {
            // It fails only if the stream was cut off, and then nobody wants the rest.
            let _ = writing.write_all(&args).await;
            writing.finish();
        });
        Ok(Self { end, parts })
    }

    pub(crate) fn parts(&self) -> Parts {
        self.parts
    }
}

impl Drop for LargeArgs {
    fn drop(&mut self) {
        self.end.reset(ResetCode::Cancelled, "the call has ended");
    }
}

/// Fetches a large result.
pub(crate) async fn fetch(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    parts: Parts,
) -> Result<Bytes, CallError> {
    if parts.bytes > bus_schema::limits::PAYLOAD_BYTES_MAX as u64 {
        return Err(CallError::Garbled(format!(
            "a result of {} bytes is over the limit",
            parts.bytes
        )));
    }
    // The call was executed, so this is no error that says that nothing was sent.
    let grant = inner.budget.grant().ok_or_else(|| CallError::Garbled(no_credit().to_string()))?;
    let end = PipeEnd::new(Flow::new(grant.bytes(), 0), PipeDirection::ReceiveOnly, grant);
    inner.switchboard.plug(parts.stream, exporter.as_str().into(), end.clone());
    speak(inner, exporter, parts.stream, end.clone(), DataLine::Nowhere).await?;
    end.invite();
    let abandon = Abandon(end.clone());
    let body = collect(&end, parts.bytes).await.map_err(CallError::Garbled);
    drop(abandon);
    body
}

/// Gives an end up when the future that uses it is dropped.
struct Abandon(Arc<PipeEnd>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn no_credit() -> CallError {
    CallError::Unsendable("too many streams are open in this process".to_owned())
}

/// A new stream of this client, that `exporter` alone may speak on.
pub(crate) fn plug(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    direction: PipeDirection,
) -> Result<(StreamId, Arc<PipeEnd>), CallError> {
    let grant = inner.budget.grant().ok_or_else(no_credit)?;
    let stream = StreamId::new(inner.session, random());
    let end = PipeEnd::new(Flow::new(grant.bytes(), 0), direction, grant);
    inner.switchboard.plug(stream, exporter.as_str().into(), end.clone());
    Ok((stream, end))
}

/// Starts the pump of this side.
pub(crate) async fn speak(
    inner: &Arc<Inner>,
    exporter: &ExporterName,
    stream: StreamId,
    end: Arc<PipeEnd>,
    data: DataLine,
) -> Result<(), CallError> {
    let line = Line {
        control: inner.control().clone(),
        bulk: inner.bulk().await?.clone(),
        mark: inner.mark.clone(),
        ctl: inner.subject(exporter, To::Stream(ExporterVerb::Ctl, stream)),
        data,
    };
    let (client, asked) = (Arc::downgrade(inner), exporter.clone());
    let pump = Pump {
        id: stream,
        end,
        line,
        switchboard: inner.switchboard.clone(),
        stop: inner.stop.clone(),
        silence_max: SILENCE,
        lingers: false,
        peer: Box::new(move || -> PeerWatch {
            Box::pin(super::open::watch_exporter(client.clone(), asked.clone()))
        }),
    };
    inner.tasks.spawn(pump.run());
    Ok(())
}
