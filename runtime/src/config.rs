//! The exporter's configuration file: the shape of Jumpstarter's, read strictly.
//!
//! Nothing in a file is ignored in silence: each mistake is told with its place, all of them at
//! once, and with what was probably meant.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path,
};

use bus_schema::{ExporterName, Path};

mod driver;
mod keys;
mod kind;
mod lease;
mod places;
mod problem;
mod refs;
mod tree;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

pub use kind::{BuildError, ChildrenRule, DriverKind, Kind, Kinds, Site};
pub use places::{parse_places, read_places};
pub(crate) use problem::near;
pub use problem::{ConfigErrors, Problem};

use crate::{Hooks, LeaseRules, Node};
use keys::Keys;
use problem::{Problems, Trail};
use tree::Tree;
use yaml::{Mark, Yaml};

/// Largest file: 64 bytes for each of the most drivers that a tree may have.
const FILE_BYTES_MAX: usize = 4 << 20;

/// What an exporter serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The exporter's name.
    pub name: ExporterName,
    /// The exporter's labels; the root driver has them too.
    pub labels: BTreeMap<String, String>,
    /// What it is, for people; the root driver has it too.
    pub description: String,
    /// The tree: a composite.
    pub root: Node,
    /// Who may lease what.
    pub leases: LeaseRules,
    /// What runs around a lease.
    pub hooks: Hooks,
    /// What is odd in the file, and no error.
    pub warnings: Vec<Problem>,
    /// The drivers whose kind runs commands on this host for whoever calls it.
    pub runs_commands: Vec<Path>,
}

impl Config {
    /// Reads a file. `state_dir` is where drivers may keep what must survive a restart.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn read(
        file: &path::Path,
        kinds: &Kinds,
        state_dir: &path::Path,
    ) -> Result<Self, ConfigErrors> {
        Self::parse(&read_text(file)?, &file.display().to_string(), kinds, state_dir)
    }

    /// Reads the text of a file that errors call `file_name`.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] with everything that is wrong.
    pub fn parse(
        text: &str,
        file_name: &str,
        kinds: &Kinds,
        state_dir: &path::Path,
    ) -> Result<Self, ConfigErrors> {
        let mut problems = Problems::new(file_name);
        let mut warnings = Problems::new(file_name);
        let config = match text.len() > FILE_BYTES_MAX {
            true => {
                problems.add(Mark::START, Trail::TOP, too_large());
                None
            }
            false => yaml::read(text, &mut problems)
                .and_then(|yaml| top(&yaml, kinds, state_dir, &mut problems, &mut warnings)),
        };
        match config {
            Some(config) if problems.is_empty() => {
                Ok(Self { warnings: warnings.into_list(), ..config })
            }
            _ => Err(ConfigErrors(problems.into_list())),
        }
    }
}

/// The text of a file.
fn read_text(file: &path::Path) -> Result<String, ConfigErrors> {
    let one = |at, text: String| {
        let mut problems = Problems::new(&file.display().to_string());
        problems.add(at, Trail::TOP, text);
        ConfigErrors(problems.into_list())
    };
    let bytes =
        read_bounded(file).map_err(|error| one(Mark::START, format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(one(Mark::START, too_large()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let good = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        one(Mark::after(&good), "the file is not UTF-8 from here on".to_owned())
    })
}

fn too_large() -> String {
    format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20)
}

/// One byte more than is allowed, at most: the path may be that of a device without an end.
fn read_bounded(file: &path::Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the top of a file may say.
const TOP: [&str; 11] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "labels",
    "description",
    "export",
    "leases",
    "access",
    "groups",
    "hooks",
];
/// What `metadata` may say.
const METADATA: [&str; 3] = ["name", "namespace", "labels"];
/// What Jumpstarter keeps in this file and jmp-bus does not, and what to use instead.
const ELSEWHERE: [(&str, &str); 5] = [
    ("endpoint", "the broker is named by --server, NATS_URL or a context of the `nats` CLI"),
    ("token", "credentials are given by --creds, --nkey or a context of the `nats` CLI"),
    ("tls", "the broker's CA is given by --tlsca or a context of the `nats` CLI"),
    ("grpcOptions", "there is no gRPC: remove it"),
    ("grpcConfig", "there is no gRPC: remove it"),
];
/// What Jumpstarter can do and jmp-bus cannot do yet.
const NOT_BUILT: [&str; 3] = ["failureDetection", "exitOnLeaseEnd", "motd"];

fn top(
    yaml: &Yaml,
    kinds: &Kinds,
    state_dir: &path::Path,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Option<Config> {
    let foreign = ELSEWHERE.iter().map(|(key, _)| *key).chain(NOT_BUILT);
    let known: Vec<_> = TOP.iter().copied().chain(foreign).collect();
    let keys = Keys::of(yaml, &known, &Trail::TOP, problems)?;
    refuse_foreign(&keys, problems);
    is_one_of(&keys, "apiVersion", &["jumpstarter.dev/v1alpha1", "jmp-bus/v1"], problems);
    is_one_of(&keys, "kind", &["ExporterConfig"], problems);

    let trail = Trail::TOP.key("metadata");
    let metadata = keys.get("metadata");
    let metadata = metadata.and_then(|entry| Keys::of(&entry.value, &METADATA, &trail, problems));
    if let Some(namespace) = metadata.as_ref().and_then(|metadata| metadata.get("namespace")) {
        let text = "ignored: there are no namespaces, labs are kept apart by NATS accounts";
        warnings.add(namespace.at, trail.key("namespace"), text);
    }
    let name = name(&keys, metadata.as_ref(), problems);
    let mut labels = keys.labels(&Trail::TOP, problems);
    if let Some(metadata) = &metadata {
        labels.extend(metadata.labels(&trail, problems));
    }
    let description = keys.text("description", &Trail::TOP, problems).unwrap_or_default();
    let (leases, hooks) = lease::read(&keys, problems);
    let Some(export) = keys.get("export") else {
        if !keys.typo {
            problems.add(keys.at, Trail::TOP, "the key \"export\" is missing: the drivers");
        }
        return None;
    };
    // Without a name there is no configuration, but the drivers are checked all the same.
    let unnamed = || "unnamed".parse().expect("this is a name");
    let exporter = name.clone().unwrap_or_else(unnamed);
    let mut tree = Tree::new(kinds, &exporter, state_dir, problems, warnings);
    let mut root = tree.root(export)?;
    root.labels.extend(labels.clone());
    root.description = description.to_owned();
    let (description, runs_commands) = (root.description.clone(), tree.runs_commands);
    let name = name?;
    let warnings = Vec::new();
    Some(Config { name, labels, description, root, leases, hooks, warnings, runs_commands })
}

fn refuse_foreign(keys: &Keys<'_>, problems: &mut Problems) {
    for (key, instead) in ELSEWHERE {
        if let Some(entry) = keys.get(key) {
            let text = format!("{key:?} is not set here: {instead}");
            problems.add(entry.at, Trail::TOP.key(key), text);
        }
    }
    for key in NOT_BUILT {
        if let Some(entry) = keys.get(key) {
            problems.add(entry.at, Trail::TOP.key(key), format_args!("{key:?} is not built yet"));
        }
    }
}

fn is_one_of(keys: &Keys<'_>, key: &str, good: &[&str], problems: &mut Problems) {
    let (Some(word), Some(entry)) = (keys.text(key, &Trail::TOP, problems), keys.get(key)) else {
        return;
    };
    if !good.contains(&word) {
        let text = format!("expected {}, got {}", good.join(" or "), problem::quoted(word));
        let trail = Trail::TOP.key(key);
        problems.add_near(entry.value.at, trail, text, word, good.iter().copied());
    }
}

/// The exporter's name: `metadata.name`, or `name`.
fn name(
    keys: &Keys<'_>,
    metadata: Option<&Keys<'_>>,
    problems: &mut Problems,
) -> Option<ExporterName> {
    let trail = Trail::TOP.key("metadata");
    let inner = metadata.and_then(|metadata| metadata.get("name")).map(|entry| (entry, &trail));
    let outer = keys.get("name").map(|entry| (entry, &Trail::TOP));
    if let (Some((inner, trail)), Some((outer, _))) = (inner, outer) {
        let text = format!("\"name\" is there twice, first in line {}", outer.at.line);
        problems.add(inner.at, trail.key("name"), text);
    }
    let Some((entry, trail)) = inner.or(outer) else {
        let typo = keys.typo || metadata.is_some_and(|metadata| metadata.typo);
        let broken = keys.get("metadata").is_some() && metadata.is_none();
        if !typo && !broken {
            let text = "the exporter's name is missing: write \"metadata: {name: …}\"";
            problems.add(metadata.map_or(keys.at, |metadata| metadata.at), Trail::TOP, text);
        }
        return None;
    };
    let trail = trail.key("name");
    let text = keys::text(&entry.value, &trail, problems)?;
    text.parse().map_err(|error| problems.add(entry.value.at, trail, error)).ok()
}
