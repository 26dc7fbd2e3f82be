//! A driver as a client sees it, and the calls it takes.

use std::{fmt, time::Duration};

use bus_schema::{
    Address, DriverId, ExporterName, FaultKind, Invoke, Loan, MethodName, Outgoing, RefusalCode,
    limits::{DEADLINE, OVERHEAD_BYTES_MAX, PAYLOAD_BYTES_MAX},
    message::{Call, Form, Outcome, Parts, Reply},
    subject::DriverVerb,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{
    CallError, Client, ItemStream,
    calls::Calls,
    delivery::{Delivery, Timing},
    parts::LargeArgs,
};
use crate::{lend::Lend, stream::ByteStream};

/// A deadline travels in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);

/// One driver, by address. Cheap to clone; nothing is asked of anybody to make one.
#[derive(Clone)]
pub struct DriverRef {
    pub(super) client: Client,
    pub(super) exporter: ExporterName,
    pub(super) id: DriverId,
    address: Option<Address>,
    deadline: Option<Duration>,
    epoch: Option<u64>,
}

impl DriverRef {
    pub(super) fn new(
        client: Client,
        exporter: ExporterName,
        id: DriverId,
        address: Option<Address>,
    ) -> Self {
        Self { client, exporter, id, address, deadline: None, epoch: None }
    }

    /// The same driver, with this deadline for calls instead of the methods' own.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same driver, used under the lease of this number: calls are refused when it has ended.
    #[must_use]
    pub fn under(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Its UUID.
    pub fn id(&self) -> DriverId {
        self.id
    }

    /// The exporter that serves it.
    pub fn exporter(&self) -> &ExporterName {
        &self.exporter
    }

    /// The client that it is used by.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn shown(&self) -> String {
        match &self.address {
            Some(address) => address.to_string(),
            None => format!("{} at {}", self.id, self.exporter),
        }
    }

    pub(super) fn deadline_for(&self, declared: Option<Duration>) -> Duration {
        self.deadline.or(declared).unwrap_or(DEADLINE)
    }

    /// Calls `method` with arguments that are a MessagePack array, and gives the result as one
    /// MessagePack value. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// Every way a call can end but its result.
    pub async fn call_raw(&self, method: &str, args: Bytes) -> Result<Bytes, CallError> {
        self.invoke(method, Form::Typed, args, None).await
    }

    /// Calls `method` with words as a person types them (or bytes, for contents of files), which
    /// the exporter reads by the method's signature. The result is JSON text.
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw).
    pub async fn call_words(
        &self,
        method: &str,
        words: &[bus_schema::Value],
    ) -> Result<Bytes, CallError> {
        self.call_words_with(method, words, Vec::new()).await
    }

    /// [`call_words`](Self::call_words) with words some of which are lent: what each of `loans`
    /// says is one of the words. See [`lend`](Invoke::lend).
    ///
    /// # Errors
    ///
    /// As [`call_raw`](Self::call_raw); also that what is handed back could not be written.
    pub async fn call_words_with(
        &self,
        method: &str,
        words: &[bus_schema::Value],
        loans: Vec<Loan>,
    ) -> Result<Bytes, CallError> {
        let args =
            rmp_serde::to_vec_named(words).map_err(|e| CallError::Unsendable(e.to_string()))?;
        let result = self.invoke(method, Form::Words, args.into(), None).await?;
        self.settle(loans).await?;
        Ok(result)
    }

    /// Waits until what is handed back is all there.
    async fn settle(&self, loans: Vec<Loan>) -> Result<(), CallError> {
        for loan in loans {
            crate::lend::settle(loan).await.map_err(CallError::Lending)?;
        }
        Ok(())
    }

    async fn invoke(
        &self,
        method: &str,
        form: Form,
        args: Bytes,
        declared: Option<Duration>,
    ) -> Result<Bytes, CallError> {
        if args.len() > PAYLOAD_BYTES_MAX {
            let text = format!("{} bytes are over the limit of {PAYLOAD_BYTES_MAX}", args.len());
            return Err(CallError::Unsendable(text));
        }
        check_name(method)?;
        let inner = &self.client.0;
        let limit = self.deadline_for(declared);
        let began = Instant::now();
        let guard = Calls::begin(inner, &self.exporter);
        let large = match args.len() + OVERHEAD_BYTES_MAX > inner.control().max_payload() {
            // Boxed, as is all that is rare: every call carries the size of its largest path.
            true => Some(Box::pin(LargeArgs::offer(inner, &self.exporter, args.clone())).await?),
            false => None,
        };
        let id = guard.id;
        let make = |timing: Timing| {
            Call {
                id: Some(id),
                attempt: timing.attempt,
                age_ms: timing.age_ms,
                deadline_ms: timing.deadline_ms,
                done_below: timing.done_below,
                epoch: self.epoch,
                together: true,
                form,
                args: if large.is_some() { Bytes::new() } else { args.clone() },
                parts: large.as_ref().map(LargeArgs::parts),
            }
            .encode()
        };
        let mut delivery = Delivery::new(self, guard, DriverVerb::Call, method, limit, make);
        let answer = delivery.answer().await?;
        let reply = Reply::decode(&answer).map_err(|e| CallError::Garbled(e.to_string()))?;
        match reply.outcome {
            Outcome::Result(bytes) => Ok(bytes),
            // The exporter stopped it at the deadline, and says so a moment before we would.
            Outcome::Fault(fault)
                if fault.kind == FaultKind::Cancelled && began.elapsed() + ROUNDING >= limit =>
            {
                Err(CallError::TimedOut { address: self.shown(), limit, sent: true })
            }
            Outcome::Parts(parts) => Box::pin(self.fetch(parts, limit)).await,
            Outcome::Fault(fault) => Err(CallError::Fault { address: self.shown(), fault }),
            Outcome::Refused(refusal) if refusal.code == RefusalCode::NoDriver => {
                Err(CallError::NoDriver { address: self.shown() })
            }
            Outcome::Refused(refusal) => Err(CallError::Refused { address: self.shown(), refusal }),
            Outcome::Unknown(why) => Err(CallError::OutcomeUnknown { address: self.shown(), why }),
        }
    }

    /// Fetches a large result.
    async fn fetch(&self, parts: Parts, limit: Duration) -> Result<Bytes, CallError> {
        let fetched = super::parts::fetch(&self.client.0, &self.exporter, parts);
        let late = |_| CallError::TimedOut { address: self.shown(), limit, sent: true };
        timeout(limit, fetched).await.map_err(late)?
    }
}

/// Whether this can be the name of a method.
pub(super) fn check_name(method: &str) -> Result<(), CallError> {
    match MethodName::is(method) {
        true => Ok(()),
        false => {
            let problem = method.parse::<MethodName>().expect_err("no name");
            Err(CallError::Unsendable(problem.to_string()))
        }
    }
}

impl Invoke for DriverRef {
    type Error = CallError;
    type Items<T: DeserializeOwned + Send + 'static> = ItemStream<T>;
    type Pipe = ByteStream;
    type Lend = Lend;

    async fn lend(&self, what: Lend) -> Result<Loan, CallError> {
        what.to(&self.client, &self.exporter).await.map_err(CallError::Lending)
    }

    async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<T, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let result = self.invoke(out.method, Form::Typed, args, out.deadline).await?;
        if !out.loans.is_empty() {
            Box::pin(self.settle(out.loans)).await?;
        }
        rmp_serde::from_slice(&result).map_err(|e| CallError::Garbled(e.to_string()))
    }

    async fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<ItemStream<T>, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        let started = self.start(out.method, Form::Typed, args, out.deadline, false).await?;
        Ok(ItemStream::new(started.items, out.loans))
    }

    async fn stream(&self, out: Outgoing) -> Result<ByteStream, CallError> {
        let args = out.args.map_err(CallError::Unsendable)?;
        if !out.loans.is_empty() {
            return Err(CallError::Unsendable("nothing can be lent to a stream".to_owned()));
        }
        self.open_stream(out.method, Form::Typed, args, out.deadline).await
    }
}

impl fmt::Debug for DriverRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverRef").field(&self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_small_while_it_is_open() {
        fn bytes<D, F>(_: impl FnOnce(D) -> F) -> usize {
            size_of::<F>()
        }
        let call = |driver: &'static DriverRef| driver.call_raw("on", Bytes::new());
        // Past 1 KiB an allocator takes its slow path, and a fan-out opens thousands.
        assert!(bytes(call) < 1000, "{}", bytes(call));
    }
}
