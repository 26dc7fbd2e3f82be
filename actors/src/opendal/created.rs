//! What was made in a tree, and goes with it if that is wanted.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus_schema::Fault;

/// Names that are remembered. More are refused: they could not be removed again.
const CREATED_MAX: usize = 100_000;

/// The files and directories that a driver made. Directories end in `/`.
#[derive(Debug)]
pub(super) struct Created {
    paths: Mutex<BTreeSet<String>>,
    /// Whether they are removed at the end.
    pub(super) removes: bool,
}

impl Created {
    pub(super) fn new(removes: bool) -> Self {
        Self { paths: Mutex::default(), removes }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before it is made: what is half made has to go, too.
    pub(super) fn add(&self, path: &str) -> Result<(), Fault> {
        let mut paths = self.lock();
        if paths.len() >= CREATED_MAX && !paths.contains(path) {
            let text = format!("{CREATED_MAX} files were made here: remove some, or end the lease");
            return Err(Fault::argument(text));
        }
        paths.insert(path.to_owned());
        Ok(())
    }

    pub(super) fn forget(&self, path: &str) {
        self.lock().remove(path);
    }

    /// `path`, and what is below it if it is a directory.
    pub(super) fn forget_below(&self, path: &str) {
        let dir = format!("{}/", path.trim_end_matches('/'));
        let is_root = path.is_empty() || path == "/";
        self.lock().retain(|made| !is_root && made != path && !made.starts_with(&dir));
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    /// All of them, deepest first.
    pub(super) fn take(&self) -> impl Iterator<Item = String> + use<> {
        std::mem::take(&mut *self.lock()).into_iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_a_directory_is_forgotten_and_the_rest_is_not() {
        let created = Created::new(true);
        for path in ["a/", "a/b", "a/c/", "ab", "z"] {
            created.add(path).unwrap();
        }
        created.forget_below("a");
        assert_eq!(created.paths(), ["ab", "z"]);
        created.forget("z");
        assert_eq!(created.take().collect::<Vec<_>>(), ["ab"]);
        assert!(created.paths().is_empty());
    }
}
