//! OpenDAL's operators: how one is made, and what may be asked of it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path, PathBuf},
    sync::Once,
    time::Duration,
};

use ::opendal::{
    Configurator, Error, ErrorKind, Operator,
    layers::{RetryLayer, TimeoutLayer},
    services::{FsConfig, HttpConfig, MemoryConfig, S3Config},
};
use bus_schema::{Fault, FaultKind};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

/// Longest path in a tree. S3's keys have 1024 bytes, Linux' paths 4096.
const PATH_BYTES_MAX: usize = 4096;
/// Where a directory's files are until they are whole.
const PARTS: &str = ".jmp-bus-parts/";
/// For one request, but for the time its data takes.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// For a piece of data.
const PIECE_WITHIN: Duration = Duration::from_secs(60);
/// How often a request that failed for a passing reason is made again.
const RETRIES_MAX: usize = 4;

/// Why there is no such storage, or it did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpendalError {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// The storage says no.
    #[error("{path}: {why}")]
    Storage {
        /// What was asked for.
        path: String,
        /// Why not.
        why: String,
    },
}

/// Makes an operator of a scheme (`fs`, `memory`, `s3`, `http`) and settings by OpenDAL's names,
/// which asks again when a request fails for a passing reason, and gives up on one that hangs.
///
/// # Errors
///
/// [`OpendalError::Settings`] says which setting is unknown or missing. Nothing is reached for yet.
pub fn open_operator(
    scheme: &str,
    settings: BTreeMap<String, String>,
) -> Result<Operator, OpendalError> {
    check(scheme, &settings).map_err(OpendalError::Settings)?;
    prepare();
    let operator = match scheme {
        "fs" => Operator::from_config(config::<FsConfig>(settings)?),
        "memory" => Operator::from_config(config::<MemoryConfig>(settings)?),
        "s3" => Operator::from_config(config::<S3Config>(settings)?),
        _ => Operator::from_config(config::<HttpConfig>(settings)?),
    };
    let operator = operator.map_err(|error| OpendalError::Settings(said(&error)))?;
    let timeout = TimeoutLayer::new().with_timeout(REQUEST_WITHIN).with_io_timeout(PIECE_WITHIN);
    Ok(operator.layer(timeout).layer(RetryLayer::new().with_max_times(RETRIES_MAX).with_jitter()))
}

fn config<C: Configurator>(settings: BTreeMap<String, String>) -> Result<C, OpendalError> {
    C::from_iter(settings).map_err(|error| OpendalError::Settings(said(&error)))
}

/// HTTP needs a process-wide transport, and that a provider of cryptography. Who set either
/// before us keeps it.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default(); // or there is one
        opendal_http_transport_reqwest::install_default();
    });
}

/// Whether there is such a scheme with such settings.
pub(super) fn check(scheme: &str, settings: &BTreeMap<String, String>) -> Result<(), String> {
    let known = match scheme {
        "fs" => fields::<FsConfig>(),
        "memory" => fields::<MemoryConfig>(),
        "s3" => fields::<S3Config>(),
        "http" => fields::<HttpConfig>(),
        other => return Err(format!("no scheme {other:?}: there are fs, http, memory, s3")),
    };
    for name in settings.keys() {
        if !known.contains(&name.as_str()) {
            let text = format!("{scheme} has no setting {name:?}: there are {}", known.join(", "));
            return Err(text);
        }
    }
    let needed: &[&str] = match scheme {
        "fs" => &["root"],
        "s3" => &["bucket"],
        "http" => &["endpoint"],
        _ => &[],
    };
    match needed.iter().find(|name| settings.get(**name).is_none_or(String::is_empty)) {
        Some(missing) => Err(format!("{scheme} needs the setting {missing:?}")),
        None => Ok(()),
    }
}

/// A tree that one may move in, and not out of.
#[derive(Debug)]
pub(super) struct Tree {
    operator: Operator,
    /// The directory, if it is one of this host.
    dir: Option<PathBuf>,
}

impl Tree {
    /// Opens it. A directory is made if it does not exist, and freed of parts of files that an
    /// earlier exporter left.
    pub(super) fn open(
        scheme: &str,
        mut settings: BTreeMap<String, String>,
    ) -> Result<Self, Fault> {
        check(scheme, &settings).map_err(Fault::argument)?;
        let dir = match settings.get("root") {
            Some(root) if scheme == "fs" => {
                let named = |error| Fault::new(FaultKind::Io, format!("{root}: {error}"));
                std::fs::create_dir_all(root).map_err(named)?;
                Some(Path::new(root).canonicalize().map_err(named)?)
            }
            _ => None,
        };
        if let Some(dir) = &dir {
            let parts = dir.join(PARTS);
            let _ = std::fs::remove_dir_all(&parts); // there are seldom any
            let parts = parts.display().to_string();
            settings.entry("atomic_write_dir".to_owned()).or_insert(parts);
        }
        let operator = open_operator(scheme, settings).map_err(Fault::argument)?;
        Ok(Self { operator, dir })
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The path of a file.
    pub(super) fn file(&self, path: &str) -> Result<String, Fault> {
        match self.entry(path)? {
            file if file.is_empty() || file.ends_with('/') => {
                Err(Fault::argument(format!("{path:?} names a directory, and a file is wanted")))
            }
            file => Ok(file),
        }
    }

    /// The path of a directory: ends in `/`.
    pub(super) fn dir(&self, path: &str) -> Result<String, Fault> {
        Ok(match self.entry(path)? {
            dir if dir.ends_with('/') => dir,
            dir => format!("{dir}/"),
        })
    }

    /// The path of a file or directory, from the root of the tree; that is `/`.
    pub(super) fn entry(&self, path: &str) -> Result<String, Fault> {
        let inside = path.trim_start_matches('/');
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let good = path.len() <= PATH_BYTES_MAX && !path.chars().any(char::is_control);
        if !good || !Path::new(inside).components().all(plain) || is_part(inside) {
            let shown: String = path.chars().take(100).collect();
            return Err(Fault::argument(format!("{shown:?} is no path inside the storage's root")));
        }
        self.stays_inside(inside)?;
        Ok(if inside.is_empty() { "/".to_owned() } else { inside.to_owned() })
    }

    /// A link that somebody put there may lead out.
    fn stays_inside(&self, path: &str) -> Result<(), Fault> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let whole = dir.join(path);
        // The deepest that exists: what is below it is made there.
        let there = whole.ancestors().find_map(|part| part.canonicalize().ok());
        match there.is_some_and(|there| there.starts_with(dir)) {
            true => Ok(()),
            false => {
                let text = format!("{path:?} leads out of the storage's root by a link");
                Err(Fault::argument(text))
            }
        }
    }

    /// Removes what is at a path, and below it.
    pub(super) async fn remove_all(&self, path: &str) -> Result<(), Fault> {
        let removed = match path.ends_with('/') {
            true => self.operator.delete_with(path).recursive(true).await,
            false => match self.operator.stat(path).await {
                Ok(known) if !known.is_dir() => self.operator.delete(path).await,
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                // In a bucket, a directory is only what names begin with.
                _ => self.operator.delete_with(&format!("{path}/")).recursive(true).await,
            },
        };
        removed.map_err(|error| fault(path, &error))
    }
}

/// Whether a path is that of a file which is not whole yet.
pub(super) fn is_part(path: &str) -> bool {
    let name = PARTS.trim_end_matches('/');
    path.split('/').next() == Some(name)
}

/// What a storage said, without what it was asked: that may hold credentials.
pub(crate) fn said(error: &Error) -> String {
    let text = error.message().lines().next().unwrap_or_default();
    match error.kind() {
        ErrorKind::NotFound => "there is no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => format!("permission denied ({text})"),
        ErrorKind::Unsupported => format!("this storage does not do that ({text})"),
        _ => text.chars().take(300).collect(),
    }
}

/// As a driver reports it.
pub(crate) fn fault(path: &str, error: &Error) -> Fault {
    let kind = match error.kind() {
        ErrorKind::Unsupported => FaultKind::Unsupported,
        ErrorKind::NotFound
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::IsSameFile
        | ErrorKind::AlreadyExists
        | ErrorKind::ConfigInvalid => FaultKind::Argument,
        ErrorKind::RateLimited => FaultKind::Busy,
        _ if error.is_temporary() => FaultKind::Unreachable,
        _ => FaultKind::Io,
    };
    Fault::new(kind, format!("{path}: {}", said(error)))
}

/// The names of a configuration's fields, as its `Deserialize` says.
fn fields<C: DeserializeOwned>() -> &'static [&'static str] {
    match C::deserialize(FieldNames) {
        Err(Names(names)) => names,
        Ok(_) => &[],
    }
}

/// Asked for a struct, it says which fields that has.
struct FieldNames;

#[derive(Debug)]
struct Names(&'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames {
    type Error = Names;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Names> {
        Err(Names(fields))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Names> {
        Err(Names(&[]))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for Names {}

impl de::Error for Names {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_that_no_storage_knows_are_refused() {
        for (scheme, pairs, problem) in [
            ("ftp", &[][..], "there are fs, http, memory, s3"),
            ("fs", &[], "needs the setting \"root\""),
            ("fs", &[("root", "/x"), ("rot", "/y")], "no setting \"rot\": there are root"),
            ("s3", &[("bucket", "b"), ("secret", "s")], "secret_access_key"),
            ("http", &[("root", "/")], "needs the setting \"endpoint\""),
        ] {
            let said = check(scheme, &settings(pairs)).unwrap_err();
            assert!(said.contains(problem), "{scheme}: {said}");
        }
        check("s3", &settings(&[("bucket", "b"), ("region", "x")])).unwrap();
    }

    #[test]
    fn a_path_stays_inside() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path().join("tree");
        let tree = Tree::open("fs", settings(&[("root", &root.display().to_string())])).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        std::fs::create_dir(root.join("a")).unwrap();
        assert_eq!(tree.entry("/").unwrap(), "/");
        assert_eq!(tree.dir("a").unwrap(), "a/");
        assert_eq!(tree.file("in/new").unwrap(), "in/new");
        for bad in ["..", "../x", "a/../../x", ".", "a\0b", "out", "out/x", "out/new/y", PARTS] {
            let fault = tree.entry(bad).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Argument, "{bad:?}: {fault}");
            assert!(fault.text.contains("storage's root"), "{bad:?}: {fault}");
        }
        for dir in ["", "/", "a/"] {
            assert!(tree.file(dir).unwrap_err().text.contains("directory"), "{dir:?}");
        }
    }
}
