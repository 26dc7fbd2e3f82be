//! A flag that is raised once, and that many may wait for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// That a call is no longer wanted, or that a driver is gone. Every call makes one and looks at
/// two, so both are cheap: a `CancellationToken` takes a lock for either. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    raised: AtomicBool,
    waiting: Notify,
}

/// Raises its flag when it is dropped.
#[derive(Debug)]
pub(crate) struct RaiseOnDrop(Flag);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        self.0.waiting.notify_waiters();
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Resolves when it is raised. Cancel safe.
    pub(crate) async fn raised(&self) {
        // Made before the look, so that a flag raised in between is noticed.
        let notified = self.0.waiting.notified();
        if !self.is_raised() {
            notified.await;
        }
    }

    pub(crate) fn raise_on_drop(self) -> RaiseOnDrop {
        RaiseOnDrop(self)
    }
}

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.0.raise();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_it_whenever_it_is_raised() {
        let flag = Flag::default();
        let (unpolled, mut polled) = (flag.raised(), Box::pin(flag.raised()));
        assert!((&mut polled).now_or_never().is_none());
        let guard = flag.clone().raise_on_drop();
        assert!(!flag.is_raised());
        drop(guard);
        assert!(flag.is_raised());
        polled.await;
        unpolled.await;
        flag.raised().await;
    }
}
