//! What the macros make of interfaces and drivers, on a host without NATS and without tokio.

#[path = "support/host.rs"]
mod host;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use bus_schema::{
    Args, Blocking, Describe, Failure, Fault, FaultKind, Interface, Kind, Refusal, RefusalCode,
    Serve, Value, block, driver, interface,
};
use host::{ByteStream, Context, Direct, Items, block_on};
use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Describe)]
pub(crate) struct Reading {
    /// In volts.
    pub(crate) volts: f64,
}

/// Switches the power of a device.
///
/// This is told in the documentation only.
#[interface]
pub(crate) trait Power {
    /// Connects the device.
    async fn on(&self) -> Result<(), Fault>;

    /// Disconnects the device.
    async fn off(&self) -> Result<(), Fault>;

    /// Disconnects the device
    /// for a while.
    #[method(uncancellable, deadline = "10m")]
    async fn cycle(
        &self,
        /// How long it stays off.
        #[default(Duration::from_secs(2))]
        wait: Duration,
    ) -> Result<Duration, Fault> {
        self.off().await?;
        self.on().await?;
        Ok(wait)
    }

    /// Reads the meter.
    async fn read(&self, cx: &Context, count: u32, items: Items<Reading>) -> Result<(), Fault>;
}

/// Talks to a device.
#[interface(name = "serial-console", version = 3)]
pub(crate) trait Console {
    /// Opens the port.
    async fn connect(&self, cx: Context, greeting: String, pipe: ByteStream);

    /// The rate of the port.
    #[method(concurrent, name = "baud")]
    fn rate(&self) -> u32;

    /// Answered by `Power` where a driver lists that first.
    async fn off(&self) -> Result<(), std::io::Error> {
        Err(std::io::ErrorKind::TimedOut.into())
    }
}

struct Bench {
    on: AtomicBool,
    made_on: ThreadId,
}

impl Bench {
    fn new() -> Self {
        Self { on: AtomicBool::new(false), made_on: thread::current().id() }
    }
}

impl Power for Bench {
    async fn on(&self) -> Result<(), Fault> {
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn off(&self) -> Result<(), Fault> {
        self.on.store(false, Ordering::Relaxed);
        Ok(())
    }

    async fn read(&self, cx: &Context, count: u32, items: Items<Reading>) -> Result<(), Fault> {
        assert_eq!(cx.client, "alice");
        for at in 0..count {
            items.send(Reading { volts: f64::from(at) }).await?;
        }
        Ok(())
    }
}

impl Console for Bench {
    async fn connect(&self, cx: Context, greeting: String, mut pipe: ByteStream) {
        pipe.write(greeting.as_bytes()).await;
        pipe.write(cx.client.as_bytes()).await;
    }

    fn rate(&self) -> u32 {
        assert_ne!(thread::current().id(), self.made_on, "blocking code runs where it may block");
        115_200
    }
}

/// What only this bench can.
#[driver(Power, Console)]
impl Bench {
    /// Says it again.
    #[export]
    async fn echo(&self, text: String, #[default(1)] times: u16) -> String {
        self.repeat(&text, times)
    }

    #[export]
    #[method(concurrent)]
    fn is_on(&self) -> Result<bool, Fault> {
        Ok(self.on.load(Ordering::Relaxed))
    }

    /// Whoever leaves, leaves it dark.
    #[safe]
    async fn make_safe(&self) -> Result<(), Fault> {
        self.off_now();
        Ok(())
    }

    fn off_now(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    fn repeat(&self, text: &str, times: u16) -> String {
        text.repeat(times.into())
    }
}

/// A driver over any backend, with nothing of its own.
struct Over<B> {
    backend: B,
}

impl<B: Clone + Into<u32> + Send + Sync + 'static> Console for Over<B> {
    async fn connect(&self, _cx: Context, _greeting: String, _pipe: ByteStream) {}

    fn rate(&self) -> u32 {
        self.backend.clone().into()
    }
}

#[driver(Console)]
impl<B: Clone + Into<u32> + Send + Sync + 'static> Over<B> {}

fn refused<T>(result: Result<T, Failure>) -> Refusal {
    match result {
        Err(Failure::Refused(refusal)) => refusal,
        Err(Failure::Fault(fault)) => panic!("executed: {fault}"),
        Ok(_) => panic!("executed"),
    }
}

/// Calls a driver with bytes that no typed client would send.
fn call(method: &str, args: &[u8]) -> Result<Value, Failure> {
    let driver = Arc::new(Bench::new());
    let args = Args(bytes::Bytes::copy_from_slice(args));
    let bytes = block_on(driver.call(Direct::context(), method, args))?;
    Ok(Value::from_msgpack(&bytes).expect("a result is one value"))
}

#[test]
fn a_typed_client_reaches_the_method_of_its_name() {
    let bench = Direct::new(Bench::new());
    let power = PowerClient::new(bench.clone());
    let own = BenchBlocking::new(bench);
    block_on(power.on()).unwrap();
    assert!(own.is_on().unwrap());
    block_on(power.off()).unwrap();
    assert!(!own.is_on().unwrap());
    assert_eq!(own.echo("ab".to_owned(), 2).unwrap(), "abab");
}

#[test]
fn a_driver_of_any_backend_serves_its_interfaces() {
    let console = ConsoleBlocking::new(Direct::new(Over { backend: 9_600_u16 }));
    assert_eq!(console.rate().unwrap(), 9_600);
}

#[test]
fn a_body_in_the_contract_serves_drivers_that_have_none() {
    let power = PowerBlocking::new(Direct::new(Bench::new()));
    assert_eq!(power.cycle(Duration::from_millis(5)).unwrap(), Duration::from_millis(5));
    let own = BenchBlocking::new(power.invoke().clone());
    assert!(own.is_on().unwrap());
}

#[test]
fn an_argument_that_was_left_out_has_its_default() {
    let said = call("cycle", b"\x90").unwrap();
    assert_eq!(said, Value::of(&Duration::from_secs(2)).unwrap());
    assert_eq!(call("cycle", b"").unwrap(), said);
    assert_eq!(call("echo", b"\x91\xa2hi").unwrap(), Value::Text("hi".to_owned()));
}

#[test]
fn wrong_arguments_are_refused_with_the_signature() {
    for (method, args, problem) in [
        ("echo", &b"\x90"[..], "argument \"text\" is missing"),
        ("echo", b"\x91\x05", "argument 1 (text): expected text, got 5"),
        ("echo", b"\x92\xa1x\xff", "argument 2 (times): expected u64, got -1"),
        ("echo", b"\x93\xa1x\x01\x01", "takes 2 argument(s), got 3"),
        ("echo", b"\x91\xa1x\x00", "there are bytes after the arguments"),
        ("echo", b"\xa1x", "arguments are an array"),
        ("echo", b"\x92\xa1x", "argument 2 (times): expected u64, got bytes that are no value"),
        ("off", b"\x90\xc0", "there are bytes after the arguments"),
    ] {
        let refusal = refused(call(method, args));
        assert_eq!(refusal.code, RefusalCode::BadArguments, "{refusal}");
        assert!(refusal.text.contains(problem), "{refusal}");
        let signature = match method {
            "echo" => "echo(text: text, times: u64 = 1) -> text",
            _ => "off() -> nothing",
        };
        assert!(refusal.text.ends_with(signature), "{refusal}");
    }
}

/// The decoder that says what is wrong must not go on where the first one stopped.
#[test]
fn every_argument_behind_one_that_is_nested_too_deep_is_refused() {
    let interfaces = Bench::new().interfaces();
    let echo = interfaces.iter().find_map(|interface| interface.method("echo")).unwrap();
    let args = Args([&b"\x92"[..], &[0x91; 100]].concat().into());
    let mut reader = args.reader(echo).unwrap();
    for _ in 0..2 {
        let refusal = reader.take::<Value>().unwrap_err();
        assert!(refusal.text.contains("nested deeper than 32"), "{refusal}");
    }
}

#[test]
fn a_wrong_name_or_kind_is_refused_with_what_there_is() {
    let refusal = refused(call("of", b"\x90"));
    assert_eq!(refusal.code, RefusalCode::UnknownMethod);
    assert_eq!(
        refusal.text,
        "no method \"of\": there are on, off, cycle, read, connect, baud, off, echo, is_on"
    );
    let refusal = refused(call("read", b"\x91\x02"));
    assert_eq!(refusal.code, RefusalCode::WrongKind);
    assert_eq!(
        refusal.text,
        "read is a streaming call, used as a call: read(count: u64) -> stream of Reading"
    );
}

#[test]
fn a_streaming_call_gives_its_items_in_order() {
    let bench = Direct::new(Bench::new());
    let wanted = [Reading { volts: 0.0 }, Reading { volts: 1.0 }];
    assert_eq!(PowerBlocking::new(bench.clone()).read(2).unwrap(), wanted);
    assert_eq!(block_on(PowerClient::new(bench).read(2)).unwrap(), wanted);
}

#[test]
fn a_stream_gets_its_arguments_and_its_pipe() {
    let console = ConsoleBlocking::new(Direct::new(Bench::new()));
    assert_eq!(console.connect("hello ".to_owned()).unwrap(), b"hello alice");
}

#[test]
fn a_method_that_is_no_async_fn_runs_where_it_may_block() {
    let bench = Direct::new(Bench::new());
    assert_eq!(ConsoleBlocking::new(bench).rate().unwrap(), 115_200);
}

#[test]
fn a_panic_in_blocking_code_is_one_of_the_operation() {
    #[driver]
    impl Panics {
        #[export]
        fn touch(&self) {
            panic!("the device is on fire");
        }
    }
    struct Panics;

    let panics = PanicsBlocking::new(Direct::new(Panics));
    let panic = catch_unwind(AssertUnwindSafe(|| panics.touch())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the device is on fire"));
}

#[test]
fn work_that_a_host_drops_is_refused() {
    struct GoingDown;
    impl Blocking for GoingDown {
        fn block(&self, _: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(std::future::ready(()))
        }
    }
    let ended = block_on(block(Arc::new(GoingDown), || panic!("run")));
    let ended: Result<(), Refusal> = ended;
    assert_eq!(ended.unwrap_err().code, RefusalCode::ShuttingDown);
}

#[test]
fn of_two_operations_with_one_name_that_of_the_first_interface_answers() {
    let bench = Direct::new(Bench::new());
    ConsoleBlocking::new(bench).off().expect("the `off` of Power");
    let alone = ConsoleBlocking::new(Direct::new(Over { backend: 1_u8 }));
    match alone.off() {
        Err(Failure::Fault(fault)) => assert_eq!(fault.kind, FaultKind::Timeout),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_driver_says_how_it_is_made_safe_or_that_it_need_not_be() {
    let bench = Arc::new(Bench::new());
    bench.on.store(true, Ordering::Relaxed);
    block_on(Arc::clone(&bench).safe(Direct::context()).unwrap()).unwrap();
    assert!(!bench.on.load(Ordering::Relaxed));
    assert!(Arc::new(Over { backend: 1_u8 }).safe(Direct::context()).is_none());
}

#[test]
fn the_descriptor_says_what_the_trait_says() {
    let power = PowerInterface::describe();
    assert_eq!((&*power.name, power.version), ("power", 1));
    assert_eq!(power.help, "Switches the power of a device.");
    let cycle = power.method("cycle").unwrap();
    assert_eq!(cycle.help, "Disconnects the device for a while.");
    assert_eq!(cycle.to_string(), "cycle(wait: duration = 2s) -> duration");
    assert_eq!(cycle.params[0].help, "How long it stays off.");
    assert_eq!(cycle.deadline_ms, Some(600_000));
    assert!(cycle.uncancellable && !cycle.concurrent);
    let read = power.method("read").unwrap();
    assert!(read.kind == Kind::StreamingCall && read.concurrent);

    let console = ConsoleInterface::describe();
    assert_eq!((&*console.name, console.version), ("serial-console", 3));
    let signatures: Vec<_> = console.methods.iter().map(ToString::to_string).collect();
    assert_eq!(
        signatures,
        ["connect(greeting: text) -> byte stream", "baud() -> u64", "off() -> nothing"]
    );
    let served: Vec<_> = Bench::new().interfaces().iter().map(|i| i.name.clone()).collect();
    assert_eq!(served, ["power", "serial-console", "bench"]);
}

#[test]
fn a_descriptor_survives_the_wire() {
    for interface in Bench::new().interfaces() {
        let bytes = rmp_serde::to_vec_named(&*interface).unwrap();
        assert_eq!(rmp_serde::from_slice::<Interface>(&bytes).unwrap(), *interface);
    }
}
