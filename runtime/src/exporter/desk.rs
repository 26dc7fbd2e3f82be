//! The exporter's own subjects: how calls are getting on, cancel, ping, and the messages of open
//! streams.

use std::sync::{Arc, atomic::Ordering};

use bus_schema::{
    AdminAction, AdminAsk, Administered, ClientName, LeaseAsk, Leased, Refusal, RefusalCode, codec,
    limits::ASK_IDS_MAX,
    message::{Ask, Cancel, Ping, Pong, Told, Unknown},
    subject::{ExporterVerb, FromClient, FromExporter, To},
};
use bytes::Bytes;

use super::{
    answer::{Answer, Voice},
    core::Core,
    lease::Word,
    parcels::unpack,
};
use crate::{
    bus::{BusError, Incoming, Subscription},
    stream::{Heard, no_stream},
};

/// The subscriptions of the exporter itself. Data has the bulk connection, so that what controls
/// it never queues behind it.
pub(crate) async fn subscribe(core: &Core) -> Result<Vec<(ExporterVerb, Subscription)>, BusError> {
    let mut subscriptions = Vec::new();
    for verb in ExporterVerb::ALL {
        let conn = if *verb == ExporterVerb::Up { &core.bulk } else { core.control() };
        let subject = FromClient::exporter_wildcard(&core.root, &core.name, *verb);
        subscriptions.push((*verb, conn.subscribe(subject).await?));
    }
    Ok(subscriptions)
}

/// Serves one of them until the exporter stops.
pub(crate) async fn desk(core: Arc<Core>, verb: ExporterVerb, mut messages: Subscription) {
    loop {
        let message = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            message = messages.next() => message,
        };
        let Some(message) = message else { return };
        if let Some(why) = suspicion(&core, &message) {
            core.drop_message(&message, why);
        } else if receive(&core, verb, message).await.is_none() {
            core.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a message is not from whom it seems to be, if it is not.
fn suspicion(core: &Core, message: &Incoming) -> Option<&'static str> {
    let Ok(FromClient { client, .. }) = FromClient::read(&core.root, message.subject()) else {
        return Some("its subject is not of the protocol");
    };
    let Some(reply) = message.reply() else { return Some("it has no reply subject") };
    (!core.may_answer(&client, reply)).then_some("its reply subject is not the client's")
}

async fn receive(core: &Arc<Core>, verb: ExporterVerb, message: Incoming) -> Option<()> {
    let FromClient { client, to, .. } = FromClient::read(&core.root, message.subject()).ok()?;
    match to {
        To::Stream(ExporterVerb::Up, id) => {
            let heard = core.switchboard.data(id, client.as_str(), message.payload());
            tell(core, &client, id, heard).await
        }
        To::Stream(_, id) => {
            let heard = core.switchboard.control(id, client.as_str(), message.payload());
            tell(core, &client, id, heard).await
        }
        To::Exporter(ExporterVerb::Calls) => {
            unpack(core, &client, message.reply()?, message.payload()).await
        }
        To::Exporter(_) => {
            let reply = message.reply()?;
            match answer(core, &client, verb, reply, message.payload()).await? {
                Some(answer) => core.control().publish(reply.to_owned(), answer).await.ok(),
                None => Some(()),
            }
        }
        To::Driver(..) => None,
    }
}

/// Tells a client of a stream that is not there: it would wait for it in vain.
async fn tell(
    core: &Core,
    client: &ClientName,
    id: bus_schema::StreamId,
    heard: Heard,
) -> Option<()> {
    match heard {
        Heard::Taken => Some(()),
        Heard::Ignored => None,
        Heard::NoStream => {
            let ctl = FromExporter::Ctl(core.name.clone(), client.clone(), id.session(), id);
            core.control().say(ctl.under(&core.root), &core.mark, no_stream()).await.ok()
        }
    }
}

/// The answer; an inner none is given by somebody else, an outer none means dropped.
async fn answer(
    core: &Arc<Core>,
    client: &ClientName,
    verb: ExporterVerb,
    reply: &str,
    payload: &Bytes,
) -> Option<Option<Bytes>> {
    let answer = match verb {
        ExporterVerb::Ping => {
            codec::decode::<Ping>(payload).ok()?;
            Some(codec::encode(&Pong {
                incarnation: core.incarnation,
                host: core.host.clone(),
                uptime_ms: core.uptime_ms(),
            }))
        }
        ExporterVerb::Ask => {
            let Ask { ids } = codec::decode(payload).ok()?;
            Some(told(core, client, &ids).await)
        }
        ExporterVerb::Cancel => {
            let Cancel { ids } = codec::decode(payload).ok()?;
            {
                let mut ledger = core.ledger();
                for id in ids.iter().take(ASK_IDS_MAX) {
                    ledger.cancel(client, *id);
                }
            }
            Some(told(core, client, &ids).await)
        }
        // The keeper of leases answers when it has written down what it says.
        ExporterVerb::Lease => match codec::decode::<LeaseAsk>(payload) {
            Ok(ask) => {
                let (client, reply) = (client.clone(), reply.to_owned());
                core.leases.tell(Word::Lease { client, ask, reply })?;
                None
            }
            Err(error) => Some(codec::encode(&Leased::Refused(Refusal::from(&error)))),
        },
        ExporterVerb::Admin => match codec::decode::<AdminAsk>(payload) {
            Ok(AdminAsk { action: AdminAction::Reload, .. }) => {
                core.tasks.spawn(reload(core.clone(), client.clone(), reply.to_owned()));
                None
            }
            Ok(ask) => {
                let (client, reply) = (client.clone(), reply.to_owned());
                core.leases.tell(Word::Admin { client, ask, reply })?;
                None
            }
            Err(error) => Some(codec::encode(&Administered::Refused(Refusal::from(&error)))),
        },
        ExporterVerb::Ctl | ExporterVerb::Up | ExporterVerb::Calls => return None,
    };
    Some(answer)
}

/// Reads the configuration anew for an admin, and answers when that is done.
async fn reload(core: Arc<Core>, client: ClientName, reply: String) {
    let done = core.stop.run_until_cancelled(core.reloads.ask(client.to_string())).await;
    let answer = match done {
        Some(Ok(text)) => Administered::Done { text },
        Some(Err(text)) => Administered::Refused(Refusal::new(RefusalCode::Failed, text)),
        None => return,
    };
    let _ = core.control().publish(reply, codec::encode(&answer)).await; // or it is closed
}

/// How calls are getting on. The answers of those that have one are sent again.
async fn told(core: &Arc<Core>, client: &ClientName, ids: &[bus_schema::CallId]) -> Bytes {
    let mut calls = Vec::with_capacity(ids.len().min(ASK_IDS_MAX));
    for id in ids.iter().take(ASK_IDS_MAX) {
        let (progress, ended) = core.ledger().ask(client, *id, core.uptime());
        calls.push(progress);
        if let Some((reply_to, answer)) = ended {
            let answer = answer.unwrap_or_else(|| {
                Answer::unknown(Voice::Message(Default::default()), Unknown::Dropped)
            });
            if let Some(letter) = core.letter(reply_to, client, Some(*id), answer) {
                core.publish(&letter).await;
            }
        }
    }
    codec::encode(&Told { incarnation: core.incarnation, uptime_ms: core.uptime_ms(), calls })
}
