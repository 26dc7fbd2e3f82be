//! Files with secrets: nobody but their owner may read them, and they are there whole or not at
//! all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// What one may do who is not the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Nothing,
    Read,
}

/// Makes a directory that is its owner's alone, and those above it.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file that must not be there yet.
pub(super) fn write_new(path: &Path, text: &str, others: Others) -> io::Result<()> {
    let fresh = write_beside(path, text, others)?;
    // A link, not a rename: it fails where there is a file already, however that came.
    let linked = fs::hard_link(&fresh, path);
    fs::remove_file(&fresh)?;
    linked?;
    sync_dir(path)
}

/// Writes a file in the place of whatever is there.
pub(super) fn replace(path: &Path, text: &str, others: Others) -> io::Result<()> {
    let fresh = write_beside(path, text, others)?;
    fs::rename(&fresh, path)?;
    sync_dir(path)
}

fn write_beside(path: &Path, text: &str, others: Others) -> io::Result<std::path::PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut fresh_name = name.to_owned();
    fresh_name.push(format!(".{:08x}", rand::random::<u32>()));
    let fresh = path.with_file_name(fresh_name);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| {
        if others == Others::Read {
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.sync_all()
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh); // the first error is the one to tell
        return Err(error);
    }
    Ok(fresh)
}

/// A name is on the disk when its directory is.
fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_its_owners_and_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, file) = (dir.path().join("a/b"), dir.path().join("a/b/c"));
        make_dir(&sub).unwrap();
        write_new(&file, "secret", Others::Nothing).unwrap();
        assert_eq!((mode(&sub), mode(&file)), (0o700, 0o600));
        let again = write_new(&file, "other", Others::Nothing).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&file).unwrap(), "secret");
        replace(&file, "new", Others::Read).unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new", 0o644));
        assert_eq!(fs::read_dir(&sub).unwrap().count(), 1, "nothing is left beside it");
    }
}
