//! Expect: waits for what a console says, and types.

use std::{io, time::Duration};

use runtime::{ByteStream, CallError, blocking};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout_at},
};

use super::{ClientAdapter, StreamMethod};

mod pattern;
pub(crate) mod script;
mod seen;

use pattern::Found;
pub use pattern::{BadPattern, Pattern};
pub use seen::Seen;

/// How long a pattern may take to come, unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are searched: what is older cannot be matched any more.
const SEARCHED_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// Opens an [`Expect`] on a stream, such as that of a console.
#[derive(Clone, Debug)]
pub struct ExpectAdapter {
    /// How long a pattern may take to come.
    pub timeout: Duration,
}

impl Default for ExpectAdapter {
    fn default() -> Self {
        Self { timeout: TIMEOUT }
    }
}

impl ClientAdapter for ExpectAdapter {
    type Adapted = Expect<ByteStream>;
    type Error = CallError;

    async fn adapt(self, method: StreamMethod) -> Result<Expect<ByteStream>, CallError> {
        let mut expect = Expect::new(method.open().await?);
        expect.set_timeout(self.timeout);
        Ok(expect)
    }
}

/// Waits for what the other side of a stream says, and types. What is typed is not kept.
#[derive(Debug)]
pub struct Expect<S> {
    stream: S,
    /// What came and was not matched yet.
    buffer: Vec<u8>,
    /// Bytes at its beginning that were let go of as there were too many.
    dropped: u64,
    ended: bool,
    timeout: Duration,
    read: Vec<u8>,
    /// Who looks on.
    watch: Option<Watch>,
}

/// Sees every byte as it comes.
struct Watch(OnBytes);

type OnBytes = Box<dyn FnMut(&[u8]) + Send>;

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// What was matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Which of the patterns it was, from 0.
    pub index: usize,
    /// What came before it, since the match before.
    pub before: Vec<u8>,
    /// What matched.
    pub matched: Vec<u8>,
    /// Groups of a regular expression, from the first; one that took no part is `None`.
    pub groups: Vec<Option<Vec<u8>>>,
}

/// Why nothing was matched. The text says what was seen instead.
#[derive(Debug, thiserror::Error)]
pub enum ExpectError {
    /// It did not come in time.
    #[error("{wanted} did not come within {limit:?}; {seen}")]
    TimedOut {
        /// The patterns.
        wanted: String,
        /// How long was waited.
        limit: Duration,
        /// What came since the match before.
        seen: Seen,
    },
    /// The stream ended.
    #[error("the stream ended before {wanted} came; {seen}")]
    Ended {
        /// The patterns.
        wanted: String,
        /// What came since the match before.
        seen: Seen,
    },
    /// The stream failed.
    #[error("{what}: {source}; {seen}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        source: io::Error,
        /// What came since the match before.
        seen: Seen,
    },
}

impl ExpectError {
    /// What came since the match before.
    pub fn seen(&self) -> &Seen {
        match self {
            Self::TimedOut { seen, .. } | Self::Ended { seen, .. } | Self::Failed { seen, .. } => {
                seen
            }
        }
    }
}

impl Match {
    /// What came before, as text; what is no UTF-8 is replaced.
    pub fn before_text(&self) -> String {
        String::from_utf8_lossy(&self.before).into_owned()
    }

    /// What matched, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.matched).into_owned()
    }

    /// A group of the regular expression as text, from 1 as in the expression; 0 is all of it.
    pub fn group(&self, number: usize) -> Option<String> {
        let bytes = match number.checked_sub(1) {
            None => &self.matched,
            Some(at) => self.groups.get(at)?.as_ref()?,
        };
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Expect<S> {
    /// On this stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            dropped: 0,
            ended: false,
            timeout: TIMEOUT,
            read: vec![0; READ_BYTES],
            watch: None,
        }
    }

    /// How long patterns may take to come from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Lets `watch` see every byte as it comes, such as to log it.
    pub fn set_watch(&mut self, watch: impl FnMut(&[u8]) + Send + 'static) {
        self.watch = Some(Watch(Box::new(watch)));
    }

    /// Types this, as it is.
    ///
    /// # Errors
    ///
    /// [`ExpectError::Failed`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), ExpectError> {
        let bytes = bytes.as_ref();
        let sent = match self.stream.write_all(bytes).await {
            Ok(()) => self.stream.flush().await,
            Err(error) => Err(error),
        };
        sent.map_err(|source| self.failed("cannot type", source))
    }

    /// Types a line and Enter (`\r`, as a keyboard does).
    ///
    /// # Errors
    ///
    /// [`ExpectError::Failed`].
    pub async fn send_line(&mut self, line: impl AsRef<str>) -> Result<(), ExpectError> {
        self.send(format!("{}\r", line.as_ref())).await
    }

    /// Waits for a pattern.
    ///
    /// # Errors
    ///
    /// [`ExpectError`] if it does not come.
    pub async fn expect(&mut self, pattern: impl Into<Pattern>) -> Result<Match, ExpectError> {
        self.expect_any(&[pattern.into()]).await
    }

    /// Waits for the first of several patterns: the one whose match begins first; the one that is
    /// listed first if two begin at the same place.
    ///
    /// # Errors
    ///
    /// [`ExpectError`] if none of them comes.
    pub async fn expect_any(&mut self, patterns: &[Pattern]) -> Result<Match, ExpectError> {
        self.expect_within(patterns, self.timeout).await
    }

    /// [`expect_any`](Self::expect_any) with this time instead of the usual one. Cancel safe:
    /// what came is not lost.
    ///
    /// # Errors
    ///
    /// [`ExpectError`] if none of them comes in time.
    pub async fn expect_within(
        &mut self,
        patterns: &[Pattern],
        limit: Duration,
    ) -> Result<Match, ExpectError> {
        let until = Instant::now() + limit;
        let mut searched = 0;
        loop {
            if let Some((index, found)) =
                pattern::first(patterns, &self.buffer, searched, self.ended)
            {
                return Ok(self.take(index, found));
            }
            if self.ended {
                return Err(ExpectError::Ended { wanted: wanted(patterns), seen: self.seen() });
            }
            searched = self.buffer.len();
            let read = timeout_at(until, self.stream.read(&mut self.read)).await;
            match read {
                Ok(Ok(0)) => self.ended = true,
                Ok(Ok(size)) => searched = searched.saturating_sub(self.keep(size)),
                Ok(Err(source)) => return Err(self.failed("the stream broke off", source)),
                Err(_elapsed) => {
                    let (wanted, seen) = (wanted(patterns), self.seen());
                    return Err(ExpectError::TimedOut { wanted, limit, seen });
                }
            }
        }
    }

    /// What came since the last match, as it is shown when something fails.
    pub fn seen(&self) -> Seen {
        Seen::of(&self.buffer, self.dropped)
    }

    /// The stream, and what came on it that was not matched.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Keeps what was read, and says how many of the oldest bytes were let go for that.
    fn keep(&mut self, size: usize) -> usize {
        let new = &self.read[..size];
        if let Some(watch) = &mut self.watch {
            (watch.0)(new);
        }
        self.buffer.extend_from_slice(new);
        if self.buffer.len() <= SEARCHED_BYTES_MAX {
            return 0;
        }
        // Half at a time, so that a flood is not moved about for each byte of it.
        let excess = self.buffer.len() - SEARCHED_BYTES_MAX / 2;
        self.buffer.drain(..excess);
        self.dropped += excess as u64;
        excess
    }

    fn take(&mut self, index: usize, found: Found) -> Match {
        let piece = |range: &std::ops::Range<usize>| self.buffer[range.clone()].to_vec();
        let taken = Match {
            index,
            before: piece(&(0..found.at.start)),
            matched: piece(&found.at),
            groups: found.groups.iter().map(|group| group.as_ref().map(piece)).collect(),
        };
        self.buffer.drain(..found.at.end);
        self.dropped = 0;
        taken
    }

    fn failed(&self, what: &'static str, source: io::Error) -> ExpectError {
        ExpectError::Failed { what, source, seen: self.seen() }
    }
}

fn wanted(patterns: &[Pattern]) -> String {
    match patterns {
        [] => "nothing that was asked for".to_owned(),
        patterns => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
    }
}

/// [`Expect`] for code that blocks.
#[derive(Debug)]
pub struct ExpectBlocking<S = ByteStream>(Expect<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ExpectBlocking<S> {
    /// The same, blocking.
    pub fn new(expect: Expect<S>) -> Self {
        Self(expect)
    }

    /// As [`Expect::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.0.set_timeout(timeout);
    }

    /// As [`Expect::send`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), ExpectError> {
        blocking::wait(self.0.send(bytes))
    }

    /// As [`Expect::send_line`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn send_line(&mut self, line: impl AsRef<str>) -> Result<(), ExpectError> {
        blocking::wait(self.0.send_line(line))
    }

    /// As [`Expect::expect`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn expect(&mut self, pattern: impl Into<Pattern>) -> Result<Match, ExpectError> {
        blocking::wait(self.0.expect(pattern))
    }

    /// As [`Expect::expect_any`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn expect_any(&mut self, patterns: &[Pattern]) -> Result<Match, ExpectError> {
        blocking::wait(self.0.expect_any(patterns))
    }
}

impl ExpectAdapter {
    /// [`ClientAdapter::adapt_blocking`], with what it gives blocking, too.
    ///
    /// # Errors
    ///
    /// As [`StreamMethod::open`].
    pub fn blocking(self, method: StreamMethod) -> Result<ExpectBlocking, CallError> {
        self.adapt_blocking(method).map(ExpectBlocking)
    }
}

#[cfg(test)]
mod tests;
