//! Directories that are gone with their owner, even if it was killed.

use std::{
    env,
    fs::{self, DirEntry, File, OpenOptions, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// How the names of all of them begin.
const PREFIX: &str = "jmp-bus-";
/// The file in each that its owner holds a lock on. The kernel lets go of it for one that is killed.
const OWNED: &str = "owned.lock";

/// A private directory for what need not outlast its owner. It is removed when this is dropped;
/// what an owner that was killed has left goes when the next one is made.
#[derive(Debug)]
pub struct ScratchDir {
    dir: TempDir, // before the lock, so that it is nobody's only when it is gone
    owned: File,
}

impl ScratchDir {
    /// One for `what`, in the place for temporary files.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn new(what: &str) -> io::Result<Self> {
        Self::within(&env::temp_dir(), what)
    }

    /// One whose path has at most so many bytes, if that can be: paths of sockets are short.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn short(what: &str, path_bytes_max: usize) -> io::Result<Self> {
        let usual = Self::new(what)?;
        match usual.path().as_os_str().len() <= path_bytes_max {
            true => Ok(usual),
            false => Self::within(Path::new("/tmp"), what),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A lock for another process that uses the directory: it stays until that has ended, too.
    pub(crate) fn lend(&self) -> io::Result<File> {
        self.owned.try_clone()
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// If it cannot be removed.
    pub fn close(self) -> io::Result<()> {
        self.dir.close()
    }

    fn within(parent: &Path, what: &str) -> io::Result<Self> {
        sweep(parent);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{what}-"))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        // Under its name it is locked from the first moment.
        let fresh = dir.path().join("owned.fresh");
        let owned = OpenOptions::new().create_new(true).append(true).mode(0o600).open(&fresh)?;
        owned.lock()?;
        fs::rename(&fresh, dir.path().join(OWNED))?;
        Ok(Self { dir, owned })
    }
}

/// Removes what nobody owns any more. What cannot be removed is left to whoever can.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for dir in entries.flatten().filter_map(ours) {
        let abandoned = File::open(dir.join(OWNED)).and_then(|owned| {
            owned.try_lock()?;
            Ok(owned)
        });
        // Held while the directory goes, or two would sweep it.
        if let Ok(_held) = abandoned
            && !is_used(&dir)
        {
            tracing::debug!(dir = %dir.display(), "removing what a killed process has left");
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

fn ours(entry: DirEntry) -> Option<PathBuf> {
    let named = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes());
    (named && entry.file_type().ok()?.is_dir()).then(|| entry.path())
}

/// Whether a process that the owner started has outlived it, and keeps its temporary files there.
fn is_used(dir: &Path) -> bool {
    let variable = [b"TMPDIR=", dir.as_os_str().as_bytes()].concat();
    let has_it = |process: DirEntry| {
        let environ = fs::read(process.path().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == variable)
    };
    fs::read_dir("/proc").is_ok_and(|mut all| all.any(|process| process.is_ok_and(has_it)))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What a process leaves behind that was killed.
    fn abandoned(parent: &Path) -> PathBuf {
        let ScratchDir { dir, owned } = ScratchDir::within(parent, "killed").unwrap();
        fs::write(dir.path().join("state"), "of one that is dead").unwrap();
        drop(owned);
        dir.keep()
    }

    /// It goes. A child that another test starts just now has the lock, too, until it has become
    /// another program.
    fn swept(parent: &Path, left: &Path) {
        for _ in 0..500 {
            sweep(parent);
            if !left.exists() {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        panic!("{} is still there", left.display());
    }

    #[test]
    fn what_a_killed_owner_has_left_goes_with_the_next_and_nothing_else_does() {
        let parent = tempfile::tempdir().unwrap();
        let alive = ScratchDir::within(parent.path(), "alive").unwrap();
        let foreign = parent.path().join("jmp-bus-of-somebody");
        fs::create_dir(&foreign).unwrap();
        let left = abandoned(parent.path());
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(OWNED), "").unwrap();

        let next = ScratchDir::within(parent.path(), "next").unwrap();
        swept(parent.path(), &left);
        for stays in [alive.path(), next.path(), &foreign, &other] {
            assert!(stays.exists(), "{}", stays.display());
        }
        let lent = next.lend().unwrap();
        next.close().unwrap();
        drop((lent, alive));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 2, "they go with their owners");
    }

    #[test]
    fn what_outlives_a_killed_owner_keeps_its_files_until_it_ends() {
        let parent = tempfile::tempdir().unwrap();
        let left = abandoned(parent.path());
        let mut child = Command::new("cat")
            .env("TMPDIR", &left)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        sweep(parent.path());
        assert!(left.exists());
        drop(child.stdin.take());
        child.wait().unwrap();
        swept(parent.path(), &left);
    }

    #[test]
    fn a_path_that_is_too_long_for_sockets_is_made_elsewhere() {
        let short = ScratchDir::short("short", 1).unwrap();
        assert!(short.path().starts_with("/tmp"));
        assert_eq!(fs::metadata(short.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
