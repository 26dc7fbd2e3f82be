//! A tree made ready to be served: every driver with its id, its place and its turn.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bus_schema::{Address, DriverId, ExporterName, Path};

use super::{ExporterError, lease::Fences, slot::Slot, turn::Turn};
use crate::node::{Factory, Node, Role};

/// The drivers of a tree, parents before children.
#[derive(Default)]
pub(crate) struct Tree {
    leaves: Vec<Leaf>,
    turns: HashMap<String, Turn>,
    /// Drivers that go on in their place with another value, and what makes that.
    changed: Vec<(Arc<Slot>, Factory)>,
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
    made_from: Option<Arc<str>>,
    /// The name of the turn that it shares.
    turn: Option<String>,
}

impl Tree {
    /// Gives every driver its id: the one it is pinned to, or that of its address. What is in
    /// `old` as it is to be keeps its place.
    ///
    /// # Errors
    ///
    /// Two drivers with one id; an alias of nothing.
    pub(crate) fn of(
        name: &ExporterName,
        labels: &BTreeMap<String, String>,
        node: Node,
        fences: &Fences,
        old: &Self,
    ) -> Result<Self, ExporterError> {
        let mut nodes = Vec::new();
        flatten(Path::ROOT, node, &mut nodes);
        let mut turns = old.turns.clone();
        let mut changed = Vec::new();
        let places = old.leaves.iter().filter(|leaf| leaf.alias_of.is_none());
        let places: HashMap<_, _> = places.map(|leaf| (&leaf.path, leaf)).collect();
        let mut slots = HashMap::<Path, Arc<Slot>>::new();
        let mut by_id = HashMap::<DriverId, String>::new();
        for (path, node) in &nodes {
            let Role::Driver { factory, id, turn, .. } = &node.role else { continue };
            let address = Address { exporter: name.clone(), path: path.clone() }.to_string();
            let id = id.unwrap_or_else(|| DriverId::at(name, path));
            if let Some(first) = by_id.insert(id, address.clone()) {
                return Err(ExporterError::SameId { id, first, second: address });
            }
            let fence = fences.around(path).clone();
            let stays = places.get(path).filter(|leaf| {
                leaf.turn == *turn && leaf.slot.id == id && Arc::ptr_eq(&leaf.slot.fence, &fence)
            });
            if let Some(leaf) = stays {
                if leaf.made_from.is_none() || leaf.made_from != node.made_from {
                    changed.push((leaf.slot.clone(), factory.clone()));
                }
                slots.insert(path.clone(), leaf.slot.clone());
                continue;
            }
            let turn = match turn {
                Some(shared) => turns.entry(shared.clone()).or_default().clone(),
                None => Turn::default(),
            };
            let slot = Slot::new(id, address.into(), path.clone(), factory.clone(), turn, fence);
            slots.insert(path.clone(), Arc::new(slot));
        }
        let leaves = nodes.into_iter().map(|(path, node)| {
            let (slot, kind, alias_of, turn) = match &node.role {
                Role::Driver { kind, turn, .. } => {
                    (slots[&path].clone(), kind.clone(), None, turn.clone())
                }
                Role::Alias(target) => match slots.get(target) {
                    Some(slot) => (slot.clone(), "ref".to_owned(), Some(target.clone()), None),
                    None => {
                        let (alias, target) = (path.to_string(), target.to_string());
                        return Err(ExporterError::NoTarget { alias, target });
                    }
                },
            };
            let mut all = labels.clone();
            all.extend(node.labels);
            let Node { description, methods_description, made_from, .. } = node;
            Ok(Leaf {
                slot,
                path,
                kind,
                labels: all,
                description,
                methods_description,
                alias_of,
                made_from,
                turn,
            })
        });
        Ok(Self { leaves: leaves.collect::<Result<_, _>>()?, turns, changed })
    }

    /// The places. An alias has none of its own.
    pub(crate) fn slots(&self) -> Slots {
        Slots {
            by_id: self.leaves.iter().map(|leaf| (leaf.slot.id, leaf.slot.clone())).collect(),
            by_path: self
                .leaves
                .iter()
                .map(|leaf| (leaf.path.clone(), leaf.slot.clone()))
                .collect(),
        }
    }

    /// How this tree differs from `old`, whose places it took over.
    pub(crate) fn since(&self, old: &Self) -> Difference {
        let places = |tree: &Self| -> HashMap<*const Slot, Arc<Slot>> {
            tree.leaves.iter().map(|leaf| (Arc::as_ptr(&leaf.slot), leaf.slot.clone())).collect()
        };
        let (mut before, mut now) = (places(old), places(self));
        let kept: Vec<_> = now.keys().filter(|at| before.contains_key(*at)).copied().collect();
        for at in &kept {
            before.remove(at);
            now.remove(at);
        }
        Difference {
            kept: kept.len() - self.changed.len(),
            removed: before.into_values().collect(),
            added: now.into_values().collect(),
            changed: self.changed.clone(),
        }
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

/// How one tree differs from another.
pub(crate) struct Difference {
    /// Drivers that go on as they are.
    pub(crate) kept: usize,
    pub(crate) removed: Vec<Arc<Slot>>,
    pub(crate) added: Vec<Arc<Slot>>,
    /// Those that are to be made anew in their place, and what makes them.
    pub(crate) changed: Vec<(Arc<Slot>, Factory)>,
}

/// The places of an exporter's drivers.
#[derive(Default)]
pub(crate) struct Slots {
    pub(crate) by_id: HashMap<DriverId, Arc<Slot>>,
    /// Aliases, too.
    pub(crate) by_path: HashMap<Path, Arc<Slot>>,
}

impl Slots {
    /// All places, by address.
    pub(crate) fn sorted(&self) -> Vec<Arc<Slot>> {
        let mut slots: Vec<_> = self.by_id.values().cloned().collect();
        slots.sort_by(|a, b| a.address.cmp(&b.address));
        slots
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
