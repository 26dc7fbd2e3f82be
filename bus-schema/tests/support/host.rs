//! The least host there can be: it runs an operation where it is called. Its `Context`, `Items`
//! and `ByteStream` stand for the runtime's.

use std::{
    any::Any,
    future::{Ready, ready},
    marker::PhantomData,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{self, Poll, Wake},
    thread::{self, Thread},
};

use bus_schema::{
    Args, Blocking, Failure, Fault, Invoke, InvokeBlocking, Lent, Loan, Outgoing, RawContext,
    RawItems, RawPipe, Serve, encode_value,
};
use serde::{Serialize, de::DeserializeOwned};

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) client: String,
}

impl TryFrom<RawContext> for Context {
    type Error = Failure;

    fn try_from(raw: RawContext) -> Result<Self, Failure> {
        let context = raw.any().downcast_ref::<Self>().cloned();
        context.ok_or_else(|| Fault::device("the context of another host").into())
    }
}

/// The items of a streaming call, encoded.
pub(crate) type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// What a driver wrote to a stream.
pub(crate) type Written = Arc<Mutex<Vec<u8>>>;

/// Takes the items of a streaming call.
pub(crate) struct Items<T> {
    sent: Sent,
    item: PhantomData<fn(T)>,
}

impl<T: Serialize> Items<T> {
    pub(crate) fn send(&self, item: T) -> Ready<Result<(), Fault>> {
        ready(encode_value(&item).map(|bytes| locked(&self.sent).push(bytes)))
    }
}

impl<T> TryFrom<RawItems> for Items<T> {
    type Error = Failure;

    fn try_from(raw: RawItems) -> Result<Self, Failure> {
        Ok(Self { sent: opened(raw.0)?, item: PhantomData })
    }
}

/// One direction is enough here.
pub(crate) struct ByteStream {
    written: Written,
}

impl ByteStream {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Ready<()> {
        locked(&self.written).extend_from_slice(bytes);
        ready(())
    }
}

impl TryFrom<RawPipe> for ByteStream {
    type Error = Failure;

    fn try_from(raw: RawPipe) -> Result<Self, Failure> {
        Ok(Self { written: opened(raw.0)? })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics that holds it")
}

fn opened<T: 'static>(any: Box<dyn Any + Send>) -> Result<T, Failure> {
    any.downcast().map(|value| *value).map_err(|_| Fault::device("of another host").into())
}

/// Sends operations straight to a driver in the same process.
#[derive(Clone)]
pub(crate) struct Direct(pub(crate) Arc<dyn Serve>);

impl Direct {
    pub(crate) fn new(driver: impl Serve) -> Self {
        Self(Arc::new(driver))
    }

    pub(crate) fn context() -> RawContext {
        RawContext::new(Arc::new(Context { client: "alice".to_owned() }), Arc::new(OwnThread))
    }

    async fn run_call<T: DeserializeOwned>(&self, out: Outgoing) -> Result<T, Failure> {
        let driver = Arc::clone(&self.0);
        let bytes = driver.call(Self::context(), out.method, args(out.args)).await?;
        Ok(decoded(&bytes))
    }

    async fn run_streaming_call<T: DeserializeOwned>(
        &self,
        out: Outgoing,
    ) -> Result<Vec<T>, Failure> {
        let sent = Sent::default();
        let items = RawItems(Box::new(Arc::clone(&sent)));
        let driver = Arc::clone(&self.0);
        driver.streaming_call(Self::context(), out.method, args(out.args), items).await?;
        Ok(locked(&sent).iter().map(|bytes| decoded(bytes)).collect())
    }

    async fn run_stream(&self, out: Outgoing) -> Result<Vec<u8>, Failure> {
        let written = Written::default();
        let pipe = RawPipe(Box::new(Arc::clone(&written)));
        let driver = Arc::clone(&self.0);
        driver.stream(Self::context(), out.method, args(out.args), pipe).await?;
        Ok(std::mem::take(&mut *locked(&written)))
    }
}

fn args(args: Result<bytes::Bytes, String>) -> Args {
    Args(args.expect("arguments of tests can be encoded"))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> T {
    rmp_serde::from_slice(bytes).expect("what the typed client expects")
}

impl Invoke for Direct {
    type Lend = Lent;
    type Error = Failure;
    type Items<T: DeserializeOwned + Send + 'static> = Vec<T>;
    type Pipe = Vec<u8>;

    async fn lend(&self, what: Lent) -> Result<Loan, Failure> {
        Ok(Loan { lent: what, keep: Box::new(()) })
    }

    async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<T, Failure> {
        self.run_call(out).await
    }

    async fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<Vec<T>, Failure> {
        self.run_streaming_call(out).await
    }

    async fn stream(&self, out: Outgoing) -> Result<Vec<u8>, Failure> {
        self.run_stream(out).await
    }
}

impl InvokeBlocking for Direct {
    type Lend = Lent;
    type Error = Failure;
    type Items<T: DeserializeOwned + Send + 'static> = Vec<T>;
    type Pipe = Vec<u8>;

    fn lend(&self, what: Lent) -> Result<Loan, Failure> {
        Ok(Loan { lent: what, keep: Box::new(()) })
    }

    fn call<T: DeserializeOwned + Send + 'static>(&self, out: Outgoing) -> Result<T, Failure> {
        block_on(self.run_call(out))
    }

    fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<Vec<T>, Failure> {
        block_on(self.run_streaming_call(out))
    }

    fn stream(&self, out: Outgoing) -> Result<Vec<u8>, Failure> {
        block_on(self.run_stream(out))
    }
}

/// Runs blocking work on a thread of its own.
struct OwnThread;

impl Blocking for OwnThread {
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if let Err(panic) = thread::spawn(work).join() {
                resume_unwind(panic);
            }
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
