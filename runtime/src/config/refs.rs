//! Where each `ref` leads.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bus_schema::Path;

use super::{
    problem::{NEAR_OTHERS_MAX, Problems, Trail, quoted},
    yaml::Mark,
};
use crate::Node;

/// The paths of a tree and the refs among them.
#[derive(Default)]
pub(super) struct Refs {
    known: BTreeMap<Path, Built>,
    aliases: Vec<Alias>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Built {
    Yes,
    /// It is in the file and has errors: what would be below it is unknown.
    Broken,
}

struct Alias {
    path: Path,
    written: String,
    at: Mark,
    trail: String,
}

impl Refs {
    /// Adds a driver or alias with all that is below it.
    pub(super) fn know(&mut self, path: &Path, node: &Node) {
        self.known.entry(path.clone()).or_insert(Built::Yes);
        for (name, child) in &node.children {
            if let Ok(path) = path.child(name) {
                self.know(&path, child);
            }
        }
    }

    pub(super) fn know_broken(&mut self, path: &Path) {
        self.known.insert(path.clone(), Built::Broken);
    }

    /// Adds the alias at `path`, whose `ref` is at `at`.
    pub(super) fn add(&mut self, path: &Path, written: &str, at: Mark, trail: &Trail<'_>) {
        let (path, written, trail) = (path.clone(), written.to_owned(), trail.to_string());
        self.aliases.push(Alias { path, written, at, trail });
    }

    /// The driver that each alias stands for, at the end of any chain.
    pub(super) fn targets(&self, problems: &mut Problems) -> BTreeMap<Path, Path> {
        let mut next = BTreeMap::new();
        for alias in &self.aliases {
            match self.find(&alias.written) {
                Some(target) => {
                    next.insert(alias.path.clone(), target);
                }
                None if self.below_broken(&alias.written) => {}
                None => self.leads_nowhere(alias, problems),
            }
        }
        let circular = self.circular(&next);
        for alias in self.aliases.iter().filter(|alias| circular.contains(&alias.path)) {
            let text = format!("{} leads in a circle back to here", quoted(&alias.written));
            problems.add(alias.at, &alias.trail, text);
        }
        if !circular.is_empty() {
            return BTreeMap::new();
        }
        ends(&next)
    }

    fn find(&self, written: &str) -> Option<Path> {
        readings(written).into_iter().find(|path| self.known.contains_key(path))
    }

    fn below_broken(&self, written: &str) -> bool {
        let broken = |path: &Path| self.known.get(path) == Some(&Built::Broken);
        let mut above = readings(written)
            .into_iter()
            .flat_map(|path| std::iter::successors(Some(path), Path::parent).collect::<Vec<_>>());
        above.any(|path| broken(&path))
    }

    fn leads_nowhere(&self, alias: &Alias, problems: &mut Problems) {
        let text = format!("there is no driver {} in \"export\"", quoted(&alias.written));
        let compared_max = if problems.is_full() { 0 } else { NEAR_OTHERS_MAX };
        let separator = if alias.written.contains('/') { "/" } else { "." };
        let others = self.known.keys().filter(|path| **path != alias.path).take(compared_max);
        let others: Vec<_> = others.map(|path| path.steps().join(separator)).collect();
        let others = others.iter().map(String::as_str);
        problems.add_near(alias.at, &alias.trail, text, &alias.written, others);
    }

    /// The aliases that close a circle of refs and children. It does not recurse: a chain of refs
    /// may be as long as the tree is large.
    fn circular(&self, next: &BTreeMap<Path, Path>) -> BTreeSet<Path> {
        let root = Path::ROOT;
        let mut edges: HashMap<&Path, Vec<&Path>> = HashMap::new();
        let parents: BTreeMap<_, _> = self.known.keys().map(|p| (p, p.parent())).collect();
        for (path, parent) in &parents {
            edges.entry(parent.as_ref().unwrap_or(&root)).or_default().push(path);
        }
        for (alias, target) in next {
            edges.entry(alias).or_default().push(target);
        }

        let mut circular = BTreeSet::new();
        let mut on_way = HashMap::from([(&root, true)]); // false: done with
        let mut way = vec![(&root, 0)];
        while let Some((path, edge)) = way.last_mut() {
            let Some(below) = edges.get(path).and_then(|edges| edges.get(*edge)) else {
                on_way.insert(path, false);
                way.pop();
                continue;
            };
            *edge += 1;
            match on_way.get(below) {
                Some(true) => {
                    let alias = way.iter().rev().find(|(path, _)| next.contains_key(path));
                    circular.extend(alias.map(|(path, _)| (*path).clone()));
                }
                Some(false) => {}
                None => {
                    on_way.insert(below, true);
                    way.push((below, 0));
                }
            }
        }
        circular
    }
}

/// What a ref may mean: `dut/console`, a child of the root whose name has dots, `dut.console`.
fn readings(written: &str) -> Vec<Path> {
    let dotted = written.replace('.', "/");
    let texts = if written.contains('/') { vec![written] } else { vec![written, &dotted] };
    texts.iter().filter_map(|text| text.parse().ok()).filter(|p: &Path| !p.is_root()).collect()
}

/// Follows each alias to the end, and what is on the way only once.
fn ends(next: &BTreeMap<Path, Path>) -> BTreeMap<Path, Path> {
    let mut ends: BTreeMap<Path, Path> = BTreeMap::new();
    for alias in next.keys() {
        let (mut way, mut at) = (Vec::new(), alias);
        while let Some(further) = next.get(at).filter(|_| !ends.contains_key(at)) {
            way.push(at);
            at = further;
        }
        let end = ends.get(at).unwrap_or(at).clone();
        ends.extend(way.into_iter().map(|alias| (alias.clone(), end.clone())));
    }
    ends
}
