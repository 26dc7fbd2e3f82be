//! How far an operation is, for those who watch.

use std::{sync::Arc, time::Duration};

use bus_schema::Fault;
use runtime::{Context, Items};
use tokio::{sync::watch, time::sleep};

use super::StorageProgress;

/// Between two items: nobody reads faster.
const EVERY: Duration = Duration::from_millis(200);

/// What an operation does now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<watch::Sender<StorageProgress>>);

/// Stands for one operation; nothing is done any more when it is dropped.
#[derive(Debug)]
pub(crate) struct Doing<'a>(&'a Meter);

impl Meter {
    /// Something begins.
    pub(crate) fn begin(&self, what: &str, total: Option<u64>) -> Doing<'_> {
        self.0.send_replace(StorageProgress { what: what.to_owned(), bytes: 0, total });
        Doing(self)
    }

    /// Tells how far it is, until the caller has enough.
    pub(crate) async fn tell(
        &self,
        cx: &Context,
        items: Items<StorageProgress>,
    ) -> Result<(), Fault> {
        let mut seen = self.0.subscribe();
        loop {
            let now = seen.borrow_and_update().clone();
            items.send(now).await?;
            tokio::select! {
                biased;
                () = cx.cancelled() => return Ok(()),
                changed = async { sleep(EVERY).await; seen.changed().await } => {
                    if changed.is_err() {
                        return Ok(()); // the driver is gone
                    }
                }
            }
        }
    }
}

impl Doing<'_> {
    /// So many bytes are done.
    pub(crate) fn at(&self, bytes: u64) {
        self.0.0.send_modify(|progress| progress.bytes = bytes);
    }
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.0.0.send_replace(StorageProgress::default());
    }
}
