//! Streams and streaming calls, as a client opens them.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bus_schema::{
    CallId, ExporterName, StreamId, Type, codec,
    message::{Form, Open, Opened},
    subject::{DriverVerb, ExporterVerb, To},
};
use bytes::Bytes;
use tokio::time::sleep;

use super::{
    CallError, DriverRef, Inner, ItemBytes,
    calls::Calls,
    delivery::{Delivery, Timing},
    driver::check_name,
    parts::{plug, speak},
};
use crate::stream::{ByteStream, DataLine, PipeDirection, PipeEnd};

/// A streaming call that has begun.
#[derive(Debug)]
pub struct StartedCall {
    /// What it is called by, to attach to it.
    pub id: CallId,
    /// Type of its items.
    pub item: Type,
    /// Its items.
    pub items: ItemBytes,
}

/// What the exporter said when it opened a stream.
struct IsOpen {
    credit: u64,
    item: Option<Type>,
}

impl DriverRef {
    /// Opens a stream. `args` is a MessagePack array, of words if `form` says so.
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw).
    pub async fn open_stream(
        &self,
        method: &str,
        form: Form,
        args: Bytes,
        declared: Option<Duration>,
    ) -> Result<ByteStream, CallError> {
        let inner = &self.client.0;
        let (stream, end) = plug(inner, &self.exporter, PipeDirection::Both)?;
        let unplug = Unplug(inner, stream, None);
        inner.bulk().await?;
        let opened = self.open(method, form, args, declared, stream, &end, false).await?;
        end.allow(opened.1.credit);
        let data = inner.subject(&self.exporter, To::Stream(ExporterVerb::Up, stream));
        unplug.keep();
        speak(inner, &self.exporter, stream, end.clone(), DataLine::Subject(data)).await?;
        Ok(ByteStream::new(end))
    }

    /// Starts a streaming call; `detached` lets it go on without us. `args` as in
    /// [`open_stream`](Self::open_stream).
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw), until it has begun.
    pub async fn start(
        &self,
        method: &str,
        form: Form,
        args: Bytes,
        declared: Option<Duration>,
        detached: bool,
    ) -> Result<StartedCall, CallError> {
        let inner = &self.client.0;
        let (stream, end) = plug(inner, &self.exporter, PipeDirection::ReceiveOnly)?;
        let mut unplug = Unplug(inner, stream, None);
        inner.bulk().await?;
        let (id, opened) = self.open(method, form, args, declared, stream, &end, detached).await?;
        unplug.2 = Some(id.counter);
        unplug.keep();
        speak(inner, &self.exporter, stream, end.clone(), DataLine::Nowhere).await?;
        let items = ItemBytes::new(self.shown(), end, Some((inner.mailroom.clone(), id.counter)));
        Ok(StartedCall { id, item: opened.item.unwrap_or(Type::Any), items })
    }

    #[expect(clippy::too_many_arguments, reason = "what an open message says")]
    async fn open(
        &self,
        method: &str,
        form: Form,
        args: Bytes,
        declared: Option<Duration>,
        stream: StreamId,
        end: &PipeEnd,
        detached: bool,
    ) -> Result<(CallId, IsOpen), CallError> {
        let inner = &self.client.0;
        check_name(method)?;
        if args.len() + bus_schema::limits::OVERHEAD_BYTES_MAX > inner.control().max_payload() {
            let text = "arguments of streams and streaming calls must fit one message";
            return Err(CallError::Unsendable(text.to_owned()));
        }
        let guard = Calls::begin(inner, &self.exporter).alone();
        let id = guard.id;
        // Before the request is sent: items may come before its answer.
        inner.mailroom.route_call(id.counter, stream);
        let credit = end.credit();
        let make = |timing: Timing| {
            codec::encode(&Open {
                id,
                stream,
                credit,
                attempt: timing.attempt,
                age_ms: timing.age_ms,
                deadline_ms: timing.deadline_ms,
                done_below: timing.done_below,
                epoch: self.epoch(),
                form,
                args: args.clone(),
                detached,
            })
        };
        let limit = self.deadline_for(declared);
        let mut delivery = Delivery::new(self, guard, DriverVerb::Open, method, limit, make);
        let opened = delivery.answer().await.and_then(|answer| {
            codec::decode(&answer).map_err(|e| CallError::Garbled(e.to_string()))
        });
        let address = || self.shown();
        let opened = match opened {
            Ok(Opened::Open { credit, item, .. }) => return Ok((id, IsOpen { credit, item })),
            Ok(Opened::Fault(fault)) => Err(CallError::Fault { address: address(), fault }),
            Ok(Opened::Refused(refusal)) => Err(CallError::Refused { address: address(), refusal }),
            Ok(Opened::Unknown(why)) => Err(CallError::OutcomeUnknown { address: address(), why }),
            Err(error) => Err(error),
        };
        inner.mailroom.unroute_call(id.counter);
        opened
    }
}

/// Takes a stream off the switchboard again if it was not opened.
struct Unplug<'a>(&'a Arc<Inner>, StreamId, Option<u64>);

impl Unplug<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unplug<'_> {
    fn drop(&mut self) {
        self.0.switchboard.unplug(self.1);
        if let Some(counter) = self.2 {
            self.0.mailroom.unroute_call(counter);
        }
    }
}

/// Looks for an exporter that has gone silent; resolves when it is gone.
pub(crate) async fn watch_exporter(client: Weak<Inner>, exporter: ExporterName) -> String {
    const PATIENCE: Duration = Duration::from_secs(2);
    const MISSES_MAX: u32 = 4;
    let mut misses = 0;
    loop {
        let Some(inner) = client.upgrade() else { return "this client was closed".to_owned() };
        inner.control().connected().await;
        let ping = codec::encode(&bus_schema::message::Ping {});
        let to = To::Exporter(ExporterVerb::Ping);
        match inner.ask_exporter(&exporter, to, ping, PATIENCE).await {
            Ok(_) => misses = 0, // it is there, so its own messages will tell
            Err(_) => misses += 1,
        }
        if misses >= MISSES_MAX {
            return format!("exporter {exporter} is gone");
        }
        drop(inner);
        sleep(PATIENCE / 2).await;
    }
}
