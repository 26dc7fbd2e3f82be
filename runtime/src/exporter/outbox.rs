//! Answers on their way out. When many calls run, their answers go together: a write to the
//! socket costs more than a call, and each of them would wake the connection for its own.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus_schema::limits::CALLS_PER_CLIENT_MAX;
use tokio::sync::Notify;

use super::core::{Core, Letter};

/// With fewer calls running than this, an answer goes by itself: there is nothing to wait for.
const TOGETHER: usize = 8;

/// A call that comes this soon after another is one of many: at one in 20 µs a write for each
/// answer would be most of the work. One client that calls again when it is answered takes longer.
const SOON: Duration = Duration::from_micros(20);

/// Answers that wait at most: as many as one client may have calls.
const WAITING_MAX: usize = CALLS_PER_CLIENT_MAX;

/// Answers that wait for others.
#[derive(Default)]
pub(crate) struct Outbox {
    running: AtomicUsize,
    /// When the last call came, in ns of the exporter's uptime.
    came_at: AtomicU64,
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
    /// Takes note of a call that came `at` this uptime; says whether it is one of many.
    pub(crate) fn is_one_of_many(&self, at: Duration) -> bool {
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let before = self.came_at.swap(at, Ordering::Relaxed);
        Duration::from_nanos(at.saturating_sub(before)) < SOON
    }

    /// Sends answers together with those of others. Leaves them where they are if too many wait:
    /// whoever sends them otherwise feels that the connection is slow.
    pub(crate) fn put(&self, letters: &mut Vec<Letter>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.append(letters);
            drop(waiting);
            self.came.notify_one();
        }
    }

    /// Sends an answer: at once, or with those of the other calls that run.
    pub(crate) async fn send(&self, core: &Core, letter: Letter) {
        if self.running.load(Ordering::Relaxed) < TOGETHER {
            return core.publish(letter).await;
        }
        let mut letter = vec![letter];
        self.put(&mut letter);
        for letter in letter {
            core.publish(letter).await;
        }
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
