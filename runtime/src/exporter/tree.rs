//! A tree made ready to be served: every driver with its id, its place and its turn.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bus_schema::{Address, DriverId, ExporterName, Path};

use super::{ExporterError, lease::Fences, slot::Slot, turn::Turn};
use crate::node::{Node, Role};

/// The drivers of a tree, parents before children.
pub(crate) struct Tree {
    leaves: Vec<Leaf>,
}

/// One driver or alias with what the registry tells of it.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) slot: Arc<Slot>,
    pub(crate) path: Path,
    pub(crate) kind: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) description: String,
    pub(crate) methods_description: BTreeMap<String, String>,
    pub(crate) alias_of: Option<Path>,
}

impl Tree {
    /// Gives every driver its id: the one it is pinned to, or that of its address.
    ///
    /// # Errors
    ///
    /// Two drivers with one id; an alias of nothing.
    pub(crate) fn of(
        name: &ExporterName,
        labels: &BTreeMap<String, String>,
        node: Node,
        fences: &Fences,
    ) -> Result<Self, ExporterError> {
        let mut nodes = Vec::new();
        flatten(Path::ROOT, node, &mut nodes);
        let mut turns = HashMap::<String, Turn>::new();
        let mut slots = HashMap::<Path, Arc<Slot>>::new();
        let mut by_id = HashMap::<DriverId, String>::new();
        for (path, node) in &nodes {
            let Role::Driver { factory, id, turn, .. } = &node.role else { continue };
            let address = Address { exporter: name.clone(), path: path.clone() }.to_string();
            let id = id.unwrap_or_else(|| DriverId::at(name, path));
            if let Some(first) = by_id.insert(id, address.clone()) {
                return Err(ExporterError::SameId { id, first, second: address });
            }
            let turn = match turn {
                Some(shared) => turns.entry(shared.clone()).or_default().clone(),
                None => Turn::default(),
            };
            let (address, fence) = (address.into(), fences.around(path).clone());
            let slot = Slot::new(id, address, path.clone(), factory.clone(), turn, fence);
            slots.insert(path.clone(), Arc::new(slot));
        }
        let leaves = nodes.into_iter().map(|(path, node)| {
            let (slot, kind, alias_of) = match &node.role {
                Role::Driver { kind, .. } => (slots[&path].clone(), kind.clone(), None),
                Role::Alias(target) => match slots.get(target) {
                    Some(slot) => (slot.clone(), "ref".to_owned(), Some(target.clone())),
                    None => {
                        let (alias, target) = (path.to_string(), target.to_string());
                        return Err(ExporterError::NoTarget { alias, target });
                    }
                },
            };
            let mut all = labels.clone();
            all.extend(node.labels);
            let Node { description, methods_description, .. } = node;
            Ok(Leaf { slot, path, kind, labels: all, description, methods_description, alias_of })
        });
        Ok(Self { leaves: leaves.collect::<Result<_, _>>()? })
    }

    /// The places, by id. An alias has none of its own.
    pub(crate) fn slots(&self) -> HashMap<DriverId, Arc<Slot>> {
        self.leaves.iter().map(|leaf| (leaf.slot.id, leaf.slot.clone())).collect()
    }

    /// The drivers whose id is not that of their path: pinned ones, and aliases.
    pub(crate) fn odd(&self, name: &ExporterName) -> HashMap<Path, DriverId> {
        let odd = self.leaves.iter().filter(|leaf| leaf.slot.id != DriverId::at(name, &leaf.path));
        odd.map(|leaf| (leaf.path.clone(), leaf.slot.id)).collect()
    }

    /// Subtrees of `fences` that no driver is at the top of.
    pub(crate) fn missing(&self, fences: &Fences) -> Option<Path> {
        let has = |path: &&Path| self.leaves.iter().any(|leaf| leaf.path == **path);
        fences.paths().find(|path| !has(path)).cloned()
    }

    /// What the registry is told, but for interfaces, which only the drivers' values know.
    pub(crate) fn records(&self) -> Vec<Leaf> {
        self.leaves.clone()
    }
}

fn flatten(path: Path, mut node: Node, into: &mut Vec<(Path, Node)>) {
    let children = std::mem::take(&mut node.children);
    into.push((path.clone(), node));
    for (name, child) in children {
        // Names were checked where they came from; one that is none has no address anyway.
        if let Ok(path) = path.child(&name) {
            flatten(path, child, into);
        }
    }
}
