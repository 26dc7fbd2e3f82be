//! Calls that came together with others: one message to the exporter, many drivers' calls.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    ClientName, Refusal, RefusalCode,
    limits::CALLS_PER_CLIENT_MAX,
    message::Calls,
    subject::{DriverVerb, FromClient, Inbox},
};
use bytes::{Bytes, BytesMut};

use super::{
    core::Core,
    gate::{Envelope, Gate},
};
use crate::bus::Subject;

/// Of the last token of a reply subject.
const TOKEN_BYTES: usize = 16;

/// Lets in the calls of one message, in their order, as if each had come to its driver. None if the
/// message is damaged.
pub(crate) async fn unpack(
    core: &Arc<Core>,
    client: &ClientName,
    reply: &str,
    message: &Bytes,
) -> Option<()> {
    let calls = Calls::decode(message).ok().filter(|calls| calls.len() <= CALLS_PER_CLIENT_MAX)?;
    let (inbox, _) = Inbox::split(reply)?;
    let slots = core.slots();
    let mut replies = ReplySubjects::new(inbox, calls.len());
    let mut gate = Gate::new(core.clone());
    for (to, token, call) in calls {
        let (Some((id, method)), Some(_)) =
            (FromClient::driver_and_method(to), Inbox::token_in(token))
        else {
            core.stats.dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let Some(reply_to) = replies.subject(token) else { continue };
        match slots.by_id.get(&id) {
            Some(slot) => {
                let verb = Some(DriverVerb::Call);
                let envelope = Envelope { client: client.clone(), verb, method, reply_to };
                gate.take(slot, envelope, call);
            }
            None => {
                let text = format_args!("exporter {} has no driver {id}", core.name);
                gate.refuse(client, reply_to, Refusal::new(RefusalCode::NoDriver, text));
            }
        }
        if gate.is_full() {
            gate.publish().await;
        }
    }
    gate.publish().await;
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
