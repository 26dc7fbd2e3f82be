//! Answers on their way out. When many calls run, their answers go together: a write to the
//! socket costs more than a call, and each of them would wake the connection for its own. Those for
//! one client process that takes them so are one message: the broker has each to find its reader.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    limits::{CALLS_PER_CLIENT_MAX, REPLIES_BYTES_MAX},
    message::Replies,
    subject::Inbox,
};
use bytes::Bytes;
use tokio::sync::Notify;

use super::core::Core;
use crate::bus::{BusError, Subject};

/// With fewer calls running than this, an answer goes by itself: there is nothing to wait for.
const TOGETHER: usize = 8;

/// A call that comes this soon after another is one of many: at one in 20 µs a write for each
/// answer would be most of the work. One client that calls again when it is answered takes longer.
const SOON: Duration = Duration::from_micros(20);

/// Answers that wait at most: as many as one client may have calls.
const WAITING_MAX: usize = CALLS_PER_CLIENT_MAX;

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub(crate) subject: Subject,
    /// Whether its asker takes it together with others.
    pub(crate) together: bool,
}

/// An answer on its way out.
pub(crate) struct Letter {
    pub(crate) to: ReplyTo,
    pub(crate) message: Bytes,
    /// The service API's headers (ADR-32).
    pub(crate) error: Option<(u16, String)>,
}

impl Letter {
    /// The inbox and the token that it goes to, if it may go together with others.
    fn packable(&self) -> Option<(&str, &str)> {
        (self.to.together && self.error.is_none()).then(|| Inbox::split(&self.to.subject)).flatten()
    }

    /// What it takes in a pack.
    fn bytes(&self) -> usize {
        self.to.subject.len() + self.message.len() + Replies::OVERHEAD_BYTES_MAX
    }
}

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

    /// Sends answers, those for one inbox in as few messages as they fit in.
    pub(crate) async fn publish_all(&self, letters: &mut Vec<Letter>) {
        if letters.len() > 1 {
            letters.sort_by(|a, b| inbox(a).cmp(&inbox(b)));
        }
        let room = REPLIES_BYTES_MAX.min(self.control().max_payload());
        let mut rest = letters.as_slice();
        while let [first, ..] = rest {
            let (together, others) = rest.split_at(fitting(rest, room));
            rest = others;
            match together {
                [_] => self.publish(first).await,
                _ => {
                    let replies = together.iter().map(|letter| {
                        let (_, token) = letter.packable().expect("only such are put together");
                        (token, &*letter.message)
                    });
                    let message = Replies::encode(replies);
                    said(self.control().publish(first.to.subject.clone(), message).await);
                }
            }
        }
        letters.clear();
    }

    /// Sends an answer.
    pub(crate) async fn publish(&self, letter: &Letter) {
        let Letter { to, message, error } = letter;
        said(match error {
            None => self.control().publish(to.subject.clone(), message.clone()).await,
            // Boxed, as is all that is rare.
            Some((code, text)) => Box::pin(self.publish_error(to, *code, text, message)).await,
        });
    }

    async fn publish_error(
        &self,
        to: &ReplyTo,
        code: u16,
        text: &str,
        message: &Bytes,
    ) -> Result<(), BusError> {
        let code = code.to_string();
        let headers = [("Nats-Service-Error-Code", &*code), ("Nats-Service-Error", text)];
        self.control().publish_with(to.subject.clone(), None, &headers, message.clone()).await
    }
}

fn inbox(letter: &Letter) -> Option<&str> {
    letter.packable().map(|(inbox, _)| inbox)
}

/// How many of the first letters go as one message.
fn fitting(letters: &[Letter], room: usize) -> usize {
    let Some(to) = inbox(&letters[0]) else { return 1 };
    let mut bytes = letters[0].bytes();
    let others = letters[1..].iter().take_while(|letter| {
        bytes += letter.bytes();
        bytes <= room && inbox(letter) == Some(to)
    });
    1 + others.count()
}

fn said(sent: Result<(), BusError>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "answer not sent");
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
            return core.publish(&letter).await;
        }
        let mut letter = vec![letter];
        self.put(&mut letter);
        core.publish_all(&mut letter).await;
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
        core.publish_all(&mut core.outbox.take()).await;
    }
}

#[cfg(test)]
mod tests {
    use bus_schema::{Root, Session};

    use super::*;

    /// A letter of ten bytes to a client's process.
    fn letter(process: u64, token: u64) -> Letter {
        let inbox = Inbox::of_client(&Root::default(), &"bob".parse().unwrap(), Session(process));
        let to = ReplyTo { subject: inbox.token(token).into(), together: true };
        Letter { to, message: vec![0; 10].into(), error: None }
    }

    #[test]
    fn what_goes_together_is_of_one_inbox_and_fits() {
        let mut letters = vec![letter(1, 0), letter(1, 1), letter(2, 0)];
        assert_eq!(fitting(&letters, 1000), 2);
        let room = letters[0].bytes() + letters[1].bytes();
        assert_eq!((fitting(&letters, room), fitting(&letters, room - 1)), (2, 1));
        assert_eq!(fitting(&letters, 0), 1, "it goes by itself");
        letters[1].to.together = false;
        assert_eq!(fitting(&letters, 1000), 1);
        assert_eq!(fitting(&letters[1..], 1000), 1);
        letters[1] = letter(1, 1);
        letters[1].error = Some((429, "busy".to_owned()));
        assert_eq!(fitting(&letters, 1000), 1, "a message has one set of headers");
    }
}
