//! Calls that came together with others: one message to the exporter, many drivers' calls.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use bus_schema::{
    ClientName, DriverId, Failure, Refusal, RefusalCode,
    limits::{CALLS_PER_CLIENT_MAX, CALLS_PER_DRIVER_MAX},
    message::{Calls, Form},
    subject::{FromClient, Inbox},
};
use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::{
    answer::{Answer, Voice},
    core::Core,
    outbox::ReplyTo,
    slot::Slot,
};
use crate::bus::Subject;

/// Of the last token of a reply subject.
const TOKEN_BYTES: usize = 16;

/// A call that came with others.
pub(crate) struct Parcel {
    pub(crate) client: ClientName,
    pub(crate) reply_to: Subject,
    /// A slice of the message that it came in, as the call is.
    pub(crate) method: Bytes,
    pub(crate) call: Bytes,
}

/// The parcels of one driver, until its gate takes them.
#[derive(Default)]
pub(crate) struct Parcels {
    waiting: Mutex<Vec<Parcel>>,
    came: Notify,
}

impl Parcels {
    /// Waits for some. Cancel safe.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    pub(crate) fn take(&self) -> Vec<Parcel> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts them in for the gate; leaves those for which there is no room.
    fn put(&self, parcels: &mut Vec<Parcel>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = CALLS_PER_DRIVER_MAX.saturating_sub(waiting.len()).min(parcels.len());
        match waiting.is_empty() && room == parcels.len() {
            true => *waiting = std::mem::take(parcels),
            false => waiting.extend(parcels.drain(..room)),
        }
        drop(waiting);
        self.came.notify_one();
    }
}

/// Brings the calls of one message to the gates of their drivers, which is where they count as
/// having come. None if the message is damaged.
pub(crate) async fn distribute(
    core: &Arc<Core>,
    client: &ClientName,
    reply: &str,
    message: &Bytes,
) -> Option<()> {
    let calls = Calls::decode(message).ok().filter(|calls| calls.len() <= CALLS_PER_CLIENT_MAX)?;
    let (inbox, _) = Inbox::split(reply)?;
    let slots = core.slots();
    let mut refused = Vec::new();
    let mut refuse = |reply_to, refusal| {
        let answer = Answer::failed(Voice::Message(Form::Typed), Failure::Refused(refusal));
        let to = ReplyTo { subject: reply_to, together: false };
        refused.extend(core.letter(to, client, None, answer));
    };
    let mut replies = ReplySubjects::new(inbox, calls.len());
    // Those for one driver in a row go to its gate at once.
    let mut row: Option<(DriverId, Arc<Slot>)> = None;
    let mut parcels = Vec::new();
    for (to, token, call) in calls {
        let (Some((id, method)), Some(_)) =
            (FromClient::driver_and_method(to), Inbox::token_in(token))
        else {
            core.stats.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let Some(reply_to) = replies.subject(token) else { continue };
        if row.as_ref().is_none_or(|(of, _)| *of != id) {
            hand_over(row.take(), &mut parcels, &mut refuse);
            row = slots.by_id.get(&id).map(|slot| (id, slot.clone()));
        }
        match row {
            Some(_) => {
                let method = message.slice_ref(method.as_bytes());
                parcels.push(Parcel { client: client.clone(), reply_to, method, call });
            }
            None => {
                let text = format_args!("exporter {} has no driver {id}", core.name);
                refuse(reply_to, Refusal::new(RefusalCode::NoDriver, text));
            }
        }
    }
    hand_over(row, &mut parcels, &mut refuse);
    core.publish_all(&mut refused).await;
    Some(())
}

/// Reply subjects in one piece of memory.
struct ReplySubjects<'a> {
    inbox: &'a str,
    room: BytesMut,
}

impl<'a> ReplySubjects<'a> {
    fn new(inbox: &'a str, count: usize) -> Self {
        Self { inbox, room: BytesMut::with_capacity(count * (inbox.len() + 1 + TOKEN_BYTES)) }
    }

    /// The subject with this token.
    fn subject(&mut self, token: &str) -> Option<Subject> {
        for part in [self.inbox, ".", token] {
            self.room.extend_from_slice(part.as_bytes());
        }
        Subject::from_utf8(self.room.split().freeze()).ok()
    }
}

fn hand_over(
    row: Option<(DriverId, Arc<Slot>)>,
    parcels: &mut Vec<Parcel>,
    refuse: &mut impl FnMut(Subject, Refusal),
) {
    let Some((_, slot)) = row else { return };
    slot.parcels.put(parcels);
    for parcel in parcels.drain(..) {
        let text = format_args!("{CALLS_PER_DRIVER_MAX} calls wait at {} already", slot.address);
        let limit = CALLS_PER_DRIVER_MAX as u64;
        refuse(parcel.reply_to, Refusal::new(RefusalCode::Busy, text).with_limit(limit));
    }
}
