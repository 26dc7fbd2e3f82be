//! Answers on their way out. When many calls run, their answers go together: a write to the
//! socket costs more than a call, and each of them would wake the connection for its own.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::core::{Core, Letter};

/// With fewer calls running than this, an answer goes by itself: there is nothing to wait for.
const TOGETHER: usize = 8;

/// Answers that wait for others. There are no more of them than calls that run.
#[derive(Default)]
pub(crate) struct Outbox {
    running: AtomicUsize,
    waiting: Mutex<Vec<Letter>>,
    came: Notify,
}

/// A call that runs as a task of its own, while this lives.
pub(crate) struct Running(Arc<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.outbox.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// Counts a call that runs.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        self.outbox.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }
}

impl Outbox {
    /// Sends an answer: at once, or with those of the other calls that run.
    pub(crate) async fn send(&self, core: &Core, letter: Letter) {
        if self.running.load(Ordering::Relaxed) < TOGETHER {
            return core.publish(letter).await;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.came.notify_one();
    }

    fn take(&self) -> Vec<Letter> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Publishes what waits, until the exporter stops: then once more, so that no last answer is lost.
pub(crate) async fn post(core: Arc<Core>) {
    let mut stopping = false;
    while !stopping {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => stopping = true,
            () = core.outbox.came.notified() => {}
        }
        // Lets every call that is ready to answer do so first.
        tokio::task::yield_now().await;
        for letter in core.outbox.take() {
            core.publish(letter).await;
        }
    }
}
