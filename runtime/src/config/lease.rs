//! What the file says about leases: `leases`, `access`, `groups` and `hooks`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bus_schema::{Describe, Path, limits::LEASE_PRIORITY_MAX};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    keys::Keys,
    problem::{Problems, Trail},
    value,
    yaml::Mark,
};
use crate::{AccessRule, Hook, HookFailure, Hooks, LeaseRules};

/// Jumpstarter's own limit for a hook.
const HOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// A sign of life takes its time, and the broker may be at the other end of the world.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(1);

/// `leases`: how the tree is leased.
#[derive(Debug, Default, Deserialize, Describe)]
#[serde(rename_all = "camelCase", default)]
struct Leases {
    /// Whether calls need a lease even while nobody has one; if there is `access`, they do.
    required: Option<bool>,
    /// A lease without a sign of life ends after this time.
    keep_alive: Option<Duration>,
    /// What a client gets that does not say how long it wants it.
    duration: Option<Duration>,
    /// Longest lease, renewals included.
    max_duration: Option<Duration>,
    /// Paths of subtrees that are leased apart.
    subtrees: Vec<String>,
}

/// An item of `access`: what some clients may have. The first that fits counts.
#[derive(Debug, Deserialize, Describe)]
#[serde(rename_all = "camelCase")]
struct Access {
    /// Names of clients; `ci-*` is every name that begins with `ci-`.
    #[serde(default)]
    clients: Vec<String>,
    /// Names of `groups`.
    #[serde(default)]
    groups: Vec<String>,
    /// Only these subtrees.
    #[serde(default)]
    subtrees: Vec<String>,
    /// Longest lease.
    #[serde(default)]
    max_duration: Option<Duration>,
    /// Highest priority.
    #[serde(default)]
    max_priority: Option<u64>,
    /// Leases at the same time.
    #[serde(default)]
    max_leases: Option<u64>,
}

/// `hooks.beforeLease` and `hooks.afterLease`.
#[derive(Debug, Deserialize, Describe)]
#[serde(rename_all = "camelCase")]
struct HookConfig {
    /// What is run.
    script: String,
    /// What runs it, with `-c` before the script: `/bin/sh` unless said otherwise.
    #[serde(default)]
    exec: Option<String>,
    /// How long it may take, a duration or seconds: 120 unless said otherwise.
    #[serde(default)]
    timeout: Option<Duration>,
    /// What its failure means: `warn`, `endLease` or `exit`.
    #[serde(default)]
    on_failure: OnFailure,
}

/// `hooks.healthCheck`.
#[derive(Debug, Deserialize, Describe)]
#[serde(rename_all = "camelCase")]
struct HealthCheckConfig {
    /// What is run before a board is granted again. If it fails the board is not, until it
    /// succeeds.
    script: String,
    /// What runs it, with `-c` before the script: `/bin/sh` unless said otherwise.
    #[serde(default)]
    exec: Option<String>,
    /// How long it may take, a duration or seconds: 120 unless said otherwise.
    #[serde(default)]
    timeout: Option<Duration>,
}

impl From<HealthCheckConfig> for HookConfig {
    fn from(HealthCheckConfig { script, exec, timeout }: HealthCheckConfig) -> Self {
        Self { script, exec, timeout, on_failure: OnFailure::EndLease }
    }
}

impl From<HookConfig> for Hook {
    fn from(config: HookConfig) -> Self {
        Self {
            script: config.script,
            exec: config.exec.map_or_else(|| PathBuf::from("/bin/sh"), PathBuf::from),
            timeout: config.timeout.unwrap_or(HOOK_TIMEOUT),
            on_failure: match config.on_failure {
                OnFailure::Warn => HookFailure::Warn,
                OnFailure::EndLease => HookFailure::EndLease,
                OnFailure::Exit => HookFailure::Exit,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, Describe)]
#[serde(rename_all = "camelCase")]
enum OnFailure {
    /// It is told, and all goes on.
    #[default]
    Warn,
    /// The lease ends.
    EndLease,
    /// The exporter stops.
    Exit,
}

/// Reads what the top of a file says about leases.
pub(super) fn read(keys: &Keys<'_>, problems: &mut Problems) -> (LeaseRules, Hooks) {
    let access = access(keys, problems);
    let leases: Leases = get(keys, "leases", problems).unwrap_or_default();
    let at = |key: &str| {
        keys.get("leases").map_or(keys.at, |entry| match &entry.value.data {
            super::yaml::Data::Map(map) => {
                map.iter().find(|e| e.key == key).map_or(entry.at, |e| e.at)
            }
            _ => entry.at,
        })
    };
    let default = LeaseRules::default();
    let keep_alive = leases.keep_alive.unwrap_or(default.keep_alive);
    if keep_alive < KEEP_ALIVE_MIN {
        let text = "shorter than a second: signs of life take their time";
        problems.add(at("keepAlive"), "leases.keepAlive", text);
    }
    let duration_max = leases.max_duration.unwrap_or(default.duration_max);
    let duration = leases.duration.unwrap_or(default.duration.min(duration_max));
    if duration > duration_max || duration.is_zero() {
        let text = "not more than nothing and at most \"maxDuration\"";
        problems.add(at("duration"), "leases.duration", text);
    }
    let subtrees = paths(&leases.subtrees, at("subtrees"), "leases.subtrees", problems);
    for nested in subtrees
        .iter()
        .filter(|path| subtrees.iter().any(|other| other != *path && path.is_within(other)))
    {
        let text = format!("{nested} lies in another of the subtrees: they are leased apart");
        problems.add(at("subtrees"), "leases.subtrees", text);
    }
    let required = leases.required.unwrap_or(!access.is_empty());
    let rules = LeaseRules { required, keep_alive, duration, duration_max, subtrees, access };
    (rules, hooks(keys, problems))
}

fn access(keys: &Keys<'_>, problems: &mut Problems) -> Vec<AccessRule> {
    let groups: BTreeMap<String, Vec<String>> = get(keys, "groups", problems).unwrap_or_default();
    let rules: Vec<Access> = get(keys, "access", problems).unwrap_or_default();
    let Some(entry) = keys.get("access") else { return Vec::new() };
    if rules.is_empty() && problems.is_empty() {
        problems.add(entry.at, "access", "no rule in here: leave it out, or nobody has leases");
    }
    rules.into_iter().map(|rule| access_rule(rule, entry.at, &groups, problems)).collect()
}

fn access_rule(
    rule: Access,
    at: Mark,
    groups: &BTreeMap<String, Vec<String>>,
    problems: &mut Problems,
) -> AccessRule {
    let mut clients = rule.clients;
    for group in &rule.groups {
        match groups.get(group) {
            Some(members) => clients.extend(members.iter().cloned()),
            None => {
                let text = format!("there is no group {group:?} in \"groups\"");
                let known = groups.keys().map(String::as_str);
                problems.add_near(at, Trail::TOP.key("access"), text, group, known);
            }
        }
    }
    for client in &clients {
        let stem = client.strip_suffix('*').unwrap_or(client);
        if !stem.is_empty() && stem.parse::<bus_schema::ClientName>().is_err() {
            let text = format!("{client:?} is no name of a client, nor its beginning and \"*\"");
            problems.add(at, "access", text);
        }
    }
    if clients.is_empty() {
        problems.add(at, "access", "a rule names \"clients\" or \"groups\"");
    }
    if rule.max_priority.is_some_and(|priority| priority > LEASE_PRIORITY_MAX) {
        let text = format!("\"maxPriority\" is at most {LEASE_PRIORITY_MAX}");
        problems.add(at, "access", text);
    }
    AccessRule {
        clients,
        subtrees: paths(&rule.subtrees, at, "access", problems),
        duration_max: rule.max_duration,
        priority_max: rule.max_priority,
        leases_max: rule.max_leases.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
    }
}

fn paths(texts: &[String], at: Mark, trail: &str, problems: &mut Problems) -> Vec<Path> {
    let path = |text: &String| text.parse().map_err(|error| problems.add(at, trail, error)).ok();
    texts.iter().filter_map(path).collect()
}

fn hooks(keys: &Keys<'_>, problems: &mut Problems) -> Hooks {
    let trail = Trail::TOP.key("hooks");
    let known = ["beforeLease", "afterLease", "healthCheck"];
    let hooks =
        keys.get("hooks").and_then(|entry| Keys::of(&entry.value, &known, &trail, problems));
    let Some(hooks) = hooks else { return Hooks::default() };
    let mut hook = |key: &str| {
        let config: HookConfig = decode(&hooks.get(key)?.value, &trail.key(key), problems)?;
        Some(config.into())
    };
    let (before, after) = (hook("beforeLease"), hook("afterLease"));
    let health = hooks.get("healthCheck").and_then(|entry| {
        let config: HealthCheckConfig = decode(&entry.value, &trail.key("healthCheck"), problems)?;
        Some(HookConfig::from(config).into())
    });
    Hooks { before, after, health }
}

fn get<T: Describe + DeserializeOwned>(
    keys: &Keys<'_>,
    key: &str,
    problems: &mut Problems,
) -> Option<T> {
    let entry = keys.get(key)?;
    decode(&entry.value, &Trail::TOP.key(key), problems)
}

fn decode<T: Describe + DeserializeOwned>(
    yaml: &super::yaml::Yaml,
    trail: &Trail<'_>,
    problems: &mut Problems,
) -> Option<T> {
    let value = value::read(yaml, &T::describe(), trail, problems)?;
    let bytes = rmp_serde::to_vec_named(&value).expect("a value is made of what MessagePack has");
    rmp_serde::from_slice(&bytes).map_err(|error| problems.add(yaml.at, trail, error)).ok()
}
