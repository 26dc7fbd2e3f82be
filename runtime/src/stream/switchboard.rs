//! Which open stream a message is for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bus_schema::{
    ClientName, StreamId,
    codec::{self, DecodeError},
    message::{Ack, Data, Reset, ResetCode},
};
use bytes::Bytes;

use super::PipeEnd;
use crate::exporter::{Fence, Pass};

/// The open streams of one process. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Switchboard {
    streams: Arc<Mutex<HashMap<StreamId, Entry>>>,
}

struct Entry {
    /// The name of the one peer that may speak on it, from the subject.
    peer: Arc<str>,
    end: Arc<PipeEnd>,
    /// What may end it: the fence around its driver, and what it was let in under.
    fence: Option<(Arc<Fence>, Pass)>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Its stream has it.
    Taken,
    /// There is no such stream; the sender should be told.
    NoStream,
    /// It was not the peer's, or a reset of nothing: nobody is told.
    Ignored,
}

impl Switchboard {
    /// Connects a stream; `false` if there is one of that id.
    pub(crate) fn plug(&self, id: StreamId, peer: Arc<str>, end: Arc<PipeEnd>) -> bool {
        self.plug_behind(id, peer, end, None)
    }

    /// The same for a stream that goes on only while it is let through a fence.
    pub(crate) fn plug_behind(
        &self,
        id: StreamId,
        peer: Arc<str>,
        end: Arc<PipeEnd>,
        fence: Option<(Arc<Fence>, Pass)>,
    ) -> bool {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let free = !streams.contains_key(&id);
        if free {
            streams.insert(id, Entry { peer, end, fence });
        }
        free
    }

    /// Disconnects a stream.
    pub(crate) fn unplug(&self, id: StreamId) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn find(&self, id: StreamId, peer: &str) -> Result<Arc<PipeEnd>, Heard> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.get(&id) {
            Some(entry) if *entry.peer != *peer => Err(Heard::Ignored),
            Some(entry) => match &entry.fence {
                // Cut off a moment ago, or about to be.
                Some((fence, pass)) if !fence.holds(*pass) => Err(Heard::Ignored),
                _ => Ok(entry.end.clone()),
            },
            None => Err(Heard::NoStream),
        }
    }

    /// Data from `peer`. Damaged data resets its stream: what follows could not be trusted.
    pub(crate) fn data(&self, id: StreamId, peer: &str, message: &Bytes) -> Heard {
        let end = match self.find(id, peer) {
            Ok(end) => end,
            Err(heard) => return heard,
        };
        match Data::decode(message) {
            Ok(data) => end.on_data(data),
            Err(error) => end.reset(ResetCode::Protocol, error),
        }
        Heard::Taken
    }

    /// Control from `peer`: an acknowledgement or a reset.
    pub(crate) fn control(&self, id: StreamId, peer: &str, message: &Bytes) -> Heard {
        let reset = codec::decode::<Reset>(message);
        let end = match self.find(id, peer) {
            Ok(end) => end,
            Err(Heard::NoStream) if reset.is_ok() => return Heard::Ignored,
            Err(heard) => return heard,
        };
        match reset {
            Ok(reset) => end.on_reset(reset),
            Err(DecodeError::Kind { .. }) => match codec::decode::<Ack>(message) {
                Ok(ack) => end.on_ack(ack),
                Err(error) => end.reset(ResetCode::Protocol, error),
            },
            Err(error) => end.reset(ResetCode::Protocol, error),
        }
        Heard::Taken
    }

    /// Cuts off what may go on no longer.
    pub(crate) fn cut(
        &self,
        may_go_on: &impl Fn(Pass, &ClientName) -> bool,
        code: ResetCode,
        text: &str,
    ) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in streams.values() {
            let Some((_, pass)) = &entry.fence else { continue };
            let goes_on = entry.peer.parse().is_ok_and(|client| may_go_on(*pass, &client));
            if !goes_on {
                entry.end.reset(code, text);
            }
        }
    }

    /// Cuts off every stream whose peer is `peer`, or all.
    pub(crate) fn reset_all(&self, code: ResetCode, text: &str) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in streams.values() {
            entry.end.reset(code, text);
        }
    }
}
