//! What the broker does not let us do. It says so in an error of its own, and whoever asked for
//! something that was denied gets no answer: the two are brought together by the subject.
//!
//! The errors come by async-nats' events, of which some may be lost when there are very many: what
//! waits for an answer keeps its own time as well.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_nats::{Event, ServerError};
use tokio::sync::{broadcast, watch};

/// Denials that a listener may be behind by. One that is further behind loses the oldest.
const BEHIND_MAX: usize = 128;
/// Denied subscriptions that are remembered until somebody asks.
const REMEMBERED_MAX: usize = 64;

/// Something that the broker has denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// What we wanted to do.
    pub(crate) action: Action,
    /// Where.
    pub(crate) subject: String,
}

/// What one can do with a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say something.
    Publish,
    /// Listen.
    Subscribe,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

impl Denial {
    /// Reads the broker's error, such as `Permissions Violation for Publish to "a.b"`.
    fn read(error: &str) -> Option<Self> {
        let rest = error.trim_matches('\'').strip_prefix("Permissions Violation for ")?;
        let (action, rest) = match rest.strip_prefix("Publish to \"") {
            Some(rest) => (Action::Publish, rest),
            None => (Action::Subscribe, rest.strip_prefix("Subscription to \"")?),
        };
        Some(Self { action, subject: rest.split('"').next()?.to_owned() })
    }
}

/// Why the broker does not let us in, or put us out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// It does not know who we are, or what we show is not valid (any more).
    #[error("it does not accept these credentials")]
    Unknown,
    /// They were revoked.
    #[error("these credentials were revoked")]
    Revoked,
    /// They have ended.
    #[error("these credentials have expired")]
    Expired,
}

impl TurnedAway {
    /// What the broker said, if it is about who we are.
    pub(super) fn read(error: &str) -> Option<Self> {
        let error = error.to_ascii_lowercase();
        if error.contains("authentication revoked") {
            Some(Self::Revoked)
        } else if error.contains("authentication expired") {
            Some(Self::Expired)
        } else {
            error.contains("authorization violation").then_some(Self::Unknown)
        }
    }
}

/// What one connection was denied. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Denials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    told: broadcast::Sender<Denial>,
    /// Subscriptions that were denied and that nobody has asked about.
    subscriptions: Mutex<VecDeque<String>>,
    turned_away: watch::Sender<Option<TurnedAway>>,
}

impl Default for Denials {
    fn default() -> Self {
        Self(Arc::new(Inner {
            told: broadcast::Sender::new(BEHIND_MAX),
            subscriptions: Mutex::default(),
            turned_away: watch::Sender::new(None),
        }))
    }
}

impl Denials {
    /// Takes note of an event of the connection.
    pub(super) fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => self.turn_away(None),
            Event::ServerError(error @ ServerError::AuthorizationViolation) => {
                self.turn_away_by(&error.to_string());
            }
            Event::ServerError(ServerError::Other(error)) => match Denial::read(error) {
                Some(denial) => self.deny(denial),
                None => self.turn_away_by(error),
            },
            // An attempt to connect again; it goes on trying.
            Event::ClientError(error) => self.turn_away_by(&error.to_string()),
            _ => {}
        }
    }

    fn deny(&self, denial: Denial) {
        if denial.action == Action::Subscribe {
            let mut denied = self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
            if denied.len() == REMEMBERED_MAX {
                denied.pop_front();
            }
            denied.push_back(denial.subject.clone());
        }
        let _ = self.0.told.send(denial); // nobody listens: nobody waits for anything
    }

    fn turn_away_by(&self, error: &str) {
        if let Some(why) = TurnedAway::read(error) {
            // What was said first is more than that it is still so.
            let known = self.turned_away();
            self.turn_away(Some(known.filter(|_| why == TurnedAway::Unknown).unwrap_or(why)));
        }
    }

    fn turn_away(&self, why: Option<TurnedAway>) {
        self.0.turned_away.send_if_modified(|known| std::mem::replace(known, why) != why);
    }

    /// What is denied from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Denial> {
        self.0.told.subscribe()
    }

    /// Whether the subscription to `subject` was denied. It is told once.
    pub(crate) fn was_denied(&self, subject: &str) -> bool {
        let mut denied = self.0.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = denied.iter().position(|denied| denied == subject);
        at.and_then(|at| denied.remove(at)).is_some()
    }

    /// Why the broker keeps us out, if it does.
    pub(crate) fn turned_away(&self) -> Option<TurnedAway> {
        *self.0.turned_away.borrow()
    }

    /// Waits until the broker keeps us out. Cancel safe.
    pub(crate) async fn until_turned_away(&self) -> TurnedAway {
        let mut why = self.0.turned_away.subscribe();
        let seen = why.wait_for(Option::is_some).await;
        seen.ok().and_then(|why| *why).unwrap_or(TurnedAway::Unknown)
    }

    /// Waits until it lets us in again. Cancel safe.
    pub(crate) async fn until_let_in(&self) {
        let mut why = self.0.turned_away.subscribe();
        let _ = why.wait_for(Option::is_none).await; // fails only without a sender, which we hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &str) -> Event {
        Event::ServerError(ServerError::Other(error.to_owned()))
    }

    #[test]
    fn the_brokers_errors_are_read() {
        let denials = Denials::default();
        let mut listener = denials.listen();
        denials.on_event(&told("Permissions Violation for Publish to \"lab.c.bob.x\""));
        denials.on_event(&told(
            "'Permissions Violation for Subscription to \"lab.i.bob.>\" using queue \"q\"'",
        ));
        denials.on_event(&told("Maximum Payload Violation"));
        let denial = |action, subject: &str| Denial { action, subject: subject.to_owned() };
        assert_eq!(listener.try_recv(), Ok(denial(Action::Publish, "lab.c.bob.x")));
        assert_eq!(listener.try_recv(), Ok(denial(Action::Subscribe, "lab.i.bob.>")));
        assert!(listener.try_recv().is_err());
        assert!(denials.was_denied("lab.i.bob.>") && !denials.was_denied("lab.i.bob.>"));
        assert!(!denials.was_denied("lab.c.bob.x"), "that was no subscription");
    }

    #[test]
    fn the_first_reason_to_be_turned_away_stays_until_one_is_let_in() {
        let denials = Denials::default();
        denials.on_event(&told("User Authentication Revoked"));
        denials.on_event(&Event::ServerError(ServerError::AuthorizationViolation));
        assert_eq!(denials.turned_away(), Some(TurnedAway::Revoked));
        denials.on_event(&told("'User Authentication Expired'"));
        let retried = async_nats::ClientError::Other("authorization violation: nats".to_owned());
        denials.on_event(&Event::ClientError(retried));
        assert_eq!(denials.turned_away(), Some(TurnedAway::Expired));
        denials.on_event(&Event::Connected);
        assert_eq!(denials.turned_away(), None);
    }

    #[test]
    fn a_flood_of_denials_takes_no_memory() {
        let denials = Denials::default();
        for n in 0..10_000 {
            denials
                .on_event(&told(&format!("Permissions Violation for Subscription to \"s.{n}\"")));
        }
        assert!(!denials.was_denied("s.0") && denials.was_denied("s.9999"));
        assert_eq!(denials.0.subscriptions.lock().unwrap().len(), REMEMBERED_MAX - 1);
    }
}
