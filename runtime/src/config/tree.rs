//! The drivers of a file as a tree of [`Node`]s.

use std::{
    collections::{BTreeMap, HashMap},
    path,
};

use bus_schema::{AddressError, DriverId, ExporterName, Path, Value, limits::DRIVERS_MAX};

use super::{
    Kind, Kinds, Site,
    keys::{Keys, mapping, text},
    problem::{Problems, Trail, quoted},
    refs::Refs,
    yaml::{Data, Entry, Mark},
};
use crate::{Node, Role};

/// The kind of a driver that only holds others: an entry without `type`, and the root.
pub(super) const COMPOSITE: &str = "composite";

/// What an entry may say.
const ENTRY: [&str; 9] = [
    "type",
    "description",
    "methods_description",
    "labels",
    "uuid",
    "turn",
    "config",
    "children",
    "ref",
];

/// Reads the tree of one file.
pub(super) struct Tree<'a> {
    pub(super) kinds: &'a Kinds,
    pub(super) exporter: &'a ExporterName,
    pub(super) state_dir: &'a path::Path,
    pub(super) problems: &'a mut Problems,
    pub(super) warnings: &'a mut Problems,
    pub(super) runs_commands: Vec<Path>,
    /// Every UUID that is pinned, and in which line.
    pub(super) pinned: HashMap<DriverId, u32>,
    refs: Refs,
    /// Drivers so far, with the root.
    drivers: usize,
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        kinds: &'a Kinds,
        exporter: &'a ExporterName,
        state_dir: &'a path::Path,
        problems: &'a mut Problems,
        warnings: &'a mut Problems,
    ) -> Self {
        Self {
            kinds,
            exporter,
            state_dir,
            problems,
            warnings,
            refs: Refs::default(),
            runs_commands: Vec::new(),
            drivers: 1,
            pinned: HashMap::new(),
        }
    }

    /// The root of the tree, whose children are those of `export`.
    pub(super) fn root(&mut self, export: &Entry) -> Option<Node> {
        let Some(kind) = self.kinds.get(COMPOSITE) else {
            let text = "this program has no kind \"composite\", which the root of the tree is";
            self.problems.add(export.at, Trail::TOP, text);
            return None;
        };
        let site = Site::new(self.exporter.clone(), Path::ROOT, self.state_dir);
        let root = (kind.build)(Value::Nil, &site);
        let children = self.children(export, &Path::ROOT, &Trail::TOP);
        let targets = self.refs.targets(self.problems);
        match root {
            Ok(mut root) => {
                root.say_made_from(&COMPOSITE.into());
                root.children.extend(children);
                aim(&mut root, &Path::ROOT, &targets);
                Some(root)
            }
            Err(error) => {
                self.problems.add(export.at, Trail::TOP, error);
                None
            }
        }
    }

    /// The drivers in the mapping under `entry`, which hang below `path`.
    pub(super) fn children(
        &mut self,
        entry: &Entry,
        path: &Path,
        trail: &Trail<'_>,
    ) -> BTreeMap<String, Node> {
        let trail = trail.key(&entry.key);
        let Some(map) = mapping(&entry.value, &trail, self.problems) else {
            return BTreeMap::new();
        };
        if map.is_empty() {
            self.problems.add(entry.at, trail, "no driver in here");
        }
        let mut children = BTreeMap::new();
        for child in map {
            if let Some(node) = self.child(child, path, &trail) {
                children.insert(child.key.clone(), node);
            }
        }
        children
    }

    fn child(&mut self, child: &Entry, parent: &Path, trail: &Trail<'_>) -> Option<Node> {
        let trail = trail.key(&child.key);
        if !self.count(1, child.at, &trail) {
            return None;
        }
        let path = match parent.child(&child.key) {
            Ok(_) if matches!(child.key.as_str(), "." | "..") => {
                let step = child.key.clone();
                self.problems.add(child.at, trail, AddressError::Step { step });
                return None;
            }
            Ok(path) => path,
            Err(error) => {
                self.problems.add(child.at, trail, &error);
                // What is in it is checked all the same, under a name that nothing refers to.
                parent.child("-").ok()?
            }
        };
        let node = self.entry(child, &path, &trail);
        match &node {
            Some(node) => self.refs.know(&path, node),
            None => self.refs.know_broken(&path),
        }
        node
    }

    /// Counts drivers. False if they are too many; that is told once.
    pub(super) fn count(&mut self, more: usize, at: Mark, trail: &Trail<'_>) -> bool {
        let before = self.drivers;
        self.drivers = before.saturating_add(more);
        if before <= DRIVERS_MAX && self.drivers > DRIVERS_MAX {
            let text = format!("more than {DRIVERS_MAX} drivers, with the root");
            self.problems.add(at, trail, text);
        }
        self.drivers <= DRIVERS_MAX
    }

    fn entry(&mut self, entry: &Entry, path: &Path, trail: &Trail<'_>) -> Option<Node> {
        if entry.value.is_null() || matches!(&entry.value.data, Data::Map(map) if map.is_empty()) {
            let text = "an empty entry: give it \"type\", \"children\" or \"ref\"";
            self.problems.add(entry.at, trail, text);
            return None;
        }
        let keys = Keys::of(&entry.value, &ENTRY, trail, self.problems)?;
        match keys.get("ref") {
            Some(target) => self.alias(target, &keys, path, trail),
            None => self.driver(&keys, path, trail),
        }
    }

    fn alias(
        &mut self,
        target: &Entry,
        keys: &Keys<'_>,
        path: &Path,
        trail: &Trail<'_>,
    ) -> Option<Node> {
        for key in ENTRY.iter().filter(|key| **key != "ref") {
            if let Some(entry) = keys.get(key) {
                let text =
                    format!("{key:?} does not go with \"ref\": it belongs to what that names");
                self.problems.add(entry.at, trail.key(key), text);
            }
        }
        let trail = trail.key("ref");
        let written = text(&target.value, &trail, self.problems)?;
        self.refs.add(path, written, target.value.at, &trail);
        Some(Node {
            role: Role::Alias(Path::ROOT), // until all drivers are known
            labels: BTreeMap::new(),
            description: String::new(),
            methods_description: BTreeMap::new(),
            children: BTreeMap::new(),
            made_from: None,
        })
    }

    /// The kind of an entry without `ref`.
    pub(super) fn kind(&mut self, keys: &Keys<'_>, trail: &Trail<'_>) -> Option<&'a Kind> {
        let kinds = self.kinds;
        let Some(entry) = keys.get("type") else { return self.composite(keys, trail) };
        let trail = trail.key("type");
        let name = text(&entry.value, &trail, self.problems)?;
        let kind = kinds.get(name);
        if kind.is_none() {
            let text = format!("unknown kind of driver {}", quoted(name));
            self.problems.add_near(entry.value.at, trail, text, name, kinds.names());
        }
        kind
    }

    /// An entry without `type` holds others, and nothing else.
    fn composite(&mut self, keys: &Keys<'_>, trail: &Trail<'_>) -> Option<&'a Kind> {
        if keys.typo {
            return None; // the unknown key may be meant to be the type
        }
        for key in ["methods_description", "turn", "config"] {
            if let Some(entry) = keys.get(key) {
                self.problems.add(entry.at, trail.key(key), format!("{key:?} needs a \"type\""));
            }
        }
        if keys.get("children").is_none() {
            let text = "neither \"type\" nor \"children\" nor \"ref\" is here";
            self.problems.add(keys.at, trail, text);
            return None;
        }
        self.kinds.get(COMPOSITE)
    }
}

/// Gives every alias below `path` its target.
fn aim(node: &mut Node, path: &Path, targets: &BTreeMap<Path, Path>) {
    if let (Role::Alias(target), Some(found)) = (&mut node.role, targets.get(path)) {
        *target = found.clone();
    }
    for (name, child) in &mut node.children {
        if let Ok(path) = path.child(name) {
            aim(child, &path, targets);
        }
    }
}
