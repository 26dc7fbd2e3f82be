//! A storage tree of the exporter: a directory, a bucket, whatever OpenDAL can reach.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use ::opendal::{Metadata, Operator};
use bus_schema::{Describe, Fault, Interface, driver};
use futures_util::TryStreamExt as _;
use runtime::{Context, DriverKind, Items, Resource, ResourceWriter, Site};
use serde::{Deserialize, Serialize};

mod created;
mod files;
mod operator;
mod transfer;

use created::Created;
use files::Files;
pub use operator::{OpendalError, open_operator};
pub(crate) use operator::{fault, said};

/// How long a presigned request can be made to hold: a week, the most that S3 signs.
const PRESIGNED_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A storage tree. Methods are those of Jumpstarter's driver of the same name, and two that move a
/// whole file.
#[derive(Debug)]
pub struct Opendal {
    tree: operator::Tree,
    files: Files,
    created: Created,
}

/// The configuration of an [`Opendal`].
#[derive(Clone, PartialEq, Eq, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct OpendalConfig {
    /// Where the tree is: `fs`, `memory`, `s3` or `http`.
    pub scheme: String,
    /// The settings of that, by OpenDAL's names: `root`, `bucket`, `endpoint` …
    #[serde(default)]
    pub kwargs: BTreeMap<String, String>,
    /// Whether what was made is removed when a lease ends, and at the exporter's end.
    #[serde(default)]
    pub remove_created_on_close: bool,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub enum OpenMode {
    /// To read it.
    #[serde(rename = "rb")]
    Read,
    /// To write it anew; what was there goes when the file is closed.
    #[serde(rename = "wb")]
    Write,
}

/// How a file's digest is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "kebab-case")]
pub enum HashAlgorithm {
    /// MD5: for comparing with old lists, not for trust.
    Md5,
    /// SHA-256.
    Sha256,
}

/// What is known of a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct EntryMetadata {
    /// Whether it is a file or a directory.
    pub mode: EntryMode,
    /// The length of a file in bytes.
    pub content_length: u64,
    /// Its media type, if the storage keeps one.
    #[serde(default)]
    pub content_type: Option<String>,
    /// How a browser is to show it, if the storage keeps that.
    #[serde(default)]
    pub content_disposition: Option<String>,
    /// Its MD5, if the storage keeps one.
    #[serde(default)]
    pub content_md5: Option<String>,
    /// Its version as HTTP names it, if there is one.
    #[serde(default)]
    pub etag: Option<String>,
    /// When it was last written (RFC 3339), if that is known.
    #[serde(default)]
    pub last_modified: Option<String>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct EntryMode {
    /// Whether it is a file.
    pub is_file: bool,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A request that the storage answers to whoever makes it, until it expires. It is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct PresignedRequest {
    /// Where.
    pub url: String,
    /// `GET`, `HEAD` or `PUT`.
    pub method: String,
    /// Headers that have to be sent.
    pub headers: BTreeMap<String, String>,
}

/// What a storage can do, by OpenDAL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct StorageCapability {
    /// `stat` and `exists`.
    pub stat: bool,
    /// `open` to read, and `read`.
    pub read: bool,
    /// `open` to write, and `write`.
    pub write: bool,
    /// `create_dir`.
    pub create_dir: bool,
    /// `delete`.
    pub delete: bool,
    /// `copy`.
    pub copy: bool,
    /// `rename`.
    pub rename: bool,
    /// `list` and `scan`.
    pub list: bool,
    /// `presign_stat`.
    pub presign_stat: bool,
    /// `presign_read`.
    pub presign_read: bool,
    /// `presign_write`.
    pub presign_write: bool,
}

impl Opendal {
    /// Whether the configuration makes sense. Reaches for nothing.
    pub(crate) fn check(config: OpendalConfig) -> Result<(), Fault> {
        operator::check(&config.scheme, &config.kwargs).map_err(Fault::argument)
    }

    fn operator(&self) -> &Operator {
        self.tree.operator()
    }

    /// Remembers what is about to be made; what is there already is somebody's, and stays.
    async fn making(&self, path: &str) -> Result<(), Fault> {
        match self.operator().exists(path).await {
            Ok(true) => Ok(()),
            Ok(false) => self.created.add(path),
            Err(error) => Err(fault(path, &error)),
        }
    }
}

#[driver(name = "opendal")]
impl Opendal {
    /// Opens a file; gives the name under which the other methods know it.
    #[export]
    #[method(concurrent)]
    async fn open(
        &self,
        /// The file, from the root of the tree.
        path: String,
        /// `rb` to read, `wb` to write anew.
        mode: OpenMode,
    ) -> Result<String, Fault> {
        let path = self.tree.file(&path)?;
        if mode == OpenMode::Write {
            self.making(&path).await?;
        }
        self.files.open(self.operator(), path, mode).await
    }

    /// Reads an open file from where it is to its end; gives the number of bytes.
    #[export]
    #[method(concurrent, deadline = "4h")]
    async fn file_read(
        &self,
        cx: &Context,
        fd: String,
        /// Where it goes.
        dst: ResourceWriter,
    ) -> Result<u64, Fault> {
        self.files.read(cx, &fd, dst).await
    }

    /// Writes to an open file where it is; gives the number of bytes. What is lent is not unpacked.
    #[export]
    #[method(concurrent, deadline = "4h")]
    async fn file_write(
        &self,
        cx: &Context,
        fd: String,
        /// What is written.
        src: Resource,
    ) -> Result<u64, Fault> {
        self.files.write(cx, &fd, src).await
    }

    /// Moves to another place of a file that is open to read; gives that place.
    #[export]
    #[method(concurrent)]
    async fn file_seek(
        &self,
        fd: String,
        pos: i64,
        /// 0: from the beginning; 1: from where it is; 2: from the end.
        #[default(0)]
        whence: u16,
    ) -> Result<u64, Fault> {
        self.files.seek(&fd, pos, whence).await
    }

    /// Where an open file is.
    #[export]
    #[method(concurrent)]
    async fn file_tell(&self, fd: String) -> Result<u64, Fault> {
        self.files.tell(&fd).await
    }

    /// Closes a file. One that was written is there from now on.
    #[export]
    #[method(concurrent, deadline = "10m")]
    async fn file_close(&self, fd: String) -> Result<(), Fault> {
        self.files.close(&fd).await
    }

    /// Whether a file is not open (any more).
    #[export]
    #[method(concurrent)]
    async fn file_closed(&self, fd: String) -> bool {
        !self.files.is_open(&fd)
    }

    /// Whether an open file can be read.
    #[export]
    #[method(concurrent)]
    async fn file_readable(&self, fd: String) -> Result<bool, Fault> {
        Ok(self.files.mode(&fd)? == OpenMode::Read)
    }

    /// Whether one can move in an open file.
    #[export]
    #[method(concurrent)]
    async fn file_seekable(&self, fd: String) -> Result<bool, Fault> {
        Ok(self.files.mode(&fd)? == OpenMode::Read)
    }

    /// Whether an open file can be written.
    #[export]
    #[method(concurrent)]
    async fn file_writable(&self, fd: String) -> Result<bool, Fault> {
        Ok(self.files.mode(&fd)? == OpenMode::Write)
    }

    /// Reads a whole file; gives the number of bytes.
    #[export]
    #[method(concurrent, deadline = "4h")]
    async fn read(
        &self,
        cx: &Context,
        path: String,
        /// Where it goes.
        dst: ResourceWriter,
    ) -> Result<u64, Fault> {
        let path = self.tree.file(&path)?;
        let bytes = self.operator().stat(&path).await.map_err(|error| fault(&path, &error))?;
        let range = 0..bytes.content_length();
        transfer::read(cx, self.operator(), &path, range, dst).await
    }

    /// Writes a whole file, which is there once all of it is; gives the number of bytes. What is
    /// lent is not unpacked.
    #[export]
    #[method(concurrent, deadline = "4h")]
    async fn write(
        &self,
        cx: &Context,
        path: String,
        /// What is written.
        src: Resource,
    ) -> Result<u64, Fault> {
        let path = self.tree.file(&path)?;
        self.making(&path).await?;
        transfer::write(cx, self.operator(), &path, src).await
    }

    /// What is known of a file or directory.
    #[export]
    #[method(concurrent)]
    async fn stat(&self, path: String) -> Result<EntryMetadata, Fault> {
        let path = self.tree.entry(&path)?;
        let known = self.operator().stat(&path).await;
        known.map(|known| EntryMetadata::of(&known)).map_err(|error| fault(&path, &error))
    }

    /// The digest of a file, in hex.
    #[export]
    #[method(concurrent, deadline = "4h")]
    async fn hash(
        &self,
        cx: &Context,
        path: String,
        /// `sha256` unless given, or `md5`.
        #[default(HashAlgorithm::Sha256)]
        algo: HashAlgorithm,
    ) -> Result<String, Fault> {
        transfer::hash(cx, self.operator(), &self.tree.file(&path)?, algo).await
    }

    /// Copies a file.
    #[export]
    #[method(concurrent, deadline = "1h")]
    async fn copy(&self, source: String, target: String) -> Result<(), Fault> {
        let (source, target) = (self.tree.file(&source)?, self.tree.file(&target)?);
        self.making(&target).await?;
        let copied = self.operator().copy(&source, &target).await;
        copied.map(drop).map_err(|error| fault(&source, &error))
    }

    /// Gives a file another name.
    #[export]
    #[method(concurrent, deadline = "1h")]
    async fn rename(&self, source: String, target: String) -> Result<(), Fault> {
        let (source, target) = (self.tree.file(&source)?, self.tree.file(&target)?);
        self.making(&target).await?;
        let renamed = self.operator().rename(&source, &target).await;
        renamed.map_err(|error| fault(&source, &error))?;
        self.created.forget(&source);
        Ok(())
    }

    /// Removes a file, or a directory with all that is in it.
    #[export]
    #[method(concurrent, deadline = "1h")]
    async fn remove_all(&self, path: String) -> Result<(), Fault> {
        let path = self.tree.entry(&path)?;
        self.tree.remove_all(&path).await?;
        self.created.forget_below(&path);
        Ok(())
    }

    /// Makes a directory, and those above it.
    #[export]
    #[method(concurrent)]
    async fn create_dir(&self, path: String) -> Result<(), Fault> {
        let path = self.tree.dir(&path)?;
        self.making(&path).await?;
        self.operator().create_dir(&path).await.map_err(|error| fault(&path, &error))
    }

    /// Removes a file, or an empty directory. There need not be one.
    #[export]
    #[method(concurrent)]
    async fn delete(&self, path: String) -> Result<(), Fault> {
        let path = self.tree.entry(&path)?;
        self.operator().delete(&path).await.map_err(|error| fault(&path, &error))?;
        self.created.forget(&path);
        Ok(())
    }

    /// Whether there is such a file or directory.
    #[export]
    #[method(concurrent)]
    async fn exists(&self, path: String) -> Result<bool, Fault> {
        let path = self.tree.entry(&path)?;
        self.operator().exists(&path).await.map_err(|error| fault(&path, &error))
    }

    /// What a directory holds. Directories end in `/`.
    #[export]
    async fn list(&self, path: String, items: Items<String>) -> Result<(), Fault> {
        self.entries(&path, false, items).await
    }

    /// What a directory and those below it hold. Directories end in `/`.
    #[export]
    async fn scan(&self, path: String, items: Items<String>) -> Result<(), Fault> {
        self.entries(&path, true, items).await
    }

    async fn entries(&self, path: &str, deep: bool, items: Items<String>) -> Result<(), Fault> {
        let dir = self.tree.dir(path)?;
        let lister = self.operator().lister_with(&dir).recursive(deep).await;
        let mut entries = lister.map_err(|error| fault(&dir, &error))?;
        while let Some(entry) = entries.try_next().await.map_err(|error| fault(&dir, &error))? {
            if entry.path() != dir && !operator::is_part(entry.path()) {
                items.send(entry.path().to_owned()).await?;
            }
        }
        Ok(())
    }

    /// A request for what `stat` gives, which the storage itself answers.
    #[export]
    #[method(concurrent)]
    async fn presign_stat(
        &self,
        path: String,
        expire_second: u64,
    ) -> Result<PresignedRequest, Fault> {
        let (path, expire) = (self.tree.file(&path)?, expiry(expire_second)?);
        let signed = self.operator().presign_stat(&path, expire).await;
        signed.map(PresignedRequest::of).map_err(|error| fault(&path, &error))
    }

    /// A request for a file, which the storage itself answers.
    #[export]
    #[method(concurrent)]
    async fn presign_read(
        &self,
        path: String,
        expire_second: u64,
    ) -> Result<PresignedRequest, Fault> {
        let (path, expire) = (self.tree.file(&path)?, expiry(expire_second)?);
        let signed = self.operator().presign_read(&path, expire).await;
        signed.map(PresignedRequest::of).map_err(|error| fault(&path, &error))
    }

    /// A request that writes a file, which the storage itself takes.
    #[export]
    #[method(concurrent)]
    async fn presign_write(
        &self,
        path: String,
        expire_second: u64,
    ) -> Result<PresignedRequest, Fault> {
        let (path, expire) = (self.tree.file(&path)?, expiry(expire_second)?);
        self.making(&path).await?;
        let signed = self.operator().presign_write(&path, expire).await;
        signed.map(PresignedRequest::of).map_err(|error| fault(&path, &error))
    }

    /// What this storage can do.
    #[export]
    #[method(concurrent)]
    async fn capability(&self) -> StorageCapability {
        let can = self.operator().info().capability();
        StorageCapability {
            stat: can.stat,
            read: can.read,
            write: can.write,
            create_dir: can.create_dir,
            delete: can.delete,
            copy: can.copy,
            rename: can.rename,
            list: can.list,
            presign_stat: can.presign_stat,
            presign_read: can.presign_read,
            presign_write: can.presign_write,
        }
    }

    /// What was made by these methods, or registered, and not removed by them.
    #[export]
    #[method(concurrent)]
    async fn get_created_resources(&self) -> Vec<String> {
        self.created.paths()
    }

    /// Says that a file or directory (ending in `/`) is to go with what was made here.
    #[export]
    #[method(concurrent)]
    async fn register_path(&self, path: String) -> Result<(), Fault> {
        let path = self.tree.entry(&path)?;
        self.created.add(&path)
    }

    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.files.close_all().await;
        for path in self.created.take() {
            if self.created.removes {
                self.tree.remove_all(&path).await?;
            }
        }
        Ok(())
    }
}

impl DriverKind for Opendal {
    const KIND: &'static str = "opendal";
    const ALIASES: &'static [&'static str] = &["jumpstarter_driver_opendal.driver.Opendal"];
    const HELP: &'static str = "A storage tree: a directory of the exporter's host, S3, or HTTP.";
    type Config = OpendalConfig;

    async fn open(config: OpendalConfig, _: Site) -> Result<Self, Fault> {
        let tree = operator::Tree::open(&config.scheme, config.kwargs)?;
        let created = Created::new(config.remove_created_on_close);
        Ok(Self { tree, files: Files::default(), created })
    }

    fn interfaces_of_kind() -> Vec<Arc<Interface>> {
        vec![OpendalInterface::describe()]
    }
}

fn expiry(seconds: u64) -> Result<Duration, Fault> {
    let expire = Duration::from_secs(seconds);
    match expire.is_zero() || expire > PRESIGNED_MAX {
        true => {
            let text = format!("{seconds} s is not 1 to {} s (a week)", PRESIGNED_MAX.as_secs());
            Err(Fault::argument(text))
        }
        false => Ok(expire),
    }
}

impl EntryMetadata {
    fn of(known: &Metadata) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            mode: EntryMode { is_file: known.is_file(), is_dir: known.is_dir() },
            content_length: known.content_length(),
            content_type: owned(known.content_type()),
            content_disposition: owned(known.content_disposition()),
            content_md5: owned(known.content_md5()),
            etag: owned(known.etag()),
            last_modified: known.last_modified().map(|at| at.to_string()),
        }
    }
}

impl PresignedRequest {
    fn of(signed: ::opendal::raw::PresignedRequest) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Self {
            url: signed.uri().to_string(),
            method: signed.method().to_string(),
            headers: signed
                .header()
                .iter()
                .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
                .collect(),
        }
    }
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

/// The settings may hold secrets.
impl fmt::Debug for OpendalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.kwargs.keys().collect();
        f.debug_struct("OpendalConfig")
            .field("scheme", &self.scheme)
            .field("kwargs", &names)
            .finish_non_exhaustive()
    }
}
