//! A process of the demo: this program once more, and what is expected of it.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Nothing that is expected takes so long; the fetch of a broker is not among it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to stop; an exporter makes its board safe.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Most that is kept of what a process says.
const HEARD_BYTES_MAX: usize = 1 << 20;
/// What is shown of it when something goes wrong.
const SHOWN_BYTES: usize = 1 << 10;

/// A process with piped ends, below `keeper.sh`. Dropped, it is told to stop, and its tracker waits for it.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    stdin: Option<ChildStdin>,
    out: watch::Receiver<Vec<u8>>,
    err: watch::Receiver<Vec<u8>>,
    code: watch::Receiver<Option<i32>>,
    _told: DropGuard,
}

impl Process {
    pub(super) fn start(
        name: &'static str,
        mut command: Command,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start")?;
        let stdin = child.stdin.take();
        let out = listen(child.stdout.take().expect("it is piped"), tasks);
        let err = listen(child.stderr.take().expect("it is piped"), tasks);
        let told = CancellationToken::new();
        let (tell, code) = watch::channel(None);
        tasks.spawn(tend(child, told.clone(), tell));
        Ok(Self { name, stdin, out, err, code, _told: told.drop_guard() })
    }

    /// How much it has said so far.
    pub(super) fn mark(&self) -> usize {
        self.out.borrow().len()
    }

    /// What it has said since a mark.
    pub(super) fn said(&self, mark: usize) -> Vec<u8> {
        self.out.borrow().get(mark..).unwrap_or_default().to_vec()
    }

    /// Waits until it has said `text`. Gives what it has said since the mark, up to there.
    pub(super) async fn says(&mut self, text: &str, mark: usize) -> anyhow::Result<String> {
        self.says_all(mark, |said| find(said, text).map(|at| at + text.len()))
            .await
            .with_context(|| format!("the {} has not said {text:?}", self.name))
    }

    /// As [`says`](Self::says), for as long as `until` has no end of it.
    pub(super) async fn says_all(
        &mut self,
        mark: usize,
        until: impl Fn(&[u8]) -> Option<usize>,
    ) -> anyhow::Result<String> {
        let end = |said: &[u8]| until(said.get(mark..).unwrap_or_default());
        let found = match timeout(PATIENCE, self.out.wait_for(|said| end(said).is_some())).await {
            Ok(Ok(said)) => end(&said).map(|end| said[mark..mark + end].to_vec()),
            Ok(Err(_)) | Err(_) => None,
        };
        match found {
            Some(found) => Ok(String::from_utf8_lossy(&found).into_owned()),
            None => bail!("{}", self.last_words()),
        }
    }

    /// Waits until it has said `text` on stderr.
    pub(super) async fn notes(&mut self, text: &str) -> anyhow::Result<()> {
        let heard = async { self.err.wait_for(|said| find(said, text).is_some()).await.is_ok() };
        let found = timeout(PATIENCE, heard).await.unwrap_or(false);
        match found {
            true => Ok(()),
            false => bail!("the {} has not said {text:?}: {}", self.name, self.last_words()),
        }
    }

    /// Types something.
    pub(super) async fn types(&mut self, keys: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("it has no keyboard")?;
        stdin.write_all(keys.as_bytes()).await.context(format!("cannot type to the {}", self.name))
    }

    /// Waits for its end.
    pub(crate) async fn gone(&mut self) {
        let _ = self.code.wait_for(Option::is_some).await; // an error means that it is gone, too
    }

    /// Tells it to stop, waits for its end and gives its exit code.
    pub(super) async fn end(mut self) -> anyhow::Result<i32> {
        self.stdin = None;
        self.code().await
    }

    /// Tells it to stop, which it has to do well.
    pub(crate) async fn stopped(mut self) -> anyhow::Result<String> {
        self.stdin = None;
        self.done().await
    }

    /// Waits for its end, which has to be a good one.
    pub(super) async fn done(mut self) -> anyhow::Result<String> {
        match self.code().await? {
            0 => Ok(String::new()),
            code => bail!("it ended with exit code {code}: {}", self.last_words()),
        }
    }

    async fn code(&mut self) -> anyhow::Result<i32> {
        let ended = timeout(STOP_WITHIN, self.gone()).await;
        let code = ended.ok().and_then(|()| *self.code.borrow());
        code.with_context(|| format!("the {} does not end: {}", self.name, self.last_words()))
    }

    /// The end of all that it said.
    fn last_words(&self) -> String {
        format!("stdout: {}, stderr: {}", tail(&self.out.borrow()), tail(&self.err.borrow()))
    }
}

/// Where `text` begins in what was said.
pub(super) fn find(said: &[u8], text: &str) -> Option<usize> {
    said.windows(text.len()).position(|window| window == text.as_bytes())
}

fn tail(said: &[u8]) -> String {
    let end = &said[said.len().saturating_sub(SHOWN_BYTES)..];
    format!("{:?}", String::from_utf8_lossy(end))
}

fn listen(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    tasks: &TaskTracker,
) -> watch::Receiver<Vec<u8>> {
    let (tell, heard) = watch::channel(Vec::new());
    tasks.spawn(async move {
        let mut buf = vec![0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buf).await {
            tell.send_modify(|said| {
                let room = HEARD_BYTES_MAX.saturating_sub(said.len());
                said.extend_from_slice(&buf[..read.min(room)]);
            });
        }
    });
    heard
}

/// Stays with a process to its end. One that is not wanted any more has seen the end of its stdin.
async fn tend(mut child: Child, told: CancellationToken, tell: watch::Sender<Option<i32>>) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = told.cancelled() => match timeout(STOP_WITHIN, child.wait()).await {
            Ok(status) => status,
            Err(_) => child.kill().await.and(child.wait().await),
        },
    };
    let code = status.ok().and_then(|status| status.code()).unwrap_or(-1);
    tell.send_replace(Some(code));
}
