//! The NATS service API (ADR-32), so that `nats micro` lists exporters. It has its own task: a
//! busy driver never delays discovery.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bus_schema::{
    ClientName,
    subject::{DriverVerb, FromClient, Inbox, ServiceVerb},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value as Json, json};

use super::core::Core;
use crate::bus::{Incoming, Subscription};

/// Answers until the exporter stops.
pub(crate) async fn serve(core: Arc<Core>) {
    let mut subscriptions = Vec::new();
    for verb in ServiceVerb::ALL {
        for subject in verb.subjects(core.incarnation) {
            match core.control().subscribe(subject).await {
                Ok(subscription) => subscriptions.push(messages(*verb, subscription)),
                Err(_closed) => return,
            }
        }
    }
    let mut asked = stream::select_all(subscriptions);
    loop {
        let next = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            next = asked.next() => next,
        };
        let Some((verb, message)) = next else { return };
        // Anybody may publish to `$SRV`; only a request has a reply subject.
        let Some(reply) = message.reply().filter(|reply| is_inbox(&core, reply)) else {
            core.drop_message(&message, "its reply subject is no inbox");
            continue;
        };
        let answer = Bytes::from(answer(&core, verb).to_string());
        let _ = core.control().publish(reply.to_owned(), answer).await; // or the connection is closed
    }
}

fn messages(
    verb: ServiceVerb,
    subscription: Subscription,
) -> stream::BoxStream<'static, (ServiceVerb, Incoming)> {
    stream::unfold(subscription, move |mut subscription| async move {
        let message = subscription.next().await?;
        Some(((verb, message), subscription))
    })
    .boxed()
}

/// Where an answer may go: an inbox, and not whatever subject the asker names.
fn is_inbox(core: &Core, reply: &str) -> bool {
    let client = reply.split('.').nth(3).and_then(|name| name.parse::<ClientName>().ok());
    reply.starts_with("_INBOX.")
        || client.is_some_and(|client| Inbox::belongs_to(reply, &core.root, &client))
}

fn answer(core: &Core, verb: ServiceVerb) -> Json {
    let head = json!({
        "name": ServiceVerb::SERVICE,
        "id": core.incarnation.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "metadata": { "exporter": core.name.as_str(), "host": core.host, "root": core.root.as_str() },
    });
    let endpoints = DriverVerb::ALL.iter().map(|verb| {
        let mut endpoint = json!({
            "name": verb.as_str(),
            "subject": FromClient::verb_wildcard(&core.root, &core.name, *verb),
            "queue_group": "",
        });
        if let Json::Object(map) = &mut endpoint {
            map.extend(stats(core, *verb));
        }
        endpoint
    });
    let with = |kind: &str, more: Json| {
        let mut answer = head.clone();
        if let (Json::Object(answer), Json::Object(more)) = (&mut answer, more) {
            answer.insert("type".to_owned(), format!("io.nats.micro.v1.{kind}_response").into());
            answer.extend(more);
        }
        answer
    };
    match verb {
        ServiceVerb::Ping => with("ping", json!({})),
        ServiceVerb::Info => {
            let plain: Vec<_> = DriverVerb::ALL
                .iter()
                .map(|verb| {
                    json!({
                        "name": verb.as_str(),
                        "subject": FromClient::verb_wildcard(&core.root, &core.name, *verb),
                        "queue_group": "",
                        "metadata": {},
                    })
                })
                .collect();
            with("info", json!({ "description": "jmp-bus exporter", "endpoints": plain }))
        }
        ServiceVerb::Stats => {
            let started = std::time::SystemTime::now() - core.uptime();
            let started = humantime::format_rfc3339_nanos(started).to_string();
            with("stats", json!({ "started": started, "endpoints": endpoints.collect::<Vec<_>>() }))
        }
    }
}

/// Counts over all drivers.
fn stats(core: &Core, verb: DriverVerb) -> serde_json::Map<String, Json> {
    let stats = core.stats.of(verb);
    let (requests, busy) = (stats.requests.load(Relaxed), stats.busy_ns.load(Relaxed));
    let stats = json!({
        "num_requests": requests,
        "num_errors": stats.errors.load(Relaxed),
        "last_error": stats.last_error(),
        "processing_time": busy,
        "average_processing_time": busy / requests.max(1),
    });
    match stats {
        Json::Object(map) => map,
        _ => unreachable!("an object was written above"),
    }
}
