//! Storing a file at the broker: only what is missing, some blocks at once.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus_schema::{
    BlockPart, Coding, Manifest, Sha256, codec,
    limits::{
        BLOCK_BYTES_MAX, BLOCK_PART_BYTES_MAX, BLOCKS_INLINE_MAX, FILE_BYTES_MAX, OUTAGE_MAX,
        OVERHEAD_BYTES_MAX,
    },
    subject::{Piece, Stored as StoredAt},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::{Mutex, OnceCell, mpsc},
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{LendError, cannot_read, file_name};
use crate::{
    Client,
    bus::{BusError, Conn, Incoming, Subject},
    client::Inner,
    digest::{Hasher, is_zeros, sha256},
};

/// Blocks on their way at once: 16 MiB, a quarter of the broker's `max_pending`.
const BLOCKS_AT_ONCE: usize = 4;
/// An acknowledgement that does not come in this time is asked for again.
const PATIENCE: Duration = Duration::from_secs(5);
/// No message of a stream has this number: a publish that expects it is always refused, and the
/// refusal says whether there is one.
const NEVER: &str = "18446744073709551615";
/// JetStream's code of that refusal.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The start of a block that shows whether it is worth packing …
const SAMPLE_BYTES: usize = 64 << 10;
/// … which it is if the sample shrinks below this part of it.
const WORTH: (usize, usize) = (15, 16);

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
    /// The SHA-256 of its manifest, which it is stored under.
    pub manifest: Sha256,
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Sha256,
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
        let store = Store::open(self.0.clone(), put.again).await?;
        let name = put.name.clone().unwrap_or_else(|| file_name(&put.file));
        let (mut cuts, cutting) = cut(&self.0, put.file.clone()).await?;
        let total = cutting.bytes;
        let digests = Mutex::new(HashMap::new());
        let stored = AtomicU64::new(0);
        let blocks = stream::poll_fn(|cx| cuts.poll_recv(cx)).map(|block| async {
            let Block { at, bytes } = block?;
            let len = bytes.len() as u64;
            let digest = store.block(bytes).await?;
            digests.lock().await.insert(at, digest);
            let bytes = stored.fetch_add(len, Ordering::Relaxed) + len;
            if let Some(on_moved) = &put.on_moved {
                on_moved(Moved { bytes, total, sent: store.sent() });
            }
            Ok::<(), LendError>(())
        });
        blocks.buffer_unordered(BLOCKS_AT_ONCE).try_collect::<()>().await?;
        let sha256 = cutting.digest().await?;
        let list = in_order(digests.into_inner());
        let manifest = store.manifest(name.clone(), total, sha256, list).await?;
        Ok(Stored { manifest, name, bytes: total, sha256, sent: store.sent() })
    }
}

fn in_order(digests: HashMap<u64, Sha256>) -> Bytes {
    let mut digests: Vec<_> = digests.into_iter().collect();
    digests.sort_unstable_by_key(|(at, _)| *at);
    digests.iter().flat_map(|(_, digest)| digest.0).collect()
}

/// A block of a file.
struct Block {
    at: u64,
    bytes: Bytes,
}

/// A file that is being cut into blocks.
struct Cutting {
    bytes: u64,
    whole: AbortOnDropHandle<Option<Sha256>>,
}

impl Cutting {
    /// The digest of the whole, when all blocks were taken.
    async fn digest(self) -> Result<Sha256, LendError> {
        let digest = self.whole.await.ok().flatten();
        digest.ok_or_else(|| LendError::Bus("the program is going down".to_owned()))
    }
}

/// Reads a file on a thread of its own, some blocks ahead.
async fn cut(
    inner: &Inner,
    file: PathBuf,
) -> Result<(mpsc::Receiver<Result<Block, LendError>>, Cutting), LendError> {
    let opened = inner.tasks.spawn_blocking(move || open(&file).map(|opened| (file, opened)));
    let going_down = |_| LendError::Bus("the program is going down".to_owned());
    let (file, (handle, bytes)) = opened.await.map_err(going_down)??;
    let (tx, rx) = mpsc::channel(1);
    let whole = inner.tasks.spawn_blocking(move || match read(&file, handle, bytes, &tx) {
        Ok(digest) => digest,
        Err(error) => {
            let _ = tx.blocking_send(Err(error)); // nobody takes blocks any more
            None
        }
    });
    Ok((rx, Cutting { bytes, whole: AbortOnDropHandle::new(whole) }))
}

fn open(file: &Path) -> Result<(File, u64), LendError> {
    let read = |error: io::Error| cannot_read(file, &error);
    let handle = File::open(file).map_err(read)?;
    let about = handle.metadata().map_err(read)?;
    if !about.is_file() {
        let why = "it is no plain file: lend what it gives as a reader".to_owned();
        return Err(LendError::Read { file: file.to_owned(), why });
    }
    match about.len() {
        bytes if bytes > FILE_BYTES_MAX => {
            let why = format!("{bytes} bytes are more than {FILE_BYTES_MAX}");
            Err(LendError::Read { file: file.to_owned(), why })
        }
        bytes => Ok((handle, bytes)),
    }
}

/// Gives the digest of the whole, or none if nobody wants it any more.
fn read(
    path: &Path,
    mut file: File,
    bytes: u64,
    tx: &mpsc::Sender<Result<Block, LendError>>,
) -> Result<Option<Sha256>, LendError> {
    let mut hasher = Hasher::new();
    for at in 0..bytes.div_ceil(BLOCK_BYTES_MAX) {
        let len = (bytes - at * BLOCK_BYTES_MAX).min(BLOCK_BYTES_MAX);
        let mut block = Vec::with_capacity(usize::try_from(len).expect("a block is small"));
        let read = file.by_ref().take(len).read_to_end(&mut block);
        read.map_err(|error| cannot_read(path, &error))?;
        if block.len() as u64 != len {
            let why = format!("it had {bytes} bytes and has fewer");
            return Err(LendError::Changed { file: path.to_owned(), why });
        }
        hasher.update(&block);
        if tx.blocking_send(Ok(Block { at, bytes: block.into() })).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(hasher.finish()))
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
}

impl Store {
    async fn open(inner: Arc<Inner>, again: bool) -> Result<Self, LendError> {
        let bulk = inner.bulk().await?.clone();
        let part_bytes = BLOCK_PART_BYTES_MAX.min(bulk.max_payload() - OVERHEAD_BYTES_MAX);
        let (sent, blocks) = (AtomicU64::new(0), Mutex::default());
        Ok(Self { inner, bulk, part_bytes, again, sent, blocks })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn subject(&self, piece: Piece) -> String {
        StoredAt { client: self.inner.name.clone(), piece }.under(&self.inner.root)
    }

    /// Stores a block unless it is there or zeros.
    async fn block(&self, bytes: Bytes) -> Result<Sha256, LendError> {
        let hashed = bytes.clone();
        let digest = blocking(move || match is_zeros(&hashed) {
            true => Sha256::ZEROS,
            false => sha256(&hashed),
        });
        let digest = digest.await?;
        if digest != Sha256::ZEROS {
            let once = self.blocks.lock().await.entry(digest).or_default().clone();
            once.get_or_try_init(|| self.store_block(digest, bytes)).await?;
        }
        Ok(digest)
    }

    async fn store_block(&self, digest: Sha256, bytes: Bytes) -> Result<(), LendError> {
        if self.is_there(Piece::Part(digest, 0)).await? {
            return Ok(());
        }
        let part_bytes = self.part_bytes;
        let mut parts = blocking(move || parts(bytes, part_bytes)).await?;
        // The first one last: where it is, the others were.
        let first = parts.remove(0);
        let rest = parts.into_iter().enumerate().map(|(at, message)| {
            let n = u32::try_from(at + 1).expect("a block has few parts");
            self.store(Piece::Part(digest, n), message)
        });
        stream::iter(rest).buffer_unordered(BLOCKS_AT_ONCE * 2).try_collect::<()>().await?;
        self.store(Piece::Part(digest, 0), first).await
    }

    async fn manifest(
        &self,
        name: String,
        bytes: u64,
        sha256_of_all: Sha256,
        list: Bytes,
    ) -> Result<Sha256, LendError> {
        let inline = list.len() as u64 <= 32 * BLOCKS_INLINE_MAX;
        let (blocks, list) = match inline {
            true => (list, None),
            false => (Bytes::new(), Some(self.block(list).await?)),
        };
        let block_bytes = BLOCK_BYTES_MAX;
        let manifest = Manifest { name, bytes, sha256: sha256_of_all, block_bytes, blocks, list };
        manifest.check().map_err(LendError::Unfit)?;
        let message = codec::encode(&manifest);
        let digest = sha256(&message);
        if !self.is_there(Piece::Manifest(digest)).await? {
            self.store(Piece::Manifest(digest), message).await?;
        }
        Ok(digest)
    }

    /// Whether the broker has the piece, asked without the right to read it.
    async fn is_there(&self, piece: Piece) -> Result<bool, LendError> {
        if self.again {
            return Ok(false);
        }
        let headers = [("Nats-Expected-Last-Subject-Sequence", NEVER)];
        let said = self.ask(piece, &headers, Bytes::new()).await?;
        match said.error {
            Some(PubError { err_code: WRONG_LAST_SEQUENCE, description }) => {
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
        while began.elapsed() < OUTAGE_MAX {
            let subject = self.subject(piece);
            let mut answers = self.inner.jetstream_box(1, &Subject::from(subject.clone()));
            let reply = answers.subject.clone();
            let sent = async {
                match headers {
                    [] => self.bulk.request(subject, reply, message.clone()).await?,
                    _ => {
                        let message = message.clone();
                        self.bulk
                            .publish_with(subject, Some(reply.to_string()), headers, message)
                            .await?;
                    }
                }
                Ok::<_, BusError>(timeout(PATIENCE, answers.next()).await)
            };
            match timeout(OUTAGE_MAX, sent).await {
                Ok(answer) => match answer? {
                    Ok(answer) => return PubAck::read(&answer?),
                    Err(_elapsed) => {}
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

/// The messages of a block, packed if that is worth it.
fn parts(block: Bytes, part_bytes: usize) -> Vec<Bytes> {
    let bytes = block.len() as u64;
    let (coding, coded) = match packed(&block) {
        Some(packed) => (Coding::Lz4, packed),
        None => (Coding::Plain, block),
    };
    let count = coded.len().div_ceil(part_bytes).max(1);
    let parts = u32::try_from(count).expect("a block has few parts");
    let part = |at: usize| {
        let data = coded.slice(at * part_bytes..coded.len().min((at + 1) * part_bytes));
        BlockPart { parts, bytes, coding, data }.encode()
    };
    (0..count).map(part).collect()
}

fn packed(block: &Bytes) -> Option<Bytes> {
    let (of, to) = WORTH;
    let worth = |packed: usize, plain: usize| packed * to < plain * of;
    let sample = &block[..block.len().min(SAMPLE_BYTES)];
    if !worth(lz4_flex::block::compress(sample).len(), sample.len()) {
        return None;
    }
    let packed = lz4_flex::block::compress(block);
    worth(packed.len(), block.len()).then(|| packed.into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LendError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| LendError::Bus("the program is going down".to_owned()))
}
