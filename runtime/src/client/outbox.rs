//! Calls on their way out. When many are open, those to drivers of one exporter go together: a
//! message costs the broker and both ends more than a call.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    DriverId, ExporterName,
    limits::{CALLS_BYTES_MAX, CALLS_PER_CLIENT_MAX},
    message::Calls,
    subject::{ExporterVerb, To},
};
use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::bus::Subject;

/// With fewer calls open than this, a call goes by itself: there is nothing to wait for.
const TOGETHER: usize = 8;
/// A larger call goes by itself: what it saves is nothing beside its bytes.
pub(super) const PARCEL_BYTES_MAX: usize = 4 << 10;
/// Room for parcels that is kept.
const IDLE_PARCELS: usize = 1024;
/// What a driver's id takes.
const DRIVER_BYTES: usize = 36;
/// So long nothing goes together to an exporter that did not take it, or may not be sent it.
const ALONE_FOR: Duration = Duration::from_secs(60);

/// A call that goes with others.
pub(super) struct Parcel {
    pub(super) exporter: ExporterName,
    pub(super) driver: DriverId,
    pub(super) method: Box<str>,
    /// The last of its reply subject.
    pub(super) token: u64,
    pub(super) call: Bytes,
}

/// Calls that wait for others: as many as somebody waits for.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Vec<Parcel>>,
    came: Arc<Notify>,
    /// Exporters that are sent each call by itself, since then.
    alone: Mutex<HashMap<ExporterName, Instant>>,
    /// Whether there are any: mostly there are none, and every call looks.
    any_alone: AtomicU64,
    packs: AtomicU64,
}

impl Parcel {
    /// What it takes in a message.
    fn bytes(&self) -> usize {
        DRIVER_BYTES + 1 + self.method.len() + self.call.len() + Calls::OVERHEAD_BYTES_MAX
    }
}

impl Outbox {
    /// Whether a call goes with others, now that so many are open.
    pub(super) fn takes(&self, exporter: &ExporterName, open: usize) -> bool {
        open >= TOGETHER && !self.is_alone(exporter)
    }

    pub(super) fn put(&self, parcel: Parcel) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(parcel);
        self.came.notify_one();
    }

    /// Takes what waits, and leaves the room that `emptied` has.
    fn take(&self, emptied: &mut Vec<Parcel>) {
        std::mem::swap(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner), emptied);
    }

    /// Calls to this exporter go by themselves for a while.
    pub(super) fn leave_alone(&self, exporter: &ExporterName) {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        alone.retain(|_, since| since.elapsed() < ALONE_FOR);
        alone.insert(exporter.clone(), Instant::now());
        self.any_alone.store(alone.len() as u64, Ordering::Relaxed);
    }

    fn is_alone(&self, exporter: &ExporterName) -> bool {
        self.any_alone.load(Ordering::Relaxed) > 0
            && self
                .alone
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(exporter)
                .is_some_and(|since| since.elapsed() < ALONE_FOR)
    }
}

/// Sends what waits, until the client is closed.
pub(super) async fn post(client: Weak<Inner>, stop: CancellationToken) {
    let Some(came) = client.upgrade().map(|inner| inner.outbox.came.clone()) else { return };
    let mut parcels = Vec::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = came.notified() => {}
        }
        let Some(inner) = client.upgrade() else { return };
        // Lets every call that is ready to be sent come along.
        tokio::task::yield_now().await;
        inner.outbox.take(&mut parcels);
        // In their order, as far as one exporter sees it.
        parcels.sort_by(|a, b| a.exporter.cmp(&b.exporter));
        let room = CALLS_BYTES_MAX.min(inner.control().max_payload());
        let mut rest = parcels.as_slice();
        while !rest.is_empty() {
            let (together, others) = rest.split_at(fitting(rest, room));
            rest = others;
            inner.send_together(together).await;
        }
        parcels.clear();
        parcels.shrink_to(IDLE_PARCELS);
    }
}

/// How many of the first parcels go as one message.
fn fitting(parcels: &[Parcel], room: usize) -> usize {
    let mut bytes = parcels[0].bytes();
    let others = parcels[1..].iter().take(CALLS_PER_CLIENT_MAX - 1).take_while(|parcel| {
        bytes += parcel.bytes();
        bytes <= room && parcel.exporter == parcels[0].exporter
    });
    1 + others.count()
}

impl Inner {
    /// Sends calls to one exporter. Who waits for them hears if that does not work.
    async fn send_together(&self, parcels: &[Parcel]) {
        let [first, ..] = parcels else { return };
        let pack = self.outbox.packs.fetch_add(1, Ordering::Relaxed) + 1;
        let to = To::Exporter(ExporterVerb::Calls);
        let subject = Subject::from(self.subject(&first.exporter, to));
        let parcels = self.mailroom.pack(parcels, &subject, pack);
        let Some(first) = parcels.first() else { return }; // nobody waits for them any more
        let bytes = parcels.iter().map(|parcel| parcel.bytes()).sum();
        let calls = parcels.iter().map(|one| (one.driver, &*one.method, one.token, &*one.call));
        let message = Calls::encode(calls, bytes);
        let reply_to = self.inbox.token(first.token);
        let sent = self.control().request(subject, reply_to, message).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "calls not sent: they will be asked about");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(exporter: &str) -> Parcel {
        let exporter: ExporterName = exporter.parse().unwrap();
        let driver = DriverId::at(&exporter, &"".parse().unwrap());
        Parcel { exporter, driver, method: "on".into(), token: 7, call: vec![0; 10].into() }
    }

    #[test]
    fn what_goes_together_is_for_one_exporter_and_fits() {
        let parcels = [parcel("a"), parcel("a"), parcel("b")];
        assert_eq!(fitting(&parcels, 1000), 2);
        let room = 2 * parcels[0].bytes();
        assert_eq!((fitting(&parcels, room), fitting(&parcels, room - 1)), (2, 1));
        assert_eq!(fitting(&parcels, 0), 1, "it goes by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_calls_together_is_left_alone_for_a_while() {
        let (outbox, name) = (Outbox::default(), "a".parse().unwrap());
        assert!(outbox.takes(&name, TOGETHER) && !outbox.takes(&name, TOGETHER - 1));
        outbox.leave_alone(&name);
        assert!(!outbox.takes(&name, TOGETHER));
        assert!(outbox.takes(&"b".parse().unwrap(), TOGETHER));
        tokio::time::advance(ALONE_FOR).await;
        assert!(outbox.takes(&name, TOGETHER));
    }
}
