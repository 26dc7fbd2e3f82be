//! A driver with a method for each way in which an operation can go.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, sync::Arc};

use bus_schema::{Fault, driver};
use bytes::Bytes;
use runtime::{ByteStream, Context, Items};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split},
    sync::{Semaphore, watch},
};

/// What happened in a driver, in order, for tests that wait for it.
#[derive(Clone, Debug)]
pub struct Events(Arc<watch::Sender<Vec<String>>>);

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }
}

impl Events {
    /// Notes that `what` happened.
    pub fn note(&self, what: impl Into<String>) {
        self.0.send_modify(|events| events.push(what.into()));
    }

    /// Waits until `what` has happened.
    pub async fn happened(&self, what: &str) {
        let mut seen = self.0.subscribe();
        let happened = seen.wait_for(|events| events.iter().any(|event| event == what)).await;
        drop(happened.expect("the sender lives as long as this"));
    }

    /// All of them so far.
    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

/// The driver.
#[derive(Clone, Debug)]
pub struct TestDriver {
    /// Where `count` appends the ids of its calls.
    pub file: PathBuf,
    /// What happened.
    pub events: Events,
    /// A permit lets one `hold` end.
    pub release: Arc<Semaphore>,
}

impl TestDriver {
    /// A driver that counts in `file`.
    pub fn new(file: PathBuf) -> Self {
        Self { file, events: Events::default(), release: Arc::new(Semaphore::new(0)) }
    }

    async fn wait(&self, cx: &Context, name: String) -> String {
        self.events.note(format!("begin {name}"));
        tokio::select! {
            permit = self.release.acquire() => permit.expect("it is never closed").forget(),
            () = cx.cancelled() => self.events.note(format!("cancelled {name}")),
        }
        self.events.note(format!("end {name}"));
        name
    }
}

#[driver]
impl TestDriver {
    /// Gives the bytes back.
    #[export]
    async fn echo(&self, body: Bytes) -> Bytes {
        body
    }

    /// Gives this many bytes.
    #[export]
    async fn produce(&self, bytes: u64) -> Bytes {
        vec![7; usize::try_from(bytes).unwrap_or(0)].into()
    }

    /// Fails.
    #[export]
    async fn fail(&self) -> Result<(), Fault> {
        Err(Fault::device("the relay is stuck"))
    }

    /// Fails when `hold` has begun, beside it.
    #[export]
    #[method(concurrent)]
    async fn fail_beside(&self) -> Result<(), Fault> {
        while self.events.all().is_empty() {
            tokio::task::yield_now().await;
        }
        Err(Fault::device("something else has begun"))
    }

    /// Panics.
    #[export]
    async fn explode(&self) -> Result<(), Fault> {
        panic!("boom")
    }

    /// Waits to be released or cancelled; exclusive.
    #[export]
    async fn hold(&self, cx: &Context, name: String) -> String {
        self.wait(cx, name).await
    }

    /// Waits to be released or cancelled, beside others.
    #[export]
    #[method(concurrent)]
    async fn hold_beside(&self, cx: &Context, name: String) -> String {
        self.wait(cx, name).await
    }

    /// Runs code that blocks until `release`, whoever cancels it.
    #[export]
    async fn block(&self, cx: &Context, name: String) -> String {
        self.events.note(format!("begin {name}"));
        let (release, events) = (self.release.clone(), self.events.clone());
        cx.blocking(move || {
            let permit = futures_util::FutureExt::now_or_never(release.acquire());
            if permit.is_none() {
                let waiting = tokio::runtime::Handle::current().block_on(release.acquire());
                waiting.expect("it is never closed").forget();
            }
            events.note(format!("end {name}"));
            name
        })
        .await
    }

    /// Appends the call's id to the file, and answers when it is on the disk.
    #[export]
    async fn count(&self, cx: &Context) -> Result<(), Fault> {
        let id = cx.call_id().map(|id| id.to_string()).unwrap_or_default();
        let line = format!("{} {id}\n", cx.caller());
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        Ok(())
    }

    /// Appends the call's id to the file, and never answers.
    #[export]
    #[method(concurrent)]
    async fn count_and_hang(&self, cx: &Context) -> Result<(), Fault> {
        self.count(cx).await?;
        std::future::pending().await
    }

    /// Appends who calls and the lease that they say they have to the file.
    #[export]
    async fn under(&self, cx: &Context, epoch: u64) -> Result<(), Fault> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file)?;
        file.write_all(format!("{} {epoch}\n", cx.caller()).as_bytes())?;
        Ok(())
    }

    /// Gives `count` numbers.
    #[export]
    async fn numbers(&self, count: u64, items: Items<u64>) -> Result<(), Fault> {
        for number in 0..count {
            items.send(number).await?;
            self.events.note("item");
        }
        Ok(())
    }

    /// Gives numbers without end, each padded to `bytes`.
    #[export]
    async fn flood(&self, bytes: u64, items: Items<Bytes>) -> Result<(), Fault> {
        let item = Bytes::from(vec![1; usize::try_from(bytes).unwrap_or(1)]);
        loop {
            items.send(item.clone()).await?;
            self.events.note("item");
        }
    }

    /// Gives every byte back.
    #[export]
    async fn reflect(&self, stream: ByteStream) -> Result<(), Fault> {
        let (mut read, mut write) = split(stream);
        copy(&mut read, &mut write).await?;
        write.shutdown().await?;
        Ok(())
    }

    /// Reads to the end, and then says how many bytes there were.
    #[export]
    async fn measure(&self, mut stream: ByteStream) -> Result<(), Fault> {
        let mut buf = vec![0; 65_536];
        let mut total = 0_u64;
        loop {
            match stream.read(&mut buf).await {
                Ok(0) => break,
                Ok(read) => total += read as u64,
                Err(error) => {
                    self.events.note(format!("broken: {error}"));
                    return Err(error.into());
                }
            }
        }
        stream.write_all(&total.to_be_bytes()).await?;
        stream.shutdown().await?;
        Ok(())
    }

    /// Says goodbye and ends its half; then hears the other one to its end.
    #[export]
    async fn hear_out(&self, mut stream: ByteStream) -> Result<(), Fault> {
        stream.write_all(b"bye").await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        self.events.note(format!("heard {}", heard.len()));
        Ok(())
    }

    /// Writes without end.
    #[export]
    async fn pour(&self, mut stream: ByteStream) -> Result<(), Fault> {
        let bytes = vec![3; 65_536];
        loop {
            stream.write_all(&bytes).await?;
        }
    }

    /// Reads nothing until it is released, and then ends.
    #[export]
    async fn stall(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault> {
        self.wait(cx, "stall".to_owned()).await;
        drop(stream);
        Ok(())
    }

    /// Reads nothing until it is released, and then fails.
    #[export]
    async fn break_off(&self, cx: &Context, stream: ByteStream) -> Result<(), Fault> {
        self.wait(cx, "break off".to_owned()).await;
        drop(stream);
        Err(Fault::device("the cable is out"))
    }
}
