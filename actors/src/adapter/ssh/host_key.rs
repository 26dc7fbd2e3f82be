//! Which host keys are trusted.
//!
//! Behind a forward every host is `127.0.0.1` at some port, so a host is known by its driver: as
//! `jmp-bus-` and the driver's UUID. The file is one of OpenSSH, which can share it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use runtime::DriverRef;
use russh::{
    Preferred,
    keys::{HashAlg, PublicKey, PublicKeyBase64 as _, known_hosts::known_host_keys_path},
};

use super::SshError;

/// The port of hosts that are written without one.
const PORT: u16 = 22;

/// What is done about a host that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostKeys {
    /// It is recorded when it is first seen, and refused if its key changes.
    #[default]
    Pin,
    /// It is refused.
    Known,
    /// Any key of any host will do.
    Any,
}

/// The hosts that are known, and what is done about others.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    /// What is done about others.
    pub hosts: HostKeys,
    /// The file that they are in; without one, this value and its clones know them.
    file: Option<PathBuf>,
    memory: Arc<Mutex<Vec<(String, PublicKey)>>>,
}

impl KnownHosts {
    /// Those in this file.
    pub fn in_file(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// What is done about a host that is not known.
    #[must_use]
    pub fn with(self, hosts: HostKeys) -> Self {
        Self { hosts, ..self }
    }

    /// What the host behind a driver is known as.
    pub fn name_of(driver: &DriverRef) -> String {
        format!("jmp-bus-{}", driver.id())
    }

    /// The keys that a host is known by.
    pub(super) fn keys_of(&self, host: &str) -> Result<Vec<PublicKey>, SshError> {
        let Some(file) = &self.file else {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(memory.iter().filter(|(h, _)| h == host).map(|(_, k)| k.clone()).collect());
        };
        let read = known_host_keys_path(host, PORT, file);
        let keys = read.map_err(|error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error.to_string());
            SshError::local(format!("read {}", file.display()), error)
        })?;
        Ok(keys.into_iter().map(|(_line, key)| key).collect())
    }

    /// Whether a host may have this key; it is recorded if it is the first.
    pub(super) fn check(&self, host: &str, key: &PublicKey) -> Result<(), SshError> {
        if self.hosts == HostKeys::Any {
            return Ok(());
        }
        let known = self.keys_of(host)?;
        if known.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(());
        }
        let host = host.to_owned();
        match (known.is_empty(), self.hosts) {
            (true, HostKeys::Pin) => self.record(&host, key),
            (true, _) => Err(SshError::HostKeyUnknown { host, key: fingerprint(key) }),
            (false, _) => {
                let before: Vec<_> = known.iter().map(fingerprint).collect();
                Err(SshError::HostKeyChanged {
                    host,
                    now: fingerprint(key),
                    before: before.join(", "),
                    file: self.file.as_ref().map(|file| file.display().to_string()),
                })
            }
        }
    }

    fn record(&self, host: &str, key: &PublicKey) -> Result<(), SshError> {
        let Some(file) = &self.file else {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.push((host.to_owned(), key.clone()));
            return Ok(());
        };
        let line = format!("{host} {} {}\n", key.algorithm(), key.public_key_base64());
        append(file, &line)
            .map_err(|source| SshError::local(format!("write {}", file.display()), source))
    }

    /// Forgets the keys of a host, such as of a board that was flashed anew. Gives how many there
    /// were.
    ///
    /// # Errors
    ///
    /// [`SshError::Local`] if the file cannot be read or written.
    pub fn forget(&self, host: &str) -> Result<usize, SshError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let before = memory.len();
        memory.retain(|(name, _)| name != host);
        let forgotten = before - memory.len();
        let Some(file) = &self.file else { return Ok(forgotten) };
        let failed = |source| SshError::local(format!("change {}", file.display()), source);
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            read => read.map_err(failed)?,
        };
        let kept: Vec<_> = text.lines().filter(|line| !is_of(line, host)).collect();
        let forgotten = text.lines().count() - kept.len();
        if forgotten > 0 {
            let text: String = kept.iter().flat_map(|line| [line, "\n"]).collect();
            replace(file, &text).map_err(failed)?;
        }
        Ok(forgotten)
    }
}

/// Whether a line is of this host. OpenSSH may have hashed the names of others.
fn is_of(line: &str, host: &str) -> bool {
    line.split_whitespace().next().is_some_and(|names| names.split(',').any(|name| name == host))
}

/// Adds a line with one write, so that two programs do not tear each other's apart.
fn append(file: &Path, line: &str) -> io::Result<()> {
    make_dir(file)?;
    let unended = fs::read(file).is_ok_and(|text| text.last().is_some_and(|last| *last != b'\n'));
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
    file.write_all(format!("{}{line}", if unended { "\n" } else { "" }).as_bytes())
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(text.as_bytes())?;
    new.persist(file)?;
    Ok(())
}

fn make_dir(file: &Path) -> io::Result<()> {
    match file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => DirBuilder::new().recursive(true).mode(0o700).create(dir),
        None => Ok(()),
    }
}

pub(super) fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Asks the server for a key of a sort that it is known by, if it has several.
pub(super) fn prefer_known(preferred: &mut Preferred, known: &[PublicKey]) {
    let is_known = |algorithm: &russh::keys::Algorithm| {
        known.iter().any(|key| match (key.algorithm(), algorithm) {
            (russh::keys::Algorithm::Rsa { .. }, russh::keys::Algorithm::Rsa { .. }) => true,
            (known, algorithm) => known == *algorithm,
        })
    };
    let mut order = preferred.key.to_vec();
    order.sort_by_key(|algorithm| !is_known(algorithm)); // stable: otherwise as before
    preferred.key = order.into();
}

#[cfg(test)]
mod tests {
    use russh::keys::{Algorithm, PrivateKey, key::safe_rng};

    use super::*;

    fn key() -> PublicKey {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap().public_key().clone()
    }

    #[test]
    fn a_host_is_pinned_when_first_seen_and_refused_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/known_hosts");
        let (one, other) = (key(), key());
        for hosts in [KnownHosts::in_file(&file), KnownHosts::default()] {
            hosts.check("a", &one).unwrap();
            hosts.check("b", &other).unwrap();
            hosts.check("a", &one).unwrap();
            let error = hosts.check("a", &other).unwrap_err().to_string();
            assert!(error.contains("HAS CHANGED"), "{error}");
            assert!(error.contains(&fingerprint(&one)) && error.contains(&fingerprint(&other)));
            assert_eq!(hosts.forget("a").unwrap(), 1);
            assert_eq!(hosts.forget("a").unwrap(), 0);
            hosts.check("a", &other).unwrap();
            hosts.check("b", &other).unwrap();
        }
        let again = KnownHosts::in_file(&file).with(HostKeys::Known);
        again.check("a", &other).unwrap();
        let error = again.check("c", &one).unwrap_err();
        assert!(matches!(error, SshError::HostKeyUnknown { .. }), "{error}");
        again.with(HostKeys::Any).check("a", &one).unwrap();
    }

    #[test]
    fn the_file_is_one_of_openssh_and_keeps_what_others_wrote() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs::write(&file, "# mine\nother ssh-ed25519 AAAA").unwrap();
        let hosts = KnownHosts::in_file(&file);
        hosts.check("a", &key()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["# mine", "other ssh-ed25519 AAAA"]);
        assert!(lines[2].starts_with("a ssh-ed25519 AAAA"), "{text}");
        hosts.forget("a").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "# mine\nother ssh-ed25519 AAAA\n");
        let new = dir.path().join("new/known_hosts");
        KnownHosts::in_file(&new).check("a", &key()).unwrap();
        assert_eq!(fs::metadata(new).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
