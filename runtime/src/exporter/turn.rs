//! The turn: the right to touch a device now. One holder at a time, in order of arrival.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::slot::MethodRef;

/// The turn of one physical thing. Drivers that share the thing share the turn. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    holder: Option<Holder>,
    waiting: VecDeque<(What, oneshot::Sender<TurnGuard>)>,
}

#[derive(Debug)]
struct Holder {
    what: What,
    since: Instant,
}

/// What a turn is wanted for, to be shown to those who wait.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Method(MethodRef),
    Word(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => f.write_str(&method.name),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// The turn, held. Dropping it passes it on.
#[derive(Debug)]
pub struct TurnGuard(Option<Turn>);

/// A place in the line. Dropping it leaves the line.
#[derive(Debug)]
pub(crate) enum Ticket {
    Now(TurnGuard),
    Later(oneshot::Receiver<TurnGuard>),
}

impl Turn {
    /// Takes the turn if nobody has it.
    pub(crate) fn if_free(&self, what: impl FnOnce() -> What) -> Option<TurnGuard> {
        let mut line = self.lock();
        if line.holder.is_some() {
            return None;
        }
        line.holder = Some(Holder { what: what(), since: Instant::now() });
        Some(TurnGuard(Some(self.clone())))
    }

    /// Takes a place in the line at once, so that order of arrival is order of service however
    /// tasks are scheduled.
    pub(crate) fn ticket(&self, what: What) -> Ticket {
        let mut line = self.lock();
        if line.holder.is_none() {
            line.holder = Some(Holder { what, since: Instant::now() });
            return Ticket::Now(TurnGuard(Some(self.clone())));
        }
        let (sender, receiver) = oneshot::channel();
        line.waiting.push_back((what, sender));
        Ticket::Later(receiver)
    }

    /// Who holds it, and for how long.
    pub(crate) fn holder(&self) -> Option<(String, Duration)> {
        let line = self.lock();
        line.holder.as_ref().map(|holder| (holder.what.to_string(), holder.since.elapsed()))
    }

    /// How many wait for it.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn pass_on(&self) {
        let mut line = self.lock();
        line.holder = None;
        while let Some((what, next)) = line.waiting.pop_front() {
            line.holder = Some(Holder { what, since: Instant::now() });
            match next.send(TurnGuard(Some(self.clone()))) {
                Ok(()) => return,
                // Left the line. Its guard must not pass the turn on: the lock is held here.
                Err(mut guard) => guard.0 = None,
            }
            line.holder = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for the turn. Cancel safe: dropping the future leaves the line.
    pub(crate) async fn turn(self) -> TurnGuard {
        match self {
            Self::Now(guard) => guard,
            Self::Later(receiver) => receiver.await.expect("a turn lives as long as its line"),
        }
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        if let Some(turn) = self.0.take() {
            turn.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_turn_goes_round_in_order_of_arrival() {
        let turn = Turn::default();
        let first = turn.ticket(What::Word("first")).turn().await;
        let (second, third, fourth) = (
            turn.ticket(What::Word("second")),
            turn.ticket(What::Word("third")),
            turn.ticket(What::Word("fourth")),
        );
        drop(third);
        drop(first);
        assert_eq!(turn.holder().unwrap().0, "second");
        drop(second); // served and gone before it looked
        assert_eq!(turn.holder().unwrap().0, "fourth");
        drop(fourth.turn().await);
        assert_eq!(turn.holder(), None);
    }
}
