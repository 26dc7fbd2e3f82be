//! The JetStream streams of one root. PROTOCOL.md lists them with their whole configuration; they
//! are made by the deployment or the local broker, and verified by everyone else.

use std::time::Duration;

use bus_schema::{
    Root,
    subject::{FromExporter, Inbox, Streams},
};
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{BusError, Conn, random};
use crate::Settings;

/// Records of streaming calls are kept this long …
const OUT_AGE: Duration = Duration::from_secs(24 * 3600);
/// … and to this size, whichever is less; the oldest go first.
const OUT_BYTES: u64 = 4 << 30;
/// Nothing in the registry lives longer than this without being written again.
const REGISTRY_BYTES: u64 = 256 << 20;

/// The configuration of each stream.
fn configurations(root: &Root) -> [(String, Json); 2] {
    let Streams { out, registry } = Streams::of(root);
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let common = |name: &str, subjects: Vec<String>| {
        json!({
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "num_replicas": 1,
            "allow_direct": true,
            "allow_rollup_hdrs": false,
            "deny_delete": true,
            "deny_purge": true,
            "max_consumers": -1,
            "max_msgs": -1,
        })
    };
    let with = |mut config: Json, more: Json| {
        if let (Json::Object(config), Json::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        config
    };
    let records = with(
        common(&out, vec![FromExporter::out_all(root)]),
        json!({
            "max_msgs_per_subject": 1,
            "max_age": nanos(OUT_AGE),
            "max_bytes": OUT_BYTES,
            "duplicate_window": nanos(Duration::from_secs(120)),
        }),
    );
    let subjects = vec![
        FromExporter::presence_all(root),
        FromExporter::tree_all(root),
        FromExporter::interface_all(root),
        FromExporter::board_all(root),
    ];
    let registry_config = with(
        common(&registry, subjects),
        json!({
            "max_msgs_per_subject": 1,
            "max_bytes": REGISTRY_BYTES,
            "allow_msg_ttl": true,
            "duplicate_window": nanos(Duration::from_secs(1)),
        }),
    );
    [(out, records), (registry, registry_config)]
}

/// Makes the streams of `root`, or finds them as they must be.
///
/// # Errors
///
/// [`BusError::Unfit`] if the broker has no JetStream, or a stream of that name is another's.
pub(crate) async fn make_streams(settings: &Settings, root: &Root) -> Result<(), BusError> {
    let conn = settings.connect("jmp-bus streams").await?;
    for (name, config) in configurations(root) {
        let answer = ask(&conn, root, Streams::create(&name), config.to_string()).await?;
        if let Some(error) = answer.get("error") {
            let why = error.get("description").and_then(Json::as_str).unwrap_or("no reason given");
            return Err(BusError::Unfit(format!(
                "JetStream stream {name:?} cannot be made: {why}"
            )));
        }
    }
    conn.close().await;
    Ok(())
}

/// What is wrong with the streams of `root`, a line each; none if all is well.
pub(crate) async fn check_streams(conn: &Conn, root: &Root) -> Result<Vec<String>, BusError> {
    let mut problems = Vec::new();
    for (name, config) in configurations(root) {
        let answer = ask(conn, root, Streams::info(&name), String::new()).await?;
        let Some(there) = answer.get("config") else {
            let why = answer.pointer("/error/description").and_then(Json::as_str);
            problems.push(format!("stream {name:?}: {}", why.unwrap_or("no answer")));
            continue;
        };
        for key in ["subjects", "max_msgs_per_subject", "allow_direct", "allow_msg_ttl"] {
            let (is, wanted) = (there.get(key), config.get(key));
            if wanted.is_some() && is != wanted {
                let shown =
                    |json: Option<&Json>| json.map_or("missing".to_owned(), Json::to_string);
                problems.push(format!(
                    "stream {name:?}: {key} is {}, must be {}",
                    shown(is),
                    shown(wanted)
                ));
            }
        }
    }
    Ok(problems)
}

async fn ask(conn: &Conn, root: &Root, subject: String, body: String) -> Result<Json, BusError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let admin = "admin".parse().expect("a name");
    let inbox = Inbox::of_client(root, &admin, bus_schema::Session(random()));
    let reply = inbox.token(random());
    let mut answers = conn.subscribe(reply.clone()).await?;
    conn.request(subject.clone(), reply, Bytes::from(body)).await?;
    match timeout(PATIENCE, answers.next()).await {
        Ok(Some(answer)) if answer.is_no_responders() => {
            Err(BusError::Unfit("the broker has no JetStream: start it with -js".to_owned()))
        }
        Ok(Some(answer)) => serde_json::from_slice(answer.payload()).map_err(|error| {
            BusError::Unfit(format!("JetStream's answer cannot be read: {error}"))
        }),
        Ok(None) => Err(BusError::Closed),
        Err(_elapsed) => {
            Err(BusError::Unfit(format!("no answer on {subject} within {PATIENCE:?}")))
        }
    }
}
