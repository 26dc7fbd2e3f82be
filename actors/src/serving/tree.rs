//! A directory that is served: what is put into it stays inside, and goes with it.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bus_schema::{Fault, FaultKind};
use runtime::Resource;
use tokio::io::AsyncWriteExt as _;

/// Longest name of a file.
const NAME_BYTES_MAX: usize = 255;

/// A directory, and what was put into it.
#[derive(Debug)]
pub(crate) struct ServedTree {
    root: PathBuf,
    created: Mutex<BTreeSet<PathBuf>>,
    /// Whether what was put in is removed at the end.
    removes: bool,
}

impl ServedTree {
    /// The directory, made if it does not exist.
    pub(crate) fn open(root: PathBuf, removes: bool) -> Result<Self, Fault> {
        std::fs::create_dir_all(&root).map_err(|error| named(&root, &error))?;
        Ok(Self { root, created: Mutex::default(), removes })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn created(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `name` is, inside.
    pub(crate) fn inside(&self, name: &str) -> Result<PathBuf, Fault> {
        let relative = Path::new(name.trim_start_matches('/'));
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let good = !name.contains('\0') && name.len() <= 16 * NAME_BYTES_MAX;
        if !good || relative.as_os_str().is_empty() || !relative.components().all(plain) {
            let text = format!("{name:?} is no path inside {}", self.root.display());
            return Err(Fault::argument(text));
        }
        Ok(self.root.join(relative))
    }

    /// Stores what was lent. Nobody sees it before it is whole.
    pub(crate) async fn put(&self, name: &str, source: Resource) -> Result<u64, Fault> {
        let mut source = source.as_lent();
        let path = self.inside(name)?;
        let dir = path.parent().unwrap_or(&self.root).to_owned();
        tokio::fs::create_dir_all(&dir).await.map_err(|error| named(&dir, &error))?;
        let part = tempfile::Builder::new().prefix(".part-").tempfile_in(&dir)?;
        let (file, part) = part.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let bytes = tokio::io::copy(&mut source, &mut file).await;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return Err(copied(&path, error)),
        };
        file.flush().await.map_err(|error| named(&path, &error))?;
        readable(&part)?;
        part.persist(&path).map_err(|error| named(&path, &error.error))?;
        self.created().insert(path);
        Ok(bytes)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Fault> {
        let path = self.inside(name)?;
        std::fs::remove_file(&path).map_err(|error| named(&path, &error))?;
        self.created().remove(&path);
        Ok(())
    }

    /// What was put in and is still there.
    pub(crate) fn names(&self) -> Vec<String> {
        let inside = |path: &PathBuf| path.strip_prefix(&self.root).ok().map(Path::to_owned);
        let created = self.created();
        created.iter().filter_map(inside).map(|path| path.display().to_string()).collect()
    }

    /// Removes what was put in, if that is to be so.
    pub(crate) fn clear(&self) {
        if self.removes {
            for path in std::mem::take(&mut *self.created()) {
                let _ = std::fs::remove_file(&path); // somebody was faster
                let up = path.ancestors().skip(1).take_while(|dir| *dir != self.root);
                for dir in up {
                    if std::fs::remove_dir(dir).is_err() {
                        break; // something else is in it
                    }
                }
            }
        }
    }
}

impl Drop for ServedTree {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A temporary file is for its owner alone, and a served one is for everybody.
fn readable(path: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    let everybody = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, everybody).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &std::io::Error) -> Fault {
    let text = match error.kind() {
        std::io::ErrorKind::StorageFull => {
            format!("{}: no space is left on the exporter's disk", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    Fault::new(FaultKind::Io, text)
}

/// The lender's trouble is told apart from the disk's.
fn copied(path: &Path, error: std::io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => named(path, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let tree = ServedTree::open(dir.path().to_owned(), true).unwrap();
        assert_eq!(tree.inside("boot/Image").unwrap(), dir.path().join("boot/Image"));
        assert_eq!(tree.inside("/Image").unwrap(), dir.path().join("Image"));
        for bad in ["", "/", "..", "../x", "a/../../x", "a/..", ".", "a\0b"] {
            let fault = tree.inside(bad).unwrap_err();
            assert!(fault.text.contains("no path inside"), "{bad:?}: {fault}");
        }
    }
}
