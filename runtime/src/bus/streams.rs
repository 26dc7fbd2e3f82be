//! The JetStream streams of one root. PROTOCOL.md lists them with their whole configuration; they
//! are made by the deployment or the local broker, and verified by everyone else.

use std::time::Duration;

use bus_schema::{
    ClientName, Root,
    subject::{FromAdmin, FromExporter, Inbox, Stored, StoredTo, Streams},
};
use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::{BusError, Conn, random};
use crate::Settings;

/// Nothing in the registry lives longer than this without being written again.
const REGISTRY_BYTES: u64 = 256 << 20;
/// What admins write down: a place is a few hundred bytes.
const ADMIN_BYTES: u64 = 64 << 20;
/// The stream is there already, and its configuration is another.
const IN_USE: u64 = 10058;

/// Where a stream captures what is published elsewhere.
const TRANSFORM: &str = "subject_transform";

/// How long and how much one stream keeps, whichever is less; the oldest go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How long.
    pub age: Duration,
    /// How much.
    pub bytes: u64,
}

/// What the streams of one root keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsKeep {
    /// Records of streaming calls.
    pub out: Keep,
    /// Events.
    pub events: Keep,
    /// Logs.
    pub logs: Keep,
    /// Files that clients lend.
    pub files: Keep,
}

impl Default for StreamsKeep {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        Self {
            out: Keep { age: days(1), bytes: 4 << 30 },
            events: Keep { age: days(30), bytes: 256 << 20 },
            logs: Keep { age: days(3), bytes: 1 << 30 },
            // Some images, each once.
            files: Keep { age: days(7), bytes: 8 << 30 },
        }
    }
}

/// The configuration of each stream.
fn configurations(root: &Root, keep: StreamsKeep) -> [(String, Json); 6] {
    let Streams { out, registry, events, logs, files, admin } = Streams::of(root);
    let seconds = |seconds| nanos(Duration::from_secs(seconds));
    let records = stream(&out, vec![FromExporter::out_all(root)], 1, seconds(120));
    let subjects = vec![
        FromExporter::presence_all(root),
        FromExporter::tree_all(root),
        FromExporter::interface_all(root),
        FromExporter::board_all(root),
    ];
    let mut registered = stream(&registry, subjects, 1, seconds(1));
    registered["max_bytes"] = REGISTRY_BYTES.into();
    registered["allow_msg_ttl"] = true.into();
    let happened = stream(&events, vec![FromExporter::events(root, None)], -1, seconds(120));
    let said = stream(&logs, vec![FromExporter::logs(root, None, None)], -1, seconds(1));
    let mut written = stream(&admin, vec![FromAdmin::all(root)], 1, seconds(1));
    written["max_bytes"] = ADMIN_BYTES.into();
    let mut lent = stream(&files, vec![Stored::all(root)], 1, seconds(1));
    let (src, dest) = StoredTo::captured(root);
    lent[TRANSFORM] = json!({ "src": src, "dest": dest });
    lent["deny_purge"] = false.into(); // removing a file is its messages' purge
    [
        (out, kept(records, keep.out)),
        (registry, registered),
        (events, kept(happened, keep.events)),
        (logs, kept(said, keep.logs)),
        (admin, written),
        (files, kept(lent, keep.files)),
    ]
}

/// What the streams of `root` capture, as patterns.
pub(crate) fn captured(root: &Root) -> Vec<String> {
    let subjects = |config: &Json| config["subjects"].as_array().cloned().unwrap_or_default();
    let all = configurations(root, StreamsKeep::default()).into_iter();
    let all = all.flat_map(|(_, config)| subjects(&config));
    all.filter_map(|subject| subject.as_str().map(str::to_owned)).collect()
}

fn stream(name: &str, subjects: Vec<String>, per_subject: i64, duplicates: u64) -> Json {
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
        "max_msgs_per_subject": per_subject,
        "duplicate_window": duplicates,
    })
}

fn kept(mut config: Json, keep: Keep) -> Json {
    config["max_age"] = nanos(keep.age).into();
    config["max_bytes"] = keep.bytes.into();
    config
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Makes the streams of `root`, or finds them as they must be. What they keep is the operator's:
/// a stream that is there is only changed if `keep` is given.
///
/// # Errors
///
/// [`BusError::Unfit`] if the broker has no JetStream, or a stream of that name is another's.
pub(crate) async fn make_streams(
    settings: &Settings,
    root: &Root,
    keep: Option<StreamsKeep>,
    replicas: Option<u8>,
) -> Result<(), BusError> {
    let conn = settings.connect("jmp-bus streams").await?;
    let asker = settings.asker()?;
    let ask = async |subject, body: String| ask(&conn, root, &asker, subject, body).await;
    for (name, mut config) in configurations(root, keep.unwrap_or_default()) {
        if let Some(replicas) = replicas {
            config["num_replicas"] = replicas.into();
        }
        let mut answer = ask(Streams::create(&name), config.to_string()).await?;
        if answer.pointer("/error/err_code").and_then(Json::as_u64) == Some(IN_USE) {
            let there = ask(Streams::info(&name), String::new()).await?;
            let elsewhere =
                replicas.is_some() && there["config"]["num_replicas"] != config["num_replicas"];
            let differences = differences(&there["config"], &config);
            // Nothing that is there is lost by it.
            let is_older = differences.iter().all(|(key, _)| *key == TRANSFORM);
            answer = match keep {
                None if !elsewhere && differences.is_empty() => continue,
                None if !elsewhere && !is_older => answer,
                _ => {
                    let mut changed = overlaid(there["config"].clone(), config, keep);
                    if let Some(replicas) = replicas {
                        changed["num_replicas"] = replicas.into();
                    }
                    ask(Streams::update(&name), changed.to_string()).await?
                }
            };
        }
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

/// `there` with what must be and what is kept; storage and replicas stay the operator's.
fn overlaid(mut there: Json, config: Json, keep: Option<StreamsKeep>) -> Json {
    let must = ["subjects", "max_msgs_per_subject", "allow_direct", TRANSFORM];
    let kept = ["max_age", "max_bytes"].into_iter().filter(|_| keep.is_some());
    for key in must.into_iter().chain(kept) {
        if let Some(value) = config.get(key) {
            there[key] = value.clone();
        }
    }
    there
}

/// What must be so and is not: which part of the configuration, and a line.
fn differences(there: &Json, config: &Json) -> Vec<(&'static str, String)> {
    let shown = |json: Option<&Json>| json.map_or("missing".to_owned(), Json::to_string);
    let mut found = Vec::new();
    for key in ["subjects", "max_msgs_per_subject", "allow_direct", "allow_msg_ttl", TRANSFORM] {
        let (is, wanted) = (there.get(key), config.get(key));
        if wanted.is_some() && is != wanted {
            found.push((key, format!("{key} is {}, must be {}", shown(is), shown(wanted))));
        }
    }
    found
}

/// What is wrong with the streams of `root`, a line each; none if all is well.
pub(crate) async fn check_streams(
    conn: &Conn,
    root: &Root,
    asker: &ClientName,
) -> Result<Vec<String>, BusError> {
    let mut problems = Vec::new();
    for (name, config) in configurations(root, StreamsKeep::default()) {
        let answer = ask(conn, root, asker, Streams::info(&name), String::new()).await?;
        let Some(there) = answer.get("config") else {
            let why = answer.pointer("/error/description").and_then(Json::as_str);
            problems.push(format!("stream {name:?}: {}", why.unwrap_or("no answer")));
            continue;
        };
        let differences = differences(there, &config);
        problems.extend(differences.iter().map(|(_, what)| format!("stream {name:?}: {what}")));
    }
    Ok(problems)
}

impl Settings {
    /// The name whose inbox is ours to be answered in.
    pub(super) fn asker(&self) -> Result<ClientName, BusError> {
        let identity = self.identity()?;
        let name = identity.and_then(|identity| identity.name.parse().ok());
        Ok(name.unwrap_or_else(|| "admin".parse().expect("a name")))
    }
}

async fn ask(
    conn: &Conn,
    root: &Root,
    asker: &ClientName,
    subject: String,
    body: String,
) -> Result<Json, BusError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let inbox = Inbox::of_client(root, asker, bus_schema::Session(random()));
    let reply = inbox.token(random());
    let answer = conn.asked(subject, reply, Bytes::from(body), PATIENCE, asker.as_str()).await?;
    if answer.is_no_responders() {
        return Err(BusError::Unfit("the broker has no JetStream: start it with -js".to_owned()));
    }
    serde_json::from_slice(answer.payload())
        .map_err(|error| BusError::Unfit(format!("JetStream's answer cannot be read: {error}")))
}
