//! What a streaming call puts its items into.

use std::{fmt, future::poll_fn, marker::PhantomData, sync::Arc};

use bus_schema::{Failure, Fault, FaultKind, RawItems, encode_value, limits::ITEM_BYTES_MAX};
use serde::Serialize;

use super::{PipeEnd, StreamError, foreign};

/// Where a streaming call's items go. `send` waits while the caller is slow.
pub struct Items<T> {
    end: Arc<PipeEnd>,
    of: PhantomData<fn(T)>,
}

/// Items of any type: what the host hands over.
pub(crate) struct AnyItems(pub(crate) Arc<PipeEnd>);

/// Why an item was not taken. With `?` it ends the method.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ItemError {
    /// The caller is gone or has cancelled.
    #[error("nobody takes the items any more: {0}")]
    Gone(#[from] StreamError),
    /// The item cannot be encoded, or is too large.
    #[error(transparent)]
    Item(#[from] Fault),
}

impl From<ItemError> for Fault {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Gone(_) => Self::new(FaultKind::Cancelled, error),
            ItemError::Item(fault) => fault,
        }
    }
}

impl<T: Serialize> Items<T> {
    /// Sends one item. It goes at once; items that pile up go together.
    ///
    /// # Errors
    ///
    /// [`ItemError`] if the caller is gone, or the item cannot be sent.
    pub async fn send(&self, item: T) -> Result<(), ItemError> {
        let bytes = encode_value(&item)?;
        if bytes.len() > ITEM_BYTES_MAX {
            let len = bytes.len();
            let text = format!("an item of {len} bytes is over the limit of {ITEM_BYTES_MAX}");
            return Err(Fault::new(FaultKind::TooLarge, text).into());
        }
        poll_fn(|cx| self.end.poll_item(cx, &bytes)).await.map_err(ItemError::from)
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("sent", &self.end.chunks()).finish_non_exhaustive()
    }
}

impl<T> TryFrom<RawItems> for Items<T> {
    type Error = Failure;

    fn try_from(raw: RawItems) -> Result<Self, Failure> {
        let any: Box<AnyItems> = raw.0.downcast().map_err(|_| foreign("Items"))?;
        Ok(Self { end: any.0, of: PhantomData })
    }
}
