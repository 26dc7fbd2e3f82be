//! The gate of one driver: every message to it comes in here, and is checked, counted and let in
//! or answered. It outlasts the driver's actors, so that one subscription serves them all.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    ClientName, Failure, Refusal, RefusalCode,
    message::Form,
    subject::{DriverVerb, FromClient, Streams, SubjectError, To},
};
use tokio::time::Instant;

use super::{
    answer::{Answer, Voice},
    core::Core,
    ledger::{Admission, Arrival},
    operation::{Work, work},
    request::{Asked, Request},
    slot::{Slot, Tenant},
};
use crate::bus::{Incoming, Subscription};

/// Serves one driver's subscription until the exporter stops. Cancel safe.
pub(crate) async fn gate(core: Arc<Core>, slot: Arc<Slot>, mut messages: Subscription) {
    loop {
        let message = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            message = messages.next() => message,
        };
        match message {
            Some(message) => receive(&core, &slot, message).await,
            None => return,
        }
    }
}

/// Who asked for what, and where the answer goes.
struct Envelope {
    client: ClientName,
    /// None is a verb of a newer version, which deserves an answer.
    verb: Option<DriverVerb>,
    method: Box<str>,
    reply_to: Arc<str>,
}

async fn receive(core: &Arc<Core>, slot: &Arc<Slot>, message: Incoming) {
    let envelope = match open(core, slot, &message) {
        Ok(envelope) => envelope,
        Err(why) => return core.drop_message(&message, why),
    };
    core.stats.requests.fetch_add(1, Ordering::Relaxed);
    if let Err((voice, refusal)) = let_in(core, slot, &envelope, message).await {
        core.stats.errors.fetch_add(1, Ordering::Relaxed);
        let answer = Answer::failed(voice, Failure::Refused(refusal));
        core.stats.ended(answer.ended);
        core.send_answer(&envelope.reply_to, &envelope.client, None, answer).await;
    }
}

/// Reads the envelope: subject and reply subject. An error says why the message is dropped
/// unread: whoever sent it is not the client that its subject names, or cannot be answered.
fn open(core: &Core, slot: &Slot, message: &Incoming) -> Result<Envelope, &'static str> {
    let reply = message.reply().ok_or("it has no reply subject")?;
    if message.is_from_jetstream() || Streams::is_delivery(reply) {
        return Err("JetStream was made to publish it");
    }
    const FOREIGN: &str = "its subject is not of the protocol";
    let (client, verb, method) = match FromClient::read(&core.root, message.subject()) {
        Ok(FromClient { client, to: To::Driver(verb, id, method), .. }) if id == slot.id => {
            (client, Some(verb), method.as_str().into())
        }
        Err(SubjectError::Verb) => {
            let client = FromClient::speaker(&core.root, message.subject()).ok_or(FOREIGN)?;
            (client, None, "".into())
        }
        Ok(_) | Err(SubjectError::Foreign) => return Err(FOREIGN),
    };
    if !core.may_answer(&client, reply) {
        return Err("its reply subject is not the client's");
    }
    Ok(Envelope { client, verb, method, reply_to: reply.into() })
}

async fn let_in(
    core: &Arc<Core>,
    slot: &Arc<Slot>,
    envelope: &Envelope,
    message: Incoming,
) -> Result<(), (Voice, Refusal)> {
    let Some(verb) = envelope.verb else {
        let known: Vec<_> = DriverVerb::ALL.iter().map(|verb| verb.as_str()).collect();
        let text = format_args!("no such verb: there are {}", known.join(", "));
        let refusal = Refusal::new(RefusalCode::UnknownVerb, text);
        return Err((Voice::Message(Form::Typed), refusal));
    };
    let asked = Asked::read(verb, message.into_payload())?;
    let voice = asked.voice;
    let refuse = |refusal| (voice, refusal);
    let tenant = slot.tenant().map_err(refuse)?;
    let (interface, method_at) = tenant.method(&envelope.method).map_err(refuse)?;
    let method = &interface.methods[method_at];
    asked.check(method).map_err(refuse)?;
    let pass = match method.observe {
        true => None,
        false => Some(slot.fence.admit(&envelope.client, asked.epoch).map_err(|refusal| {
            core.fenced_off(slot, &envelope.client, asked.epoch, &refusal);
            refuse(refusal)
        })?),
    };
    let arrival = Arrival {
        client: envelope.client.clone(),
        id: asked.id,
        driver: slot.id,
        fingerprint: asked.fingerprint(&envelope.method),
        age: asked.age,
        repeated: asked.repeated,
        deadline: asked.deadline,
        done_below: asked.done_below,
        bytes: asked.bytes(),
        pass,
        reply_to: envelope.reply_to.clone(),
    };
    let admission = core.ledger().admit(arrival, core.uptime());
    let answer = match admission {
        Admission::Joined => return Ok(()),
        Admission::Refused(refusal) => return Err(refuse(refusal)),
        Admission::Ended(answer) => answer,
        Admission::Unknown(why) => Answer::unknown(voice, why),
        Admission::Run(receipt) => {
            let request = Request {
                caller: envelope.client.clone(),
                id: asked.id,
                voice,
                interface,
                method_at,
                body: asked.body,
                open: asked.open,
                deadline: Instant::now() + asked.deadline,
                pass,
                reply_to: envelope.reply_to.clone(),
                receipt,
            };
            let Tenant { actor, driver, gone, .. } = tenant;
            let (core, slot) = (core.clone(), slot.clone());
            let tasks = core.tasks.clone();
            // Boxed: a task moves its future when it ends, and this is a large one.
            tasks.spawn(Box::pin(work(Work { core, slot, driver, actor, gone, request })));
            return Ok(());
        }
    };
    core.send_answer(&envelope.reply_to, &envelope.client, asked.id, answer).await;
    Ok(())
}
