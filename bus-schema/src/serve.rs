//! The seam between a driver and what hosts it, and between a typed client and what calls for it.
//!
//! Generated code names these two traits and nothing of the runtime: [`Serve`] dispatches a
//! decoded operation to a driver's method, [`Invoke`] sends one. What the macros expand to could
//! be written by hand, and once is, in `tests/`.

use std::{
    any::Any,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rmp_serde::decode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Failure, Fault, Interface, Kind, Lent, Method, Refusal, RefusalCode, Type, Value,
    limits::DEPTH_MAX, plainly,
};

/// The future of one served operation. It owns what it needs, so that it can be a task.
pub type Serving<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// What a host needs of a driver.
///
/// Every method takes the driver by `Arc`, as operations are tasks that may outlast the actor's
/// interest in them. Method names and kinds are checked by the host against
/// [`interfaces`](Self::interfaces) before one of these is called.
pub trait Serve: Send + Sync + 'static {
    /// What the driver can do. Asked once for each value of the driver.
    fn interfaces(&self) -> Vec<Arc<Interface>>;

    /// Runs a call and gives its result as one MessagePack value.
    fn call(self: Arc<Self>, cx: RawContext, method: &str, args: Args) -> Serving<Vec<u8>>;

    /// Runs a streaming call, which puts its items into `items`.
    fn streaming_call(
        self: Arc<Self>,
        cx: RawContext,
        method: &str,
        args: Args,
        items: RawItems,
    ) -> Serving<()>;

    /// Runs a stream over `pipe`.
    fn stream(
        self: Arc<Self>,
        cx: RawContext,
        method: &str,
        args: Args,
        pipe: RawPipe,
    ) -> Serving<()>;

    /// Makes the device safe, if there is a difference between safe and not.
    fn safe(self: Arc<Self>, cx: RawContext) -> Option<Serving<()>> {
        let _ = cx;
        None
    }
}

/// What the host hands to every operation: what the runtime's `Context` is made from, opaque here,
/// and where blocking code runs.
#[derive(Clone)]
pub struct RawContext {
    any: Arc<dyn Any + Send + Sync>,
    blocking: Arc<dyn Blocking>,
}

impl RawContext {
    /// A context of a host that runs blocking methods by `blocking`.
    pub fn new(any: Arc<dyn Any + Send + Sync>, blocking: Arc<dyn Blocking>) -> Self {
        Self { any, blocking }
    }

    /// What the host made its context of.
    pub fn any(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.any
    }

    /// Where blocking code runs.
    pub fn blocking(&self) -> &Arc<dyn Blocking> {
        &self.blocking
    }
}

/// Where a host runs code that blocks its thread.
pub trait Blocking: Send + Sync {
    /// Runs `work`, and resolves when it has ended.
    ///
    /// If `work` panics the future does (`resume_unwind`), so that the operation's task sees it
    /// like a panic of its own. If the future is dropped `work` runs on: the host must count it as
    /// running until it has ended. A host that cannot run it any more drops it and resolves.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Runs a method that is no `async fn`.
///
/// # Errors
///
/// *shutting down* if the host dropped the work instead.
pub async fn block<T: Send + 'static>(
    blocking: Arc<dyn Blocking>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let result = Arc::new(Mutex::new(None));
    let put = Arc::clone(&result);
    let work = move || {
        let value = work();
        *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    };
    blocking.block(Box::new(work)).await;
    let value = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    value.ok_or_else(|| {
        Refusal::new(RefusalCode::ShuttingDown, "the exporter is going down; nothing was done")
    })
}

/// What the host hands to a streaming call. The runtime's `Items<T>` is made from it.
pub struct RawItems(pub Box<dyn Any + Send>);

/// A resource that was lent to an operation. The runtime's `Resource` and `ResourceWriter` are made
/// from it.
#[derive(Clone, Debug)]
pub struct RawResource {
    /// What the caller lends.
    pub lent: Lent,
    /// The operation that it is lent to.
    pub cx: RawContext,
}

/// What the host hands to a stream. The runtime's `ByteStream` is made from it.
pub struct RawPipe(pub Box<dyn Any + Send>);

macro_rules! opaque {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        })*
    };
}
opaque!(RawContext, RawItems, RawPipe);

/// The arguments of one operation: a MessagePack array, not yet decoded.
#[derive(Clone, Debug, Default)]
pub struct Args(pub Bytes);

impl Args {
    /// Reads the arguments in the order of `method`'s parameters.
    ///
    /// # Errors
    ///
    /// *bad arguments* if this is no array or holds more than the method has parameters.
    pub fn reader<'a>(&'a self, method: &'a Method) -> Result<ArgReader<'a>, Refusal> {
        let empty = self.0.is_empty(); // a message without arguments may leave them out
        let mut rest = if empty { &[0x90][..] } else { &self.0[..] };
        let refuse = |problem: String| bad_arguments(method, problem);
        let count = rmp::decode::read_array_len(&mut rest)
            .map_err(|_| refuse("arguments are an array in declared order".to_owned()))?;
        let count = count as usize;
        if count > method.params.len() {
            return Err(refuse(format!("takes {} argument(s), got {count}", method.params.len())));
        }
        let mut de = rmp_serde::Deserializer::from_read_ref(rest);
        de.set_max_depth(DEPTH_MAX);
        Ok(ArgReader { method, values: rest, de, at: 0, count })
    }
}

/// The refusal of a method that none of `interfaces` has, or not of the kind it was used as.
pub fn refuse_method(interfaces: &[Arc<Interface>], method: &str, used_as: Kind) -> Refusal {
    if let Some(known) = interfaces.iter().find_map(|interface| interface.method(method)) {
        let text = format_args!("{method} is a {}, used as a {used_as}: {known}", known.kind);
        return Refusal::new(RefusalCode::WrongKind, text);
    }
    let names: Vec<_> =
        interfaces.iter().flat_map(|i| &i.methods).map(|method| method.name.as_str()).collect();
    let there_are = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let text = format_args!("no method {method:?}: there are {there_are}");
    Refusal::new(RefusalCode::UnknownMethod, text)
}

fn bad_arguments(method: &Method, problem: impl fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::BadArguments, format_args!("{problem}; the method is {method}"))
}

/// Decodes arguments one after the other. Made by [`Args::reader`].
#[derive(Debug)]
pub struct ArgReader<'a> {
    method: &'a Method,
    /// All of the arguments, to say what is wrong with one.
    values: &'a [u8],
    de: rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>,
    at: usize,
    count: usize,
}

impl ArgReader<'_> {
    /// The next argument.
    ///
    /// # Errors
    ///
    /// *bad arguments* if there is none or it has another type.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        if self.at == self.count {
            let missing = self.method.params.get(self.at).map_or("?", |param| &param.name);
            return Err(bad_arguments(
                self.method,
                format_args!("argument {missing:?} is missing"),
            ));
        }
        self.decode()
    }

    /// The next argument, or `default()` if the caller left it out.
    ///
    /// # Errors
    ///
    /// *bad arguments* if it is there and has another type.
    pub fn take_or<T: DeserializeOwned>(
        &mut self,
        default: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        if self.at == self.count {
            return Ok(default());
        }
        self.decode()
    }

    fn decode<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let param = &self.method.params[self.at];
        self.at += 1;
        T::deserialize(&mut self.de).map_err(|error| {
            // After an error rmp-serde's count of the depth is off: read on in a byte that is
            // no value.
            self.de = rmp_serde::Deserializer::from_read_ref(&[0xc1]);
            let problem = self.problem(&param.ty, &error);
            let name = &param.name;
            bad_arguments(self.method, format_args!("argument {} ({name}): {problem}", self.at))
        })
    }

    /// What is wrong with the argument that was not decoded.
    fn problem(&self, ty: &Type, error: &decode::Error) -> String {
        let mut de = rmp_serde::Deserializer::from_read_ref(self.values);
        de.set_max_depth(DEPTH_MAX);
        // Not a step past an error: after one, rmp-serde's count of the depth is off.
        let values = (0..self.at).try_fold(Value::Nil, |_, _| Value::deserialize(&mut de));
        match values.map(|last| last.misfit(ty)) {
            Ok(Some(misfit)) => misfit.to_string(),
            // The driver's own type is narrower than that of the wire.
            Ok(None) => plainly(&error.to_string()),
            Err(decode::Error::DepthLimitExceeded) => format!("nested deeper than {DEPTH_MAX}"),
            Err(_) => format!("expected {ty}, got bytes that are no value of MessagePack"),
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// *bad arguments* if bytes are left over.
    pub fn finish(mut self) -> Result<(), Refusal> {
        // The decoder does not say where it is, but whether it finds another marker.
        let end = <()>::deserialize(&mut self.de);
        match self.at >= self.count && matches!(end, Err(decode::Error::InvalidMarkerRead(_))) {
            true => Ok(()),
            false => Err(bad_arguments(self.method, "there are bytes after the arguments")),
        }
    }
}

/// Encodes a result or an item as one MessagePack value with named fields.
///
/// # Errors
///
/// A [`Fault`] if the value cannot be encoded: its `Serialize` is wrong, which is the driver's.
pub fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Fault> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| Fault::device(format_args!("the driver's result cannot be sent: {error}")))
}

/// One operation on its way out of a typed client.
#[derive(Debug)]
pub struct Outgoing {
    /// The method's name.
    pub method: &'static str,
    /// Its declared deadline, if it has one.
    pub deadline: Option<Duration>,
    /// The arguments as a MessagePack array, or why they could not be encoded.
    pub args: Result<Bytes, String>,
    /// What is lent with it, kept until it has ended.
    pub loans: Vec<Loan>,
}

/// Something lent: what the driver is told, and what has to live until the operation has ended.
pub struct Loan {
    /// The argument.
    pub lent: Lent,
    /// Of the runtime: what moves the data.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Loan").field(&self.lent).finish()
    }
}

impl Outgoing {
    /// An operation with `args`, a tuple in the order of the method's parameters. (An empty
    /// argument list is `[(); 0]`: `()` would travel as nil.)
    pub fn new<A: Serialize>(method: &'static str, deadline: Option<Duration>, args: &A) -> Self {
        let args = rmp_serde::to_vec_named(args).map(Bytes::from).map_err(|e| e.to_string());
        Self { method, deadline, args, loans: Vec::new() }
    }

    /// The same operation, with something that is lent to it.
    #[must_use]
    pub fn with(mut self, loan: Loan) -> Self {
        self.loans.push(loan);
        self
    }
}

/// What a typed client needs to send its operations.
pub trait Invoke: Clone + Send + Sync + 'static {
    /// Why an operation gave no result.
    type Error: Send;
    /// The items of a streaming call.
    type Items<T: DeserializeOwned + Send + 'static>: Send;
    /// A raw stream.
    type Pipe: Send;
    /// What can be lent.
    type Lend: Send;

    /// Makes something ready to be lent: a file is uploaded, a reader is connected.
    fn lend(&self, what: Self::Lend) -> impl Future<Output = Result<Loan, Self::Error>> + Send;

    /// Sends a call.
    fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> impl Future<Output = Result<T, Self::Error>> + Send;

    /// Starts a streaming call.
    fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> impl Future<Output = Result<Self::Items<T>, Self::Error>> + Send;

    /// Opens a stream.
    fn stream(&self, out: Outgoing)
    -> impl Future<Output = Result<Self::Pipe, Self::Error>> + Send;
}

/// [`Invoke`] for code that blocks, as tests mostly do.
pub trait InvokeBlocking: Clone + Send + Sync + 'static {
    /// Why an operation gave no result.
    type Error: Send;
    /// The items of a streaming call.
    type Items<T: DeserializeOwned + Send + 'static>;
    /// A raw stream.
    type Pipe;
    /// What can be lent.
    type Lend;

    /// Makes something ready to be lent: a file is uploaded, a reader is connected.
    ///
    /// # Errors
    ///
    /// That it cannot be read or uploaded.
    fn lend(&self, what: Self::Lend) -> Result<Loan, Self::Error>;

    /// Sends a call and waits for its result.
    ///
    /// # Errors
    ///
    /// Every way a call can end but its result.
    fn call<T: DeserializeOwned + Send + 'static>(&self, out: Outgoing) -> Result<T, Self::Error>;

    /// Starts a streaming call.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), until it has begun.
    fn streaming_call<T: DeserializeOwned + Send + 'static>(
        &self,
        out: Outgoing,
    ) -> Result<Self::Items<T>, Self::Error>;

    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call), until it is open.
    fn stream(&self, out: Outgoing) -> Result<Self::Pipe, Self::Error>;
}

impl Value {
    /// What `value` is on the wire, or `None` if its `Serialize` fails.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Option<Self> {
        Self::from_msgpack(&rmp_serde::to_vec_named(value).ok()?).ok()
    }

    /// Reads one MessagePack value.
    ///
    /// # Errors
    ///
    /// The decoder's word for what is wrong with the bytes.
    pub fn from_msgpack(bytes: &[u8]) -> Result<Self, decode::Error> {
        let mut de = rmp_serde::Deserializer::from_read_ref(bytes);
        de.set_max_depth(DEPTH_MAX);
        Self::deserialize(&mut de)
    }
}
