//! Storing a file at the broker: only what is missing, some blocks at once.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    ExporterName, Manifest, Sha256, codec,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_PART_BYTES_MAX, BLOCKS_INLINE_MAX, FILE_BYTES_MAX, OUTAGE_MAX,
        OVERHEAD_BYTES_MAX,
    },
    subject::{Piece, Stored as StoredAt, StoredTo},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{Mutex, OnceCell, mpsc, watch},
    time::{Instant, timeout},
};

use super::{
    LendError,
    block::{Block, Spare},
    cannot_read, file_name,
    storing::{FirstReader, State, Storing},
};
use crate::{
    Client,
    bus::{BusError, Conn, Incoming, Subject},
    client::Inner,
    digest::sha256,
};

/// Blocks on their way at once: what follows is told of before it comes, so that an exporter can
/// listen …
const BLOCKS_AT_ONCE: usize = 2;
/// … that are read, and asked for, at once …
const BLOCKS_READ: usize = 3;
/// … and that are ready in between.
const BLOCKS_AHEAD: usize = 3;
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
        let name = put.name.unwrap_or_else(|| file_name(&put.file));
        let (file, on_moved) = (blocking(move || Source::open(put.file)).await??, put.on_moved);
        let (bytes, of) = (file.bytes, name.clone());
        let (inner, bulk) = (self.0.clone(), self.0.bulk().await?.clone());
        Ok(Storing::begin(&self.0.tasks, name, bytes, async move |state, first_reader| {
            let stop = inner.stop.clone();
            let store = Store::new(inner, bulk, put.again, first_reader);
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

/// A block that was read.
struct NewBlock {
    digest: Sha256,
    messages: Vec<Bytes>,
    bytes: u64,
    /// The broker does not have it.
    is_needed: bool,
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
    first_reader: FirstReader,
    /// Whether what goes to an exporter is captured where it belongs. A stream made before there
    /// was that has it where nobody looks: that is found out with the first block.
    is_captured: OnceCell<bool>,
}

impl Store {
    fn new(inner: Arc<Inner>, bulk: Conn, again: bool, first_reader: FirstReader) -> Self {
        let part_bytes = BLOCK_PART_BYTES_MAX.min(bulk.max_payload() - OVERHEAD_BYTES_MAX);
        let (sent, blocks, spare) = (AtomicU64::new(0), Mutex::default(), Arc::default());
        let is_captured = OnceCell::new();
        Self { inner, bulk, part_bytes, again, sent, blocks, spare, first_reader, is_captured }
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
        let total = file.bytes;
        let (tx, mut rx) = mpsc::channel(BLOCKS_AHEAD);
        let reading = async move {
            let block = |n: u64| {
                let (file, mut at) = (file.clone(), n * BLOCK_BYTES_MAX);
                self.block((total - at).min(BLOCK_BYTES_MAX), move |part: &mut [u8]| {
                    file.read(part, at)?;
                    at += part.len() as u64;
                    Ok(())
                })
            };
            let blocks = stream::iter(0..total.div_ceil(BLOCK_BYTES_MAX)).map(block);
            let mut blocks = pin!(blocks.buffered(BLOCKS_READ));
            while let Some(block) = blocks.try_next().await? {
                state.send_modify(|state| state.read(block.digest));
                let _ = tx.send(block).await; // whoever stores them ends after us
            }
            Ok(())
        };
        let moved = AtomicU64::new(0);
        let store = async |(n, block): (usize, NewBlock)| {
            let bytes = block.bytes;
            self.store_block(block).await?;
            state.send_modify(|state| state.stored(n as u64));
            let bytes = moved.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if let Some(on_moved) = &on_moved {
                on_moved(Moved { bytes, total, sent: self.sent() });
            }
            Ok::<_, LendError>(())
        };
        let read = stream::poll_fn(move |cx| rx.poll_recv(cx)).enumerate();
        let storing = read.map(store).buffer_unordered(BLOCKS_AT_ONCE).try_collect::<()>();
        tokio::try_join!(reading, storing)?;
        let list = state.borrow().list().into();
        let manifest = self.manifest(name.clone(), total, list).await?;
        Ok(Stored { manifest, name, bytes: total, sent: self.sent() })
    }

    /// A block, of which `read` gives the next bytes.
    async fn block(
        &self,
        bytes: u64,
        read: impl FnMut(&mut [u8]) -> Result<(), LendError> + Send + 'static,
    ) -> Result<NewBlock, LendError> {
        let (part_bytes, spare) = (self.part_bytes, self.spare.clone());
        let reading = blocking(move || Block::read(bytes, part_bytes, &spare, read));
        let Block { digest, messages } = reading.await??;
        let is_needed = digest != Sha256::ZEROS && !self.is_there(Piece::Part(digest, 0)).await?;
        Ok(NewBlock { digest, messages, bytes, is_needed })
    }

    async fn store_block(&self, block: NewBlock) -> Result<(), LendError> {
        let NewBlock { digest, messages, is_needed, .. } = block;
        if is_needed {
            let once = self.blocks.lock().await.entry(digest).or_default().clone();
            once.get_or_try_init(|| self.store_parts(digest, &messages)).await?;
        }
        self.spare.sent(messages);
        Ok(())
    }

    /// Stores the parts of a block, to whom it goes at the same time if to anybody.
    async fn store_parts(&self, digest: Sha256, messages: &[Bytes]) -> Result<(), LendError> {
        let Some(exporter) = self.first_reader.get() else {
            return self.store_parts_to(None, digest, messages).await.map(drop);
        };
        let mut is_stored = false;
        let is_captured = self
            .is_captured
            .get_or_try_init(|| async {
                let first = self.store_parts_to(Some(exporter), digest, messages).await?;
                is_stored = self.last(Piece::Part(digest, 0)).await? == Some(first);
                Ok::<_, LendError>(is_stored)
            })
            .await?;
        if !is_stored {
            let exporter = is_captured.then_some(exporter);
            self.store_parts_to(exporter, digest, messages).await?;
        }
        Ok(())
    }

    /// Gives the number that JetStream gave the first part.
    async fn store_parts_to(
        &self,
        exporter: Option<&ExporterName>,
        digest: Sha256,
        messages: &[Bytes],
    ) -> Result<u64, LendError> {
        let subject = |part| match exporter.cloned() {
            None => self.subject(Piece::Part(digest, part)),
            Some(exporter) => {
                let client = self.inner.name.clone();
                StoredTo { client, exporter, block: digest, part }.under(&self.inner.root)
            }
        };
        let (first, rest) = messages.split_first().expect("a block is not empty");
        let rest = (1..).zip(rest.iter().cloned());
        let rest = rest.map(|(n, part)| self.store(subject(n), part));
        stream::iter(rest).buffer_unordered(PARTS_AT_ONCE).try_collect::<Vec<_>>().await?;
        // The first one last: where it is, the others were.
        self.store(subject(0), first.clone()).await
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
                let block = self.block(len, read).await?;
                let list = block.digest;
                self.store_block(block).await?;
                (Bytes::new(), Some(list))
            }
        };
        let block_bytes = BLOCK_BYTES_MAX;
        let manifest = Manifest { name, bytes, sha256: None, block_bytes, blocks, list };
        manifest.check().map_err(LendError::Unfit)?;
        let message = codec::encode(&manifest);
        let digest = sha256(&message);
        if !self.is_there(Piece::Manifest(digest)).await? {
            self.store(self.subject(Piece::Manifest(digest)), message).await?;
        }
        Ok(digest)
    }

    /// Whether the broker has the piece; never if it is to be stored again. Fails if there is
    /// nothing to store it in.
    async fn is_there(&self, piece: Piece) -> Result<bool, LendError> {
        // If it cannot be asked like this here: what is stored twice is stored once.
        Ok(self.last(piece).await?.is_some_and(|last| last > 0) && !self.again)
    }

    /// The number of the piece in the stream, zero if it is not there; asked without the right to
    /// read it.
    async fn last(&self, piece: Piece) -> Result<Option<u64>, LendError> {
        let headers = [("Nats-Expected-Last-Subject-Sequence", NEVER)];
        let said = self.ask(self.subject(piece), &headers, Bytes::new()).await?;
        Ok(match said.error {
            Some(PubError { err_code: WRONG_LAST_SEQUENCE, description }) => {
                description.rsplit(' ').next().and_then(|last| last.parse().ok())
            }
            _ => None,
        })
    }

    /// Gives the number that JetStream gave it.
    async fn store(&self, subject: String, message: Bytes) -> Result<u64, LendError> {
        let len = message.len() as u64;
        let said = self.ask(subject, &[], message).await?;
        match (said.seq, said.error) {
            (Some(number), None) => {
                self.sent.fetch_add(len, Ordering::Relaxed);
                Ok(number)
            }
            (_, Some(error)) => Err(LendError::NotStored(error.description)),
            (None, None) => Err(LendError::NotStored("it does not say why".to_owned())),
        }
    }

    /// Publishes until JetStream answers, over an outage of the broker too.
    async fn ask(
        &self,
        subject: String,
        headers: &[(&'static str, &str)],
        message: Bytes,
    ) -> Result<PubAck, LendError> {
        let began = Instant::now();
        // That nobody answers is told only on the connection that hears the answers.
        let mut conn = if message.is_empty() { self.inner.control() } else { &self.bulk };
        while began.elapsed() < OUTAGE_MAX {
            let subject = Subject::from(&*subject);
            let mut answers = self.inner.jetstream_box(1, &subject);
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
