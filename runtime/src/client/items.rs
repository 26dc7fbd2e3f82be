//! The items of a streaming call, as a client reads them.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bus_schema::{Loan, limits::ITEM_BYTES_MAX, message::End};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::Stream;
use serde::de::DeserializeOwned;

use super::{CallError, Mailroom};
use crate::stream::PipeEnd;

/// Items as the MessagePack values that they travelled as. Dropping it cancels the call, unless
/// it was started detached.
pub struct ItemBytes {
    address: String,
    end: Arc<PipeEnd>,
    route: Option<(Mailroom, u64)>,
    unframed: Unframer,
    done: bool,
}

/// Takes items out of records: each is a MessagePack `bin`, and may span records.
#[derive(Default)]
pub(crate) struct Unframer {
    /// What is left of the newest record.
    rest: Bytes,
    /// The beginning of an item whose end is in a later record.
    begun: BytesMut,
}

impl Unframer {
    /// More bytes.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.begun.is_empty() && self.rest.is_empty() {
            self.rest = bytes;
        } else {
            self.begun.extend_from_slice(&std::mem::take(&mut self.rest));
            self.begun.extend_from_slice(&bytes);
            self.rest = self.begun.split().freeze();
        }
    }

    /// The next whole item.
    pub(crate) fn pop(&mut self) -> Result<Option<Bytes>, String> {
        let (head, len) = match *self.rest {
            [] => return Ok(None),
            [0xc4, len, ..] => (2, usize::from(len)),
            [0xc6, a, b, c, d, ..] => (5, u32::from_be_bytes([a, b, c, d]) as usize),
            [0xc5, a, b, ..] => (3, usize::from(u16::from_be_bytes([a, b]))),
            [0xc4..=0xc6, ..] => return Ok(None), // the head itself is cut
            [other, ..] => {
                return Err(format!("an item begins with {other:#04x}, not with a bin head"));
            }
        };
        if len > ITEM_BYTES_MAX {
            return Err(format!("an item of {len} bytes is over the limit of {ITEM_BYTES_MAX}"));
        }
        if self.rest.len() < head + len {
            return Ok(None);
        }
        self.rest.advance(head);
        Ok(Some(self.rest.split_to(len)))
    }

    /// Whether it stands between two items.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.begun.is_empty()
    }
}

impl ItemBytes {
    pub(crate) fn new(address: String, end: Arc<PipeEnd>, route: Option<(Mailroom, u64)>) -> Self {
        Self { address, end, route, unframed: Unframer::default(), done: false }
    }

    /// The next item; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// The streaming call's fault, or how it broke off. Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    /// How many items there were in all, once the end was reached.
    pub fn ended(&self) -> Option<End> {
        self.end.their_end()
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            match self.unframed.pop() {
                Ok(Some(item)) => return Poll::Ready(Some(Ok(item))),
                Ok(None) => {}
                Err(problem) => return self.fail(CallError::Garbled(problem)),
            }
            match ready!(self.end.poll_bytes(cx)) {
                Ok(Some(bytes)) => self.unframed.push(bytes),
                Ok(None) => return self.finish(),
                Err(error) => {
                    let address = self.address.clone();
                    return self.fail(CallError::Broken { address, error });
                }
            }
        }
    }

    fn finish(&mut self) -> Poll<Option<Result<Bytes, CallError>>> {
        let fault = self.end.their_end().and_then(|end| end.fault);
        match fault {
            Some(fault) => {
                let address = self.address.clone();
                self.fail(CallError::Fault { address, fault })
            }
            None if !self.unframed.is_empty() => {
                self.fail(CallError::Garbled("the last item is cut".to_owned()))
            }
            None => {
                self.done = true;
                Poll::Ready(None)
            }
        }
    }

    fn fail(&mut self, error: CallError) -> Poll<Option<Result<Bytes, CallError>>> {
        self.done = true;
        Poll::Ready(Some(Err(error)))
    }
}

impl Drop for ItemBytes {
    fn drop(&mut self) {
        self.end.abandon();
        if let Some((mailroom, counter)) = &self.route {
            mailroom.unroute_call(*counter);
        }
    }
}

impl fmt::Debug for ItemBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemBytes").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The items of a streaming call. A [`Stream`]; it ends after the first error.
pub struct ItemStream<T> {
    items: ItemBytes,
    /// What the call was lent lives as long.
    _loans: Vec<Loan>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ItemStream<T> {
    pub(crate) fn new(items: ItemBytes, loans: Vec<Loan>) -> Self {
        Self { items, _loans: loans, of: PhantomData }
    }

    /// The next item; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`ItemBytes::next`]; also an item that is no `T`.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        let item = ready!(self.items.poll_item(cx));
        Poll::Ready(item.map(|item| {
            rmp_serde::from_slice(&item?).map_err(|e| CallError::Garbled(e.to_string()))
        }))
    }
}

impl<T: DeserializeOwned> Stream for ItemStream<T> {
    type Item = Result<T, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl<T> fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.fmt(f)
    }
}
