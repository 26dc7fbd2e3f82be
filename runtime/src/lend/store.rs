//! Storing a file at the broker: only what is missing, some blocks at once.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    Manifest, Sha256, codec,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_PART_BYTES_MAX, BLOCKS_INLINE_MAX, FILE_BYTES_MAX, OUTAGE_MAX,
        OVERHEAD_BYTES_MAX,
    },
    subject::{Piece, Stored as StoredAt},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{Mutex, OnceCell, watch},
    time::{Instant, timeout},
};

use super::{
    LendError,
    block::{Block, Spare},
    cannot_read, file_name,
    storing::{State, Storing},
};
use crate::{
    Client,
    bus::{BusError, Conn, Incoming, Subject},
    client::Inner,
    digest::sha256,
};

/// Blocks on their way at once: 16 MiB, a quarter of the broker's `max_pending`.
const BLOCKS_AT_ONCE: usize = 4;
/// Parts of one block on their way at once: all that it has where the broker takes the largest.
const PARTS_AT_ONCE: usize = 8;
/// An acknowledgement that does not come in this time is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// No message of a stream has this number: a publish that expects it is always refused, and the
/// refusal says whether there is one.
const NEVER: &str = "18446744073709551615";
/// JetStream's code of that refusal.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// A file to be stored.
#[derive(Clone)]
pub struct Put {
    /// The file.
    pub file: PathBuf,
    /// The name that it is lent under: its own unless given.
    pub name: Option<String>,
    /// Store every block, also what the broker says that it has.
    pub again: bool,
    /// Told after each block.
    pub on_moved: Option<OnMoved>,
}

/// Is told how far a file is.
pub type OnMoved = Arc<dyn Fn(Moved) + Send + Sync>;

/// How far a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of the file that are stored.
    pub bytes: u64,
    /// Bytes of the file.
    pub total: u64,
    /// Bytes that went to the broker for it.
    pub sent: u64,
}

/// A file that is stored. Lend it to any number of calls, as long as the broker keeps it: it may be
/// removed, or age out ([`CallError::lacks_file`](crate::CallError::lacks_file)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The SHA-256 of its manifest, which it is stored under. It stands for the whole: the manifest
    /// has the SHA-256 of every block.
    pub manifest: Sha256,
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes that went to the broker for it: none for what was there, or is zeros.
    pub sent: u64,
}

impl Put {
    /// A file, stored as far as it is missing.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), name: None, again: false, on_moved: None }
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Client {
    /// Stores a file at the broker, to be lent. What was stored before, as a whole or by an attempt
    /// that was interrupted, is not sent again.
    ///
    /// # Errors
    ///
    /// [`LendError`]; what was stored until then is found by the next attempt.
    pub async fn put(&self, put: Put) -> Result<Stored, LendError> {
        self.store(put).await?.stored().await
    }

    /// Begins to store a file, which may be lent at once: a driver takes what is there while the
    /// rest is on its way. If that never comes, the driver has begun for nothing.
    ///
    /// # Errors
    ///
    /// [`LendError`] if the file cannot be opened, or the broker not be reached.
    pub async fn store(&self, put: Put) -> Result<Storing, LendError> {
        let store = Store::open(self.0.clone(), put.again).await?;
        let name = put.name.unwrap_or_else(|| file_name(&put.file));
        let (file, on_moved) = (blocking(move || Source::open(put.file)).await??, put.on_moved);
        let (bytes, of) = (file.bytes, name.clone());
        Ok(Storing::begin(&self.0.tasks, name, bytes, async move |state| {
            let stop = store.inner.stop.clone();
            let storing = store.file(of, file, on_moved, &state);
            if let Some(ended) = stop.run_until_cancelled(storing).await {
                state.send_modify(|state| state.end(ended));
            }
        }))
    }
}

/// A file, as it is read to be stored.
#[derive(Clone)]
struct Source {
    path: Arc<Path>,
    file: Arc<File>,
    bytes: u64,
}

impl Source {
    fn open(path: PathBuf) -> Result<Self, LendError> {
        let read = |error: io::Error| cannot_read(&path, &error);
        let file = File::open(&path).map_err(read)?;
        let about = file.metadata().map_err(read)?;
        if !about.is_file() {
            let why = "it is no plain file: lend what it gives as a reader".to_owned();
            return Err(LendError::Read { file: path, why });
        }
        match about.len() {
            bytes if bytes > FILE_BYTES_MAX => {
                let why = format!("{bytes} bytes are more than {FILE_BYTES_MAX}");
                Err(LendError::Read { file: path, why })
            }
            bytes => Ok(Self { path: path.into(), file: file.into(), bytes }),
        }
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<(), LendError> {
        self.file.read_exact_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let why = format!("it had {} bytes and has fewer", self.bytes);
                LendError::Changed { file: self.path.to_path_buf(), why }
            }
            _ => cannot_read(&self.path, &error),
        })
    }
}

/// Stores the pieces of one file.
struct Store {
    inner: Arc<Inner>,
    bulk: Conn,
    part_bytes: usize,
    again: bool,
    sent: AtomicU64,
    /// Blocks of this file, so that one that is there twice is stored once.
    blocks: Mutex<HashMap<Sha256, Arc<OnceCell<()>>>>,
    spare: Arc<Spare>,
}

impl Store {
    async fn open(inner: Arc<Inner>, again: bool) -> Result<Self, LendError> {
        let bulk = inner.bulk().await?.clone();
        let part_bytes = BLOCK_PART_BYTES_MAX.min(bulk.max_payload() - OVERHEAD_BYTES_MAX);
        let (sent, blocks, spare) = (AtomicU64::new(0), Mutex::default(), Arc::default());
        Ok(Self { inner, bulk, part_bytes, again, sent, blocks, spare })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn subject(&self, piece: Piece) -> String {
        StoredAt { client: self.inner.name.clone(), piece }.under(&self.inner.root)
    }

    /// Stores the blocks of a file, then its manifest.
    async fn file(
        &self,
        name: String,
        file: Source,
        on_moved: Option<OnMoved>,
        state: &watch::Sender<State>,
    ) -> Result<Stored, LendError> {
        let (total, stored) = (file.bytes, AtomicU64::new(0));
        let blocks = (0..total.div_ceil(BLOCK_BYTES_MAX)).map(|n| {
            let (file, stored, on_moved) = (file.clone(), &stored, &on_moved);
            async move {
                let mut at = n * BLOCK_BYTES_MAX;
                let len = (total - at).min(BLOCK_BYTES_MAX);
                let read = move |part: &mut [u8]| {
                    file.read(part, at)?;
                    at += part.len() as u64;
                    Ok(())
                };
                let digest = self.block(len, read).await?;
                state.send_modify(|state| state.add(n, digest));
                let bytes = stored.fetch_add(len, Ordering::Relaxed) + len;
                if let Some(on_moved) = on_moved {
                    on_moved(Moved { bytes, total, sent: self.sent() });
                }
                Ok::<_, LendError>(())
            }
        });
        stream::iter(blocks).buffer_unordered(BLOCKS_AT_ONCE).try_collect::<()>().await?;
        let list = state.borrow().list().into();
        let manifest = self.manifest(name.clone(), total, list).await?;
        Ok(Stored { manifest, name, bytes: total, sent: self.sent() })
    }

    /// Stores a block, of which `read` gives the next bytes, unless it is there or zeros.
    async fn block(
        &self,
        bytes: u64,
        read: impl FnMut(&mut [u8]) -> Result<(), LendError> + Send + 'static,
    ) -> Result<Sha256, LendError> {
        let (part_bytes, spare) = (self.part_bytes, self.spare.clone());
        let reading = blocking(move || Block::read(bytes, part_bytes, &spare, read));
        let Block { digest, messages } = reading.await??;
        if digest != Sha256::ZEROS {
            let once = self.blocks.lock().await.entry(digest).or_default().clone();
            once.get_or_try_init(|| self.store_block(digest, &messages)).await?;
        }
        self.spare.sent(messages);
        Ok(digest)
    }

    async fn store_block(&self, digest: Sha256, messages: &[Bytes]) -> Result<(), LendError> {
        if self.is_there(Piece::Part(digest, 0)).await? {
            return Ok(());
        }
        let Some((first, rest)) = messages.split_first() else { return Ok(()) };
        let rest = (1..).zip(rest.iter().cloned());
        let rest = rest.map(|(n, part)| self.store(Piece::Part(digest, n), part));
        stream::iter(rest).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
        // The first one last: where it is, the others were.
        self.store(Piece::Part(digest, 0), first.clone()).await
    }

    async fn manifest(&self, name: String, bytes: u64, list: Bytes) -> Result<Sha256, LendError> {
        let inline = list.len() as u64 <= 32 * BLOCKS_INLINE_MAX;
        let (blocks, list) = match inline {
            true => (list, None),
            false => {
                let (len, mut rest) = (list.len() as u64, list);
                let read = move |part: &mut [u8]| {
                    part.copy_from_slice(&rest.split_to(part.len()));
                    Ok(())
                };
                (Bytes::new(), Some(self.block(len, read).await?))
            }
        };
        let block_bytes = BLOCK_BYTES_MAX;
        let manifest = Manifest { name, bytes, sha256: None, block_bytes, blocks, list };
        manifest.check().map_err(LendError::Unfit)?;
        let message = codec::encode(&manifest);
        let digest = sha256(&message);
        if !self.is_there(Piece::Manifest(digest)).await? {
            self.store(Piece::Manifest(digest), message).await?;
        }
        Ok(digest)
    }

    /// Whether the broker has the piece, asked without the right to read it; never if it is to be
    /// stored again. Fails if there is nothing to store it in.
    async fn is_there(&self, piece: Piece) -> Result<bool, LendError> {
        let headers = [("Nats-Expected-Last-Subject-Sequence", NEVER)];
        let said = self.ask(piece, &headers, Bytes::new()).await?;
        match said.error {
            Some(PubError { err_code: WRONG_LAST_SEQUENCE, description }) if !self.again => {
                let last = description.rsplit(' ').next().and_then(|last| last.parse::<u64>().ok());
                Ok(last.is_some_and(|last| last > 0))
            }
            // It cannot be asked like this here; what is stored twice is stored once.
            _ => Ok(false),
        }
    }

    async fn store(&self, piece: Piece, message: Bytes) -> Result<(), LendError> {
        let len = message.len() as u64;
        let said = self.ask(piece, &[], message).await?;
        match (said.seq, said.error) {
            (Some(_), None) => {
                self.sent.fetch_add(len, Ordering::Relaxed);
                Ok(())
            }
            (_, Some(error)) => Err(LendError::NotStored(error.description)),
            (None, None) => Err(LendError::NotStored("it does not say why".to_owned())),
        }
    }

    /// Publishes until JetStream answers, over an outage of the broker too.
    async fn ask(
        &self,
        piece: Piece,
        headers: &[(&'static str, &str)],
        message: Bytes,
    ) -> Result<PubAck, LendError> {
        let began = Instant::now();
        // That nobody answers is told only on the connection that hears the answers.
        let mut conn = if message.is_empty() { self.inner.control() } else { &self.bulk };
        while began.elapsed() < OUTAGE_MAX {
            let subject = self.subject(piece);
            let mut answers = self.inner.jetstream_box(1, &Subject::from(subject.clone()));
            let reply = answers.subject.clone();
            let sent = async {
                match headers {
                    [] => conn.request(subject, reply, message.clone()).await?,
                    _ => {
                        let (reply, message) = (Some(reply.to_string()), message.clone());
                        conn.publish_with(subject, reply, headers, message).await?;
                    }
                }
                Ok::<_, BusError>(timeout(PATIENCE, answers.next()).await)
            };
            match timeout(OUTAGE_MAX, sent).await {
                Ok(answer) => match answer? {
                    Ok(answer) => return PubAck::read(&answer?),
                    Err(_elapsed) => conn = self.inner.control(),
                },
                Err(_elapsed) => break,
            }
        }
        Err(BusError::Away(OUTAGE_MAX).into())
    }
}

/// What JetStream says of a publish.
#[derive(serde::Deserialize)]
struct PubAck {
    seq: Option<u64>,
    error: Option<PubError>,
}

#[derive(serde::Deserialize)]
struct PubError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl PubAck {
    fn read(answer: &Incoming) -> Result<Self, LendError> {
        if answer.is_no_responders() {
            let why = "it has no stream for files: `jmp-bus doctor --make-streams`";
            return Err(LendError::NotStored(why.to_owned()));
        }
        serde_json::from_slice(answer.payload())
            .map_err(|error| LendError::NotStored(format!("its answer cannot be read: {error}")))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LendError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| LendError::Bus("the program is going down".to_owned()))
}
