//! One entry of the tree that is a driver of its own.

use std::collections::BTreeMap;

use bus_schema::{DriverId, Path, Type, limits::NAME_BYTES_MAX};

use super::{
    BuildError, ChildrenRule, Kind, Site,
    keys::{Keys, labels, mapping, text},
    problem::{Trail, quoted},
    tree::{COMPOSITE, Tree},
    value,
    yaml::{Data, Entry},
};
use crate::{Node, Role};

/// What is the same for every driver, and the `config` that is not.
struct Parts<'y> {
    labels: BTreeMap<String, String>,
    id: Option<DriverId>,
    /// `None` if it is no mapping.
    config: Option<Vec<&'y Entry>>,
}

impl Tree<'_> {
    pub(super) fn driver(
        &mut self,
        keys: &Keys<'_>,
        path: &Path,
        trail: &Trail<'_>,
    ) -> Option<Node> {
        let kind = self.kind(keys, trail);
        let description = keys.text("description", trail, self.problems);
        let methods_description = self.methods_description(keys, kind, trail);
        let turn = self.turn(keys, trail);
        let parts = self.parts(keys, kind, trail);
        let node = kind.and_then(|kind| self.build(kind, &parts, keys, path, trail));
        let children = self.configured_children(kind, keys, path, trail);

        let mut node = node?;
        if let Role::Driver { id, turn: shared, .. } = &mut node.role {
            *id = parts.id.or(*id);
            *shared = turn.or(shared.take());
        }
        node.description = description.map_or(node.description, str::to_owned);
        node.methods_description.extend(methods_description);
        node.labels.extend(parts.labels);
        node.children.extend(children);
        Some(node)
    }

    fn methods_description(
        &mut self,
        keys: &Keys<'_>,
        kind: Option<&Kind>,
        trail: &Trail<'_>,
    ) -> BTreeMap<String, String> {
        const KEY: &str = "methods_description";
        let texts = keys.texts(KEY, trail, self.problems);
        let interfaces = kind.map(|kind| (kind.interfaces)()).unwrap_or_default();
        let methods = || interfaces.iter().flat_map(|i| &i.methods).map(|m| m.name.as_str());
        let trail = trail.key(KEY);
        let Some(Data::Map(map)) = keys.get(KEY).map(|entry| &entry.value.data) else {
            return texts;
        };
        for Entry { key, at, .. } in map {
            if !interfaces.is_empty() && !methods().any(|method| method == key) {
                let text = format!("this driver has no method {}", quoted(key));
                self.problems.add_near(*at, trail.key(key), text, key, methods());
            }
        }
        texts
    }

    fn turn(&mut self, keys: &Keys<'_>, trail: &Trail<'_>) -> Option<String> {
        let name = keys.text("turn", trail, self.problems)?;
        if Path::ROOT.child(name).is_ok() {
            return Some(name.to_owned());
        }
        let text = format!(
            "{} is no name of a turn: use 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '_', '-' and '.'",
            quoted(name)
        );
        self.problems.add(keys.get("turn")?.value.at, trail.key("turn"), text);
        None
    }

    /// What stands beside `config`, or inside it where Jumpstarter has it.
    fn parts<'y>(&mut self, keys: &Keys<'y>, kind: Option<&Kind>, trail: &Trail<'_>) -> Parts<'y> {
        let labels = keys.labels(trail, self.problems);
        let id = keys.get("uuid").and_then(|uuid| self.uuid(uuid, trail));
        let mut parts = Parts { labels, id, config: Some(Vec::new()) };
        let Some(config) = keys.get("config").filter(|config| !config.value.is_null()) else {
            return parts;
        };
        let trail = trail.key("config");
        let Some(map) = mapping(&config.value, &trail, self.problems) else {
            return Parts { config: None, ..parts };
        };
        let own = kind.map(|kind| (kind.config)());
        let (config, inside): (Vec<_>, Vec<_>) =
            map.iter().partition(|entry| !is_common(&entry.key, own.as_ref()));
        for entry in inside {
            self.inside(entry, keys, &mut parts, &trail);
        }
        Parts { config: Some(config), ..parts }
    }

    /// A key inside `config` that is the same for every driver.
    fn inside(&mut self, entry: &Entry, keys: &Keys<'_>, parts: &mut Parts<'_>, trail: &Trail<'_>) {
        let key = entry.key.as_str();
        match key {
            "uuid" | "labels" if keys.get(key).is_some() => {
                let text = format!("{key:?} is there twice: beside \"config\" too");
                self.problems.add(entry.at, trail.key(key), text);
            }
            "uuid" => parts.id = self.uuid(entry, trail),
            "labels" => parts.labels = labels(&entry.value, &trail.key(key), self.problems),
            _ => {
                let trail = trail.key(key);
                if text(&entry.value, &trail, self.problems).is_some() {
                    let text = "ignored: what is logged is set for the whole exporter";
                    self.warnings.add(entry.at, trail, text);
                }
            }
        }
    }

    fn uuid(&mut self, entry: &Entry, trail: &Trail<'_>) -> Option<DriverId> {
        let (at, trail) = (entry.value.at, trail.key("uuid"));
        let text = text(&entry.value, &trail, self.problems)?;
        let id: DriverId = match text.parse() {
            Ok(id) => id,
            Err(error) => {
                self.problems.add(at, trail, error);
                return None;
            }
        };
        match self.pinned.get(&id) {
            Some(line) => {
                let text = format!("this UUID is pinned twice, first in line {line}");
                self.problems.add(at, trail, text);
                None
            }
            None => {
                self.pinned.insert(id, at.line);
                Some(id)
            }
        }
    }

    fn build(
        &mut self,
        kind: &Kind,
        parts: &Parts<'_>,
        keys: &Keys<'_>,
        path: &Path,
        trail: &Trail<'_>,
    ) -> Option<Node> {
        if kind.runs_commands {
            self.runs_commands.push(path.clone());
        }
        let config = parts.config.as_ref()?;
        let trail = trail.key("config");
        let owner = keys.get("config").map_or(keys.at, |entry| entry.at);
        let value = value::entries(config, &(kind.config)(), owner, &trail, self.problems)?;
        let site = Site::new(self.exporter.clone(), path.clone(), self.state_dir);
        let site = parts.id.into_iter().fold(site, Site::pinned);
        let made_from = format!("{} {value:?}", kind.name).into();
        match (kind.build)(value, &site) {
            Ok(mut node) => {
                node.say_made_from(&made_from);
                let fits = self.count(drivers_below(&node), keys.at, &trail);
                fits.then_some(node)
            }
            Err(error) => {
                self.unbuilt(&error, keys, &trail);
                None
            }
        }
    }

    /// Tells why a kind did not take its configuration, at the key that it names.
    fn unbuilt(&mut self, error: &BuildError, keys: &Keys<'_>, trail: &Trail<'_>) {
        let at = match keys.get("config") {
            Some(config) if error.at().is_empty() => config.at,
            Some(config) => config.value.nearest(error.at()).at,
            None => keys.at,
        };
        let steps: String = error.at().iter().map(|step| format!(".{step}")).collect();
        self.problems.add(at, format_args!("{trail}{steps}"), error);
    }

    /// The children that the file gives a driver, if its kind takes any.
    fn configured_children(
        &mut self,
        kind: Option<&Kind>,
        keys: &Keys<'_>,
        path: &Path,
        trail: &Trail<'_>,
    ) -> BTreeMap<String, Node> {
        let rule = kind.map_or(ChildrenRule::Configured, |kind| kind.children);
        let Some(children) = keys.get("children") else {
            if keys.get("type").is_some() && kind.is_some_and(|kind| kind.name == COMPOSITE) {
                self.problems.add(keys.at, trail, "a composite needs \"children\"");
            }
            return BTreeMap::new();
        };
        let text = match rule {
            ChildrenRule::Configured => return self.children(children, path, trail),
            ChildrenRule::Own => "this kind of driver brings its own children",
            ChildrenRule::None => "this kind of driver has no children",
        };
        self.problems.add(children.at, trail.key("children"), text);
        BTreeMap::new()
    }
}

/// Whether `key` of `config` is one that Jumpstarter keeps there for every driver. A kind that has
/// a key of that name keeps it.
fn is_common(key: &str, own: Option<&Type>) -> bool {
    let has = match own {
        Some(Type::Struct { fields, .. }) => fields.iter().any(|field| field.name == key),
        _ => false,
    };
    matches!(key, "uuid" | "labels" | "log_level") && !has
}

fn drivers_below(node: &Node) -> usize {
    node.children.values().map(|child| 1 + drivers_below(child)).sum()
}
