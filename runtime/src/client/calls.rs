//! The calls of a client that are not answered yet.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    CallId, ExporterName, Session, codec,
    limits::{ASK_EVERY, ASK_FIRST, ASK_IDS_MAX, ASKS_UNANSWERED_MAX},
    message::{Ask, Cancel, Progress, Told},
    subject::{ExporterVerb, To},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::bus::Conn;

use super::{
    CallError, Inner,
    mailroom::{Letter, Letters},
};

/// How often the calls are looked over.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// An exporter that is not there may be reconnecting after the same outage as we were.
const RECONNECT_GRACE: Duration = Duration::from_secs(10);

/// The open calls.
pub(crate) struct Calls {
    session: Session,
    next: AtomicU64,
    open: Mutex<Open>,
    /// The newest reconnect that was noticed: which connection it made, and when.
    reconnect: Mutex<Option<(u64, Instant)>>,
}

#[derive(Default)]
struct Open {
    /// Calls that are still waited for: the lowest counter tells exporters what to forget. Those
    /// that were sent can be asked about.
    calls: BTreeMap<u64, Option<Sent>>,
}

struct Sent {
    exporter: ExporterName,
    /// When nothing is expected any more.
    until: Instant,
    /// When it is asked about next.
    ask_at: Instant,
    unanswered: u32,
    news: Arc<Letters>,
}

/// What the asking found out about a call.
#[derive(Debug)]
pub(crate) enum News {
    /// The exporter has not seen it since it was started, at the latest at this moment.
    Unseen(Instant),
    /// There is nobody to ask any more.
    Lost(&'static str),
    /// Its time is up.
    Late,
}

impl Calls {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            next: AtomicU64::new(1),
            open: Mutex::default(),
            reconnect: Mutex::default(),
        }
    }

    /// Whether this client was cut off a moment ago: an exporter that is not there may be
    /// reconnecting after the same outage.
    pub(crate) fn is_fresh(&self, conn: &Conn) -> bool {
        let connects = conn.connects();
        let noticed = *self.reconnect.lock().unwrap_or_else(PoisonError::into_inner);
        connects > 1
            && noticed.is_none_or(|(n, at)| n != connects || at.elapsed() < RECONNECT_GRACE)
    }

    /// Tells the calls whose time is up, and says when to look again. (A timer for each would cost
    /// every call as much as its journey through the mailroom.) `LAST_WORDS` is longer than
    /// [`LOOK_EVERY`], so every call is seen before it is due.
    fn call_time(&self, now: Instant) -> Instant {
        let mut next = now + LOOK_EVERY;
        for sent in self.lock().calls.values().flatten() {
            match sent.until <= now {
                true => sent.news.push_late(),
                false => next = next.min(sent.until),
            }
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new call. It is waited for until its guard is dropped.
    pub(crate) fn begin<'a>(inner: &'a Arc<Inner>, exporter: &'a ExporterName) -> CallGuard<'a> {
        let calls = &inner.calls;
        let mut open = calls.lock();
        // Under the lock, so that no counter is passed over by `done_below`.
        let counter = calls.next.fetch_add(1, Ordering::Relaxed);
        open.calls.insert(counter, None);
        let beside = open.calls.len();
        let done_below = open.calls.first_key_value().map_or(counter, |(first, _)| *first);
        drop(open);
        CallGuard {
            beside,
            done_below,
            inner,
            exporter,
            id: CallId { session: calls.session, counter },
            cancel_on_drop: false,
        }
    }
}

/// An open call. Dropped before its answer it is cancelled.
pub(crate) struct CallGuard<'a> {
    inner: &'a Arc<Inner>,
    exporter: &'a ExporterName,
    pub(crate) id: CallId,
    /// How many calls were open when it began, with it.
    pub(crate) beside: usize,
    /// The lowest counter that was still waited for then. Later it may be higher: to say so could
    /// only let the exporter forget a little sooner.
    pub(crate) done_below: u64,
    cancel_on_drop: bool,
}

impl CallGuard<'_> {
    /// It is sent by itself, however many others are open.
    pub(crate) fn alone(mut self) -> Self {
        self.beside = 0;
        self
    }

    /// It is about to be sent. From now on it is asked about, until its time is up, and news of it
    /// go to `news`.
    pub(crate) fn sent(&mut self, news: &Arc<Letters>, now: Instant, until: Instant) {
        self.cancel_on_drop = true;
        let (exporter, ask_at) = (self.exporter.clone(), now + ASK_FIRST);
        let sent = Sent { exporter, until, ask_at, unanswered: 0, news: news.clone() };
        self.inner.calls.lock().calls.insert(self.id.counter, Some(sent));
    }

    /// It was answered: nothing is left to cancel.
    pub(crate) fn answered(&mut self) {
        self.cancel_on_drop = false;
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.inner.calls.lock().calls.remove(&self.id.counter);
        if self.cancel_on_drop && !self.inner.stop.is_cancelled() {
            let (inner, exporter, id) = (self.inner.clone(), self.exporter.clone(), self.id);
            self.inner.tasks.spawn(async move { cancel(&inner, &exporter, id).await });
        }
    }
}

/// Tells the exporter that a call is no longer wanted. Best effort: if it is lost the call runs to
/// its deadline.
async fn cancel(inner: &Arc<Inner>, exporter: &ExporterName, id: CallId) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let message = codec::encode(&Cancel { ids: vec![id] });
    let to = To::Exporter(ExporterVerb::Cancel);
    tokio::select! {
        biased; // a client that is closed right after still sends it, and waits for no answer
        _ = inner.ask_exporter(exporter, to, message, PATIENCE) => {}
        () = inner.stop.cancelled() => {}
    }
}

/// Asks about calls that are not answered, until the client is closed. Never silent: a call is
/// answered, asked about, or lost.
pub(crate) async fn ask_about_silent_ones(client: Weak<Inner>, stop: CancellationToken) {
    let mut look = Instant::now();
    let mut connects = client.upgrade().map_or(0, |inner| inner.control().connects());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep_until(look) => {}
        }
        let Some(inner) = client.upgrade() else { return };
        look = inner.calls.call_time(Instant::now());
        if !inner.control().is_connected() {
            continue;
        }
        let now = inner.control().connects();
        let reconnected = std::mem::replace(&mut connects, now) != now;
        if reconnected {
            let noticed = Some((now, Instant::now()));
            *inner.calls.reconnect.lock().unwrap_or_else(PoisonError::into_inner) = noticed;
        }
        for (exporter, ids) in due(&inner.calls, reconnected) {
            let fresh = inner.calls.is_fresh(inner.control());
            let (asking, stop) = (inner.clone(), stop.clone());
            inner.tasks.spawn(async move {
                // Whoever closes the client has given its calls up.
                stop.run_until_cancelled(ask(&asking, &exporter, &ids, fresh)).await
            });
        }
    }
}

/// The calls to ask about now, by exporter. After a reconnect those are all of them: their
/// answers may have been sent while nobody listened.
fn due(calls: &Calls, all: bool) -> Vec<(ExporterName, Vec<u64>)> {
    let now = Instant::now();
    let mut due = BTreeMap::<ExporterName, Vec<u64>>::new();
    for (counter, sent) in &mut calls.lock().calls {
        if let Some(sent) = sent
            && (all || sent.ask_at <= now)
        {
            sent.ask_at = now + ASK_EVERY;
            due.entry(sent.exporter.clone()).or_default().push(*counter);
        }
    }
    due.into_iter()
        .flat_map(|(exporter, all)| {
            let parts = all.chunks(ASK_IDS_MAX).map(<[u64]>::to_vec).collect::<Vec<_>>();
            parts.into_iter().map(move |part| (exporter.clone(), part))
        })
        .collect()
}

async fn ask(inner: &Arc<Inner>, exporter: &ExporterName, counters: &[u64], fresh: bool) {
    let session = inner.session;
    let ids = counters.iter().map(|counter| CallId { session, counter: *counter }).collect();
    let to = To::Exporter(ExporterVerb::Ask);
    let answer = inner.ask_exporter(exporter, to, codec::encode(&Ask { ids }), ASK_FIRST * 2).await;
    let told = match answer {
        Ok(answer) => codec::decode::<Told>(answer.payload()).ok(),
        Err(CallError::NoDriver { .. }) if !fresh => {
            return tell(inner, counters, |_| Some(News::Lost("nobody listens for it any more")));
        }
        Err(_) => None,
    };
    let Some(Told { uptime_ms, calls, .. }) = told else {
        let again_at = Instant::now() + if fresh { LOOK_EVERY * 3 } else { ASK_EVERY };
        return tell(inner, counters, |sent| {
            sent.unanswered += u32::from(!fresh);
            sent.ask_at = again_at;
            let lost = sent.unanswered >= ASKS_UNANSWERED_MAX;
            lost.then_some(News::Lost("it no longer answers questions about the call"))
        });
    };
    let now = Instant::now();
    let started = now.checked_sub(Duration::from_millis(uptime_ms)).unwrap_or(now);
    for (counter, progress) in counters.iter().zip(calls) {
        tell(inner, &[*counter], |sent| {
            sent.unanswered = 0;
            matches!(progress, Progress::Unknown).then_some(News::Unseen(started))
        });
    }
}

fn tell(inner: &Inner, counters: &[u64], news: impl Fn(&mut Sent) -> Option<News>) {
    let mut open = inner.calls.lock();
    for counter in counters {
        if let Some(Some(sent)) = open.calls.get_mut(counter)
            && let Some(news) = news(sent)
        {
            sent.news.push(Letter::News(news)); // full: the call has not looked at the last news yet
        }
    }
}
