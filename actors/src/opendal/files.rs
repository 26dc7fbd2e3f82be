//! Files that are open in a tree.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ::opendal::{Operator, Writer};
use bus_schema::{Fault, FaultKind};
use runtime::{Context, Resource, ResourceWriter};
use uuid::Uuid;

use super::{OpenMode, fault, transfer};

/// Files that may be open at once.
const OPEN_MAX: usize = 256;
/// A file that nobody used for so long makes room for another: its client is gone.
const UNUSED_AFTER: Duration = Duration::from_secs(600);

/// The files that are open, by the names that were given out for them.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<HashMap<Uuid, Arc<OpenFile>>>);

struct OpenFile {
    path: String,
    mode: OpenMode,
    used: Mutex<Instant>,
    /// One operation at a time. Nothing is in it once it is closed.
    end: tokio::sync::Mutex<Option<End>>,
}

enum End {
    Read { operator: Operator, at: u64, bytes: u64 },
    Write { writer: Writer, at: u64 },
}

impl Files {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<OpenFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file, and gives its name.
    pub(super) async fn open(
        &self,
        operator: &Operator,
        path: String,
        mode: OpenMode,
    ) -> Result<String, Fault> {
        let end = match mode {
            OpenMode::Read => {
                let known = operator.stat(&path).await.map_err(|error| fault(&path, &error))?;
                if !known.is_file() {
                    return Err(Fault::argument(format!("{path} is no file")));
                }
                End::Read { operator: operator.clone(), at: 0, bytes: known.content_length() }
            }
            OpenMode::Write => {
                End::Write { writer: transfer::writer(operator, &path).await?, at: 0 }
            }
        };
        let used = Mutex::new(Instant::now());
        let file = OpenFile { path, mode, used, end: tokio::sync::Mutex::new(Some(end)) };
        let file = Arc::new(file);
        let fd = Uuid::new_v4();
        loop {
            let unused = {
                let mut open = self.lock();
                if open.len() < OPEN_MAX {
                    open.insert(fd, file);
                    return Ok(fd.to_string());
                }
                let oldest = open.iter().min_by_key(|(_, file)| file.used_at());
                let unused = oldest.filter(|(_, file)| file.used_at().elapsed() > UNUSED_AFTER);
                unused.map(|(fd, _)| *fd).and_then(|fd| open.remove(&fd))
            };
            match unused {
                Some(unused) => unused.give_up().await,
                None => {
                    file.give_up().await;
                    let text = format!("{OPEN_MAX} files are open: close one");
                    return Err(Fault::new(FaultKind::Busy, text));
                }
            }
        }
    }

    fn find(&self, fd: &str) -> Result<Arc<OpenFile>, Fault> {
        let found = fd.parse().ok().and_then(|fd: Uuid| self.lock().get(&fd).cloned());
        let file = found.ok_or_else(|| not_open(fd))?;
        *file.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Ok(file)
    }

    fn remove(&self, fd: &str) -> Option<Arc<OpenFile>> {
        let fd: Uuid = fd.parse().ok()?;
        self.lock().remove(&fd)
    }

    pub(super) fn is_open(&self, fd: &str) -> bool {
        self.find(fd).is_ok()
    }

    pub(super) fn mode(&self, fd: &str) -> Result<OpenMode, Fault> {
        self.find(fd).map(|file| file.mode)
    }

    pub(super) async fn read(
        &self,
        cx: &Context,
        fd: &str,
        to: ResourceWriter,
    ) -> Result<u64, Fault> {
        let file = self.find(fd)?;
        match &mut *file.end.lock().await {
            Some(End::Read { operator, at, bytes }) => {
                let read = transfer::read(cx, operator, &file.path, *at..*bytes, to).await?;
                *at += read;
                Ok(read)
            }
            Some(End::Write { .. }) => Err(Fault::argument("it is open to write: open it as rb")),
            None => Err(not_open(fd)),
        }
    }

    /// A file that could not be written to its end is given up: it is not known what is in it.
    pub(super) async fn write(
        &self,
        cx: &Context,
        fd: &str,
        source: Resource,
    ) -> Result<u64, Fault> {
        let file = self.find(fd)?;
        let written = match &mut *file.end.lock().await {
            Some(End::Write { writer, at }) => {
                let written = transfer::fill(cx, writer, &file.path, source).await;
                written.inspect(|bytes| *at += bytes)
            }
            Some(End::Read { .. }) => {
                return Err(Fault::argument("it is open to read: open it as wb"));
            }
            None => return Err(not_open(fd)),
        };
        if let Err(why) = written {
            self.remove(fd);
            file.give_up().await;
            let text = format!("{why}; {} was not written: open it again", file.path);
            return Err(Fault::new(why.kind, text));
        }
        written
    }

    pub(super) async fn seek(&self, fd: &str, pos: i64, whence: u16) -> Result<u64, Fault> {
        let file = self.find(fd)?;
        match &mut *file.end.lock().await {
            Some(End::Read { at, bytes, .. }) => {
                let from = match whence {
                    0 => 0,
                    1 => *at,
                    2 => *bytes,
                    _ => return Err(Fault::argument("whence is 0, 1 or 2")),
                };
                let to = from.checked_add_signed(pos).filter(|to| to <= bytes);
                *at = to.ok_or_else(|| Fault::argument(format!("the file has {bytes} bytes")))?;
                Ok(*at)
            }
            Some(End::Write { .. }) => Err(Fault::unsupported("it is written from start to end")),
            None => Err(not_open(fd)),
        }
    }

    pub(super) async fn tell(&self, fd: &str) -> Result<u64, Fault> {
        match &*self.find(fd)?.end.lock().await {
            Some(End::Read { at, .. } | End::Write { at, .. }) => Ok(*at),
            None => Err(not_open(fd)),
        }
    }

    pub(super) async fn close(&self, fd: &str) -> Result<(), Fault> {
        let file = self.remove(fd).ok_or_else(|| not_open(fd))?;
        let end = file.end.lock().await.take();
        if let Some(End::Write { mut writer, .. }) = end
            && let Err(error) = writer.close().await
        {
            let _ = writer.abort().await; // the first error says more
            return Err(fault(&file.path, &error));
        }
        Ok(())
    }

    /// Gives up all of them: what was not closed was not written.
    pub(super) async fn close_all(&self) {
        let open = std::mem::take(&mut *self.lock());
        for file in open.into_values() {
            file.give_up().await;
        }
    }
}

impl OpenFile {
    fn used_at(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn give_up(&self) {
        if let Some(End::Write { mut writer, .. }) = self.end.lock().await.take() {
            let _ = writer.abort().await; // then there was nothing yet
        }
    }
}

fn not_open(fd: &str) -> Fault {
    let fd: String = fd.chars().take(40).collect();
    Fault::argument(format!("no file {fd:?} is open: open() gives such names"))
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("path", &self.path).field("mode", &self.mode).finish()
    }
}
