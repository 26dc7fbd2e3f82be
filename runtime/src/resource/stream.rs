//! A stream that the caller lends, as a source.

use std::sync::Arc;

use bus_schema::{Lent, StreamId, message::ResetCode};
use bytes::Bytes;

use super::{Extent, ResourceError, Sender, Source};
use crate::{
    digest::Hasher,
    stream::{DataLine, Flow, PipeDirection, PipeEnd, SILENCE},
};

/// Starts reading a stream. Gives its length, if the caller said so.
pub(super) fn start(
    source: Source,
    id: StreamId,
    tx: Sender,
) -> Result<Option<u64>, ResourceError> {
    let from = LentStream::open(&source, id)?;
    let Source { core, lent, stop, .. } = source;
    let bytes = lent.bytes;
    core.tasks.spawn(async move {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Err(ResourceError::Over),
            () = tx.closed() => Err(ResourceError::Over),
            ended = copy(&from, &lent, &tx) => ended,
        };
        if let Err(error) = ended {
            drop(from);
            let _ = tx.send(Err(error)).await; // nobody reads any more
        }
    });
    Ok(bytes)
}

/// A stream of the caller. Dropping it before its end tells the caller that the rest is not wanted.
pub(super) struct LentStream(Arc<PipeEnd>);

impl LentStream {
    pub(super) fn open(source: &Source, id: StreamId) -> Result<Self, ResourceError> {
        let Source { core, caller, .. } = source;
        let busy =
            || ResourceError::Broker("too many streams are open at this exporter".to_owned());
        let grant = core.budget.grant().ok_or_else(busy)?;
        let end = PipeEnd::new(Flow::new(grant.bytes(), 0), PipeDirection::ReceiveOnly, grant);
        if !core.switchboard.plug(id, caller.as_str().into(), end.clone()) {
            return Err(ResourceError::Cut("its id is in use: a resource is lent once".to_owned()));
        }
        let pump = core.pump(caller, id, end.clone(), DataLine::Nowhere, SILENCE);
        core.tasks.spawn(pump.run());
        end.invite();
        Ok(Self(end))
    }

    /// The next bytes; none at the end. Cancel safe.
    pub(super) async fn next(&self) -> Result<Option<Bytes>, ResourceError> {
        self.0.read_chunk().await.map_err(|error| ResourceError::Cut(error.to_string()))
    }
}

impl Drop for LentStream {
    fn drop(&mut self) {
        self.0.reset(ResetCode::Cancelled, "the driver does not want the rest");
    }
}

async fn copy(from: &LentStream, lent: &Lent, tx: &Sender) -> Result<(), ResourceError> {
    let (mut hasher, mut bytes) = (lent.sha256.map(|_| Hasher::new()), 0_u64);
    while let Some(chunk) = from.next().await? {
        bytes += chunk.len() as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
        if tx.send(Ok(Extent::Data(chunk))).await.is_err() {
            return Err(ResourceError::Over);
        }
    }
    whole(lent, bytes, hasher)
}

/// Whether all of it came.
pub(super) fn whole(lent: &Lent, bytes: u64, hasher: Option<Hasher>) -> Result<(), ResourceError> {
    if let Some(wanted) = lent.bytes.filter(|wanted| *wanted != bytes) {
        return Err(ResourceError::Mismatch(format!("it has {bytes} bytes, not {wanted}")));
    }
    match (lent.sha256, hasher.map(Hasher::finish)) {
        (Some(wanted), Some(digest)) if wanted != digest => {
            Err(ResourceError::Mismatch(format!("its SHA-256 is {digest}, not {wanted}")))
        }
        _ => Ok(()),
    }
}
